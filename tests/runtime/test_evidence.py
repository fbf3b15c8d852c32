"""The map that ranks pixels: it agrees with the decisions, follows the energies, and is one map of all parts."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from uflow_edge.runtime import Inspector
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.engines import Outputs
from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.nfa.null_model import ImageGain, NullModel, NullScale, TailLaw
from uflow_edge.runtime.numeric import FloatMap
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.scoring import Scorer
from uflow_edge.runtime.views import ViewOptions

TAIL = TailLaw(degrees=30, scale=1 / 30, shift=0.0, threshold=1.5, exceedance=0.05, shape=0.1, spread=0.2)


class Fixed:
    """Gives the same energies for every picture: noise, and a defect whose pixels differ."""

    name = "fixed"
    precision = "fp32"

    def __init__(self, manifest: UFlowManifest) -> None:
        random = np.random.default_rng(5)
        shapes = [(1, scale.height, scale.width) for scale in manifest.scales]
        self.energies = [
            random.gamma(scale.channels / 2, 2, shape).astype(np.float32)
            for scale, shape in zip(manifest.scales, shapes, strict=True)
        ]
        defect = self.energies[0][0, 2:5, 3:7]
        defect += random.uniform(3, 9, defect.shape).astype(np.float32) * manifest.scales[0].channels

    def run(self, images: np.ndarray) -> Outputs:
        return tuple(np.repeat(one, len(images), axis=0) for one in self.energies)


@pytest.fixture(scope="module")
def manifest(exported) -> UFlowManifest:
    return Bundle.load(exported, UFlowManifest).manifest


@pytest.fixture(scope="module")
def null_model(manifest: UFlowManifest) -> NullModel:
    random = np.random.default_rng(6)
    gains = [
        (one.channels * random.uniform(0.8, 1.2, (one.height, one.width))).astype(np.float32) for one in manifest.scales
    ]
    image_gain = ImageGain(0.5, 0.5, 2.0)
    scales = tuple(NullScale(gain, image_gain, TAIL, np.array([1.0, 1.5]), np.array([1.0, 1.0])) for gain in gains)
    return NullModel(scales, 40)


@pytest.fixture(params=["calibrated", "rule"])
def inspector(request: pytest.FixtureRequest, manifest: UFlowManifest, null_model: NullModel) -> Inspector:
    return Inspector(manifest, Fixed(manifest), null_model=null_model if request.param == "calibrated" else None)


def seen(inspector: Inspector, views: ViewOptions = ViewOptions(), size: tuple[int, int] = (64, 64)) -> Inspection:
    model = inspector._scorer.null_model
    tiled = Inspector(inspector.manifest, inspector.engine, views, null_model=model)
    return tiled.examine(np.zeros((*size, 3), np.uint8))


def test_above_one_is_what_was_detected(inspector: Inspector) -> None:
    inspection = seen(inspector)
    evidence, detected = inspection.evidence(), inspection.verdict.mask
    assert 0 < detected.mean() < 0.5
    np.testing.assert_array_equal(evidence > 1, detected)
    assert evidence[detected].min() >= 2 > 1 >= evidence[~detected].max()
    assert evidence.dtype == np.float32 and np.isfinite(evidence).all()


def test_pixels_are_ordered_by_their_own_evidence(inspector: Inspector) -> None:
    inspection = seen(inspector)
    own, evidence, detected = inspection.pixel_evidence(), inspection.evidence(), inspection.verdict.mask
    for part in (~detected, detected):
        ordered = evidence[part][np.argsort(own[part], kind="stable")]
        assert part.sum() > 50 and len(np.unique(ordered)) > part.sum() / 2
        assert (np.diff(ordered) >= 0).all()


def test_more_energy_is_never_less_evidence(manifest: UFlowManifest, null_model: NullModel) -> None:
    energies = [one[0] for one in Fixed(manifest).energies]
    for scorer in (Scorer(manifest), Scorer(manifest, null_model)):
        before = scorer.pixel_evidence(energies)
        energies[1][2, 2] *= 3
        after = scorer.pixel_evidence(energies)
        assert (after >= before).all() and (after > before).sum() > 100


def test_each_scale_adds_the_logarithm_of_its_surprise(manifest: UFlowManifest, null_model: NullModel) -> None:
    energies = [one[0] for one in Fixed(manifest).energies]

    def expected(surprises: list[FloatMap]) -> FloatMap:
        return sum(cv2.resize(np.log1p(one), (64, 64), interpolation=cv2.INTER_LINEAR) for one in surprises)

    likelihoods = [np.exp(-one / (2 * scale.channels)) for one, scale in zip(energies, manifest.scales, strict=True)]
    found = Scorer(manifest).pixel_evidence(energies)
    np.testing.assert_allclose(found, expected([-np.log(one) for one in likelihoods]), rtol=1e-4)
    ratios = [one / scale.pixel_gain for one, scale in zip(energies, null_model.scales, strict=True)]
    found = Scorer(manifest, null_model).pixel_evidence(energies)
    np.testing.assert_allclose(found, expected([-TAIL.log10_tail(one) for one in ratios]), atol=1e-5)


@pytest.mark.parametrize("energy", [0.0, 3e38])
def test_extreme_energies_have_finite_evidence(energy: float, manifest: UFlowManifest, null_model: NullModel) -> None:
    energies = [np.full((scale.height, scale.width), energy, np.float32) for scale in manifest.scales]
    for scorer in (Scorer(manifest), Scorer(manifest, null_model)):
        own = scorer.pixel_evidence(energies)
        assert np.isfinite(own).all() and (own >= 0).all() and (own.max() > 1) == (energy > 0)


def test_parts_of_a_frame_make_one_map(inspector: Inspector) -> None:
    tiled = seen(inspector, ViewOptions(tile=64, overlap=0), (64, 128))
    whole = seen(inspector).pixel_evidence()
    np.testing.assert_allclose(tiled.pixel_evidence(), np.concatenate([whole, whole], axis=1), atol=1e-6)
    np.testing.assert_array_equal(tiled.evidence() > 1, tiled.verdict.mask)


def test_between_regions_of_interest_there_is_none(inspector: Inspector) -> None:
    inspection = seen(inspector, ViewOptions(regions=((0, 0, 64, 64), (128, 0, 192, 64))), (64, 192))
    evidence = inspection.evidence()
    assert (inspection.score[:, 64:128] == -math.inf).all()
    assert (evidence[:, 64:128] == 0).all() and (evidence[:, :64] > 0).mean() > 0.9


def test_a_threshold_that_nothing_reaches_leaves_the_order_of_pixels(inspector: Inspector) -> None:
    inspection = seen(inspector)
    calm = replace(inspection.verdict, operating_point=OperatingPoint(1e9, "manual"))
    evidence = replace(inspection, verdict=calm).evidence()
    assert evidence.max() <= 1
    assert evidence.argmax() == inspection.pixel_evidence().argmax()

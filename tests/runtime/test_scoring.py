"""The rule that a bundle is scored by, and that a calibration never decides on scores of another rule."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.nfa import block_score
from uflow_edge.runtime.nfa.null_model import ImageGain, NullModel, NullScale, TailLaw
from uflow_edge.runtime.operating_point import LOG_NFA_0, OperatingPoint
from uflow_edge.runtime.scoring import Scorer, with_rule
from uflow_edge.runtime.views import ViewOptions

CONFORMAL = OperatingPoint(-1000.0, "conformal", 0.05, 59)


def frame(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)


def test_block_scores_are_of_the_exceedances(counting: Path) -> None:
    with Inspector.load(with_rule(Bundle.load(counting, UFlowManifest), "block")) as inspector:
        inspection = inspector.examine(frame(64, 64))
    score = block_score(inspection.exceedances, inspector.manifest.channels, (64, 64))
    np.testing.assert_array_equal(inspection.score, score)
    assert inspection.verdict.score == score.max()
    assert inspection.verdict.operating_point == LOG_NFA_0


def test_block_scores_of_tiles_count_every_tile(counting: Path) -> None:
    bundle, picture = with_rule(Bundle.load(counting, UFlowManifest), "block"), frame(64, 128)
    tiles = ViewOptions(tile=64, overlap=0)
    with Inspector.load(bundle) as whole, Inspector.load(bundle, views=tiles) as tiled:
        halves = [whole.examine(np.ascontiguousarray(half)) for half in (picture[:, :64], picture[:, 64:])]
        inspection = tiled.examine(picture)
    side_by_side = np.concatenate([half.score for half in halves], axis=1)
    np.testing.assert_allclose(inspection.score, side_by_side - np.log10(2), atol=1e-5)
    assert [one.shape for one in inspection.exceedances] == [(8, 16), (4, 8)]


def test_another_rule_leaves_the_calibration_behind(counting: Path) -> None:
    bundle = Bundle.load(counting, UFlowManifest)
    calibrated = replace(bundle, manifest=replace(bundle.manifest, operating_point=CONFORMAL, null_model="model.npz"))
    manifest = with_rule(calibrated, "block").manifest
    assert (manifest.rule, manifest.operating_point, manifest.null_model) == ("block", LOG_NFA_0, None)
    assert (manifest.calibration, manifest.drift) == (None, None)


def test_a_calibration_of_tree_scores_never_decides_on_block_scores(counting: Path) -> None:
    manifest = replace(Bundle.load(counting, UFlowManifest).manifest, rule="block")
    gains = [np.full((scale.height, scale.width), scale.channels, np.float32) for scale in manifest.scales]
    tail = TailLaw(50, 0.02, 0.0, 1.3, 0.05, 0.1, 0.2)
    scales = tuple(NullScale(gain, ImageGain(0.5, 0.5, 2.0), tail, np.ones(2), np.ones(2)) for gain in gains)
    with pytest.raises(BadInput, match="says nothing about block scores"):
        Scorer(manifest, NullModel(scales, 40))
    with pytest.raises(BadInput, match="says nothing about block scores"):
        Scorer(replace(manifest, operating_point=CONFORMAL))


def test_a_bundle_without_exceedances_says_how_to_get_them(exported: Path) -> None:
    with pytest.raises(BadInput, match=r"has no exceedance outputs; export it with --block-nfa"):
        with_rule(Bundle.load(exported, UFlowManifest), "block")

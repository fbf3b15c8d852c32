"""Parity is measured with the score that decides in the bundle: by its null model, at its operating point."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from uflow_edge.export.graphs.parity import PARITY, Parity, Reference, parity_json, read_parities
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.engines.deviation import Bounded
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.nfa.null_model import ImageGain, NullModel, NullScale, TailLaw
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.scoring import Scorer


class Fixed:
    """An engine that gives what it was told, whatever the picture."""

    name = "fixed"
    precision = "fp32"

    def __init__(self, outputs: list[np.ndarray]) -> None:
        self._outputs = outputs

    def run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(output[np.newaxis] for output in self._outputs)

    def close(self) -> None:
        """Nothing to let go of."""


@pytest.fixture
def manifest(exported: Path) -> UFlowManifest:
    return Bundle.load(exported, UFlowManifest).manifest


@pytest.fixture
def null_model(manifest: UFlowManifest) -> NullModel:
    """Whose good pixels have twice the energy of N(0, 1) latents."""
    return NullModel(
        tuple(
            NullScale(
                np.full((scale.height, scale.width), 2 * scale.channels, np.float32),
                ImageGain(0.0, 1.0, 1.0),
                TailLaw(6.0, 0.2, 0.3, 3.3, 0.02, 0.2, 0.5),
                np.array([0.9, 1.2]),
                np.array([1.5, 1.2]),
            )
            for scale in manifest.scales
        ),
        50,
    )


@pytest.fixture
def energies(manifest: UFlowManifest) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What is right, and what an engine makes of it: a spot 8 % brighter than it should be."""
    exact = [np.full((s.height, s.width), 2.0 * s.channels, np.float32) for s in manifest.scales]
    exact[0][1:3, 2:5] *= 4
    found = [energy.copy() for energy in exact]
    found[0][1:3, 2:5] *= 1.08
    return exact, found


@pytest.fixture
def compare(manifest: UFlowManifest, energies) -> Callable[[Scorer], Parity]:
    """Parity of the two, in the eyes of a scorer."""
    exact, found = energies
    counts = [np.zeros_like(energy) for energy in exact]
    picture = np.zeros((manifest.input_size, manifest.input_size, 3), np.uint8)

    def run(scorer: Scorer) -> Parity:
        reference = Reference.of("exact", Fixed([*exact, *counts]).run, [picture], scorer)
        return reference.compare(Fixed([*found, *counts]), bound=0.1, bounded="worst")

    return run


def test_the_null_model_scores_where_there_is_one(manifest, null_model, energies, compare) -> None:
    calibrated = Scorer(manifest, null_model)
    exact, found = (calibrated.score(maps) for maps in energies)
    parity = compare(calibrated)
    assert parity.calibrated
    assert parity.score_change == pytest.approx(abs(float(found.max() - exact.max())))
    plain = compare(Scorer(manifest))
    assert not plain.calibrated
    assert plain.energy_error == parity.energy_error
    assert abs(plain.score_change - parity.score_change) > 1  # the rule alone would have told another story


def test_masks_are_compared_at_the_operating_point(manifest, null_model, energies, compare) -> None:
    exact, found = (Scorer(manifest, null_model).score(maps) for maps in energies)
    assert 0 < exact.max() < found.max()
    between = OperatingPoint(float(exact.max() + found.max()) / 2, "manual")
    parity = compare(Scorer(replace(manifest, operating_point=between), null_model))
    assert (parity.threshold, parity.mask_iou) == (between.threshold, 0.0)  # one of the two sees it
    assert compare(Scorer(manifest, null_model)).mask_iou > 0.5  # at log-NFA 0, both


@pytest.mark.parametrize(
    ("bounded", "off", "factor", "holds"),
    [
        ("worst", 1, 1.02, False),
        ("most", 1, 1.02, True),  # one pixel of 4,096
        ("most", 1, 1.2, False),  # however few: more than ten times the bound
        ("most", 20, 1.02, False),
        ("mean", 20, 1.2, True),
        ("mean", 4096, 1.02, False),
    ],
)
def test_which_errors_are_bounded(manifest, bounded: Bounded, off: int, factor: float, holds: bool) -> None:
    manifest = replace(manifest, scales=(replace(manifest.scales[0], height=64, width=64, channels=20),))
    exact = np.full((64, 64), 20, np.float32)
    found, counts = exact.copy(), np.zeros_like(exact)
    found.reshape(-1)[:off] *= factor
    picture = np.zeros((manifest.input_size, manifest.input_size, 3), np.uint8)
    reference = Reference.of("exact", Fixed([exact, counts]).run, [picture], Scorer(manifest))
    parity = reference.compare(Fixed([found, counts]), 1e-2, bounded)
    assert parity.holds == holds
    assert max(parity.energy_error) == pytest.approx(factor - 1, rel=1e-5)


def test_errors_that_are_not_finite_are_null_in_the_file(tmp_path: Path) -> None:
    (tmp_path / PARITY).write_text(
        parity_json({"b.onnx": [Measured(math.inf, (1.0, math.nan))]}, {"a.onnx": [{"x": 1}]})
    )
    assert read_parities(tmp_path / PARITY) == {
        "a.onnx": [{"x": 1}],
        "b.onnx": [{"change": None, "errors": [1.0, None], "holds": False}],
    }
    assert read_parities(tmp_path / "none.json") == {}


@pytest.mark.parametrize("text", ["[]", '{"a": 1}', '{"a": [1]}', '{"a": [{"x": NaN}]}', "[" * 100_000, "{"])
def test_a_file_that_holds_no_parities_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / PARITY).write_text(text)
    with pytest.raises(BadInput, match=r"parity\.json: cannot be read"):
        read_parities(tmp_path / PARITY)


@dataclass(frozen=True)
class Measured:
    change: float
    errors: tuple[float, float]

    @property
    def holds(self) -> bool:
        return math.isfinite(self.change)

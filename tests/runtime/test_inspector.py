"""Frame in, verdict out."""

import json
import math
import shutil
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import cv2
import numpy as np
import pytest

from extras import needs
from uflow_edge.runtime import Inspector
from uflow_edge.runtime.engines import EngineFailed, Outputs
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.errors import BadInput, MissingDependency
from uflow_edge.runtime.nfa.null_model import ImageGain, NullModel, NullScale, TailLaw
from uflow_edge.runtime.nfa.tree import TREE_RULES, TreeRule
from uflow_edge.runtime.numeric import Frame
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.overlay import draw_overlay
from uflow_edge.runtime.verdict import Verdict, run_lengths


class PlantedEngine:
    """Latents as calm as the null model's mean, but for a square of the finest map."""

    name = "planted"
    precision = "fp32"

    def __init__(self, manifest) -> None:
        self.manifest = manifest
        self.seen: list[np.ndarray] = []

    def run(self, images: np.ndarray) -> Outputs:
        self.seen.append(images)
        energies = [np.full((1, s.height, s.width), s.channels, np.float32) for s in self.manifest.scales]
        energies[0][0, 2:4, 4:8] = 40 * self.manifest.scales[0].channels
        return (*energies, *(np.zeros_like(e) for e in energies))


@pytest.fixture(scope="module")
def inspector(exported: Path) -> Inspector:
    return Inspector.load(exported, threads=1)


@pytest.fixture
def planted(inspector: Inspector) -> Inspector:
    return Inspector(inspector.manifest, PlantedEngine(inspector.manifest))


def test_the_defect_scores_higher_than_the_good_part(inspector: Inspector, texture_folder: Path) -> None:
    good, hole = (cv2.imread(str(texture_folder / "test" / kind / "00.png")) for kind in ("good", "hole"))
    assert inspector.inspect(hole).score > inspector.inspect(good).score


def test_verdict_is_complete(planted: Inspector) -> None:
    frame = np.zeros((128, 192, 3), np.uint8)
    verdict = planted.inspect(frame, frame=7, source="belt", captured=123.0)
    assert (verdict.frame, verdict.source, verdict.size) == (7, "belt", (128, 192))
    assert verdict.anomalous
    assert verdict.score > 0
    assert verdict.operating_point.origin == "log_nfa_0"
    assert verdict.timestamps.captured == 123.0
    times = verdict.timestamps
    assert times.started <= times.preprocessed <= times.inferred <= times.thresholded


def test_mask_and_regions_are_where_the_defect_is_in_the_frame(planted: Inspector) -> None:
    """The model sees 64x64 with a finest map of 8x8: rows 2-3 and columns 4-7 of it, in a frame of 128x192."""
    verdict = planted.inspect(np.zeros((128, 192, 3), np.uint8))
    (region,) = verdict.regions
    assert verdict.mask[32:64, 96:192].mean() > 0.9
    assert verdict.mask.sum() < 1.7 * 32 * 96
    rows, columns = np.flatnonzero(verdict.mask.any(1)), np.flatnonzero(verdict.mask.any(0))
    assert region.y <= rows[0] <= rows[-1] < region.y + region.height
    assert region.x <= columns[0] <= columns[-1] < region.x + region.width
    assert region.area == pytest.approx(verdict.mask.sum(), rel=0.02)
    assert region.log_nfa == pytest.approx(-verdict.score)


def test_with_crop_nothing_outside_the_square_is_judged(planted: Inspector) -> None:
    cropping = Inspector(replace(planted.manifest, fit="crop"), planted.engine)
    verdict = cropping.inspect(np.zeros((128, 192, 3), np.uint8))
    assert verdict.mask[:, 32:160].any()
    assert not verdict.mask[:, :32].any()
    assert not verdict.mask[:, 160:].any()


def test_threshold_decides_score_mask_and_regions_together(planted: Inspector) -> None:
    frame = np.zeros((64, 64, 3), np.uint8)
    score = planted.inspect(frame).score
    for threshold, anomalous in ((score - 1e-2, True), (score, False)):
        manifest = replace(planted.manifest, operating_point=OperatingPoint(threshold, "conformal", 0.05, 20))
        verdict = Inspector(manifest, planted.engine).inspect(frame)
        assert verdict.anomalous == anomalous == verdict.mask.any() == bool(verdict.regions)


class LoudEngine(PlantedEngine):
    """The square is as loud as it is told to be."""

    loud = 0.0

    def run(self, images: np.ndarray) -> Outputs:
        outputs = super().run(images)
        outputs[0][0, 2:4, 4:8] = self.loud
        return outputs


@pytest.mark.parametrize("rule", TREE_RULES)
@pytest.mark.parametrize("loud", [1e37, 1e38, 3.4e38, math.nan, math.inf, -1.0])
def test_the_loudest_energies_are_anomalous_and_what_is_no_energy_is_not_judged(
    inspector: Inspector, rule: TreeRule, loud: float
) -> None:
    engine = LoudEngine(inspector.manifest)
    engine.loud = loud
    one = Inspector(replace(inspector.manifest, rule=rule), engine)
    one.operating_point = OperatingPoint(1e9, "manual")
    frame = np.zeros((64, 80, 3), np.uint8)
    if not 0 <= loud < math.inf:
        with pytest.raises(EngineFailed, match="planted gives no energies"):
            one.inspect(frame)
        return
    verdict = one.inspect(frame)
    assert verdict.anomalous and math.isfinite(verdict.score)
    assert verdict.regions and verdict.mask.any()
    json.dumps(verdict.as_json(), allow_nan=False)


@pytest.mark.parametrize("point", [3, 3.0, None, "manual"])
def test_what_is_no_operating_point_is_refused_at_once(planted: Inspector, point: object) -> None:
    before = planted.operating_point
    with pytest.raises(TypeError, match="expected an OperatingPoint"):
        planted.operating_point = point  # type: ignore[assignment]
    assert planted.operating_point is before


def test_a_null_model_of_other_maps_is_refused_at_the_start(inspector: Inspector) -> None:
    law = TailLaw(6.0, 0.2, 0.3, 3.3, 0.02, 0.2, 0.5)
    scale = NullScale(np.ones((8, 8), np.float32), ImageGain(0, 1, 1), law, np.array([1.0]), np.array([1.0]))
    with pytest.raises(BadInput, match="learned on energy maps of"):
        Inspector(inspector.manifest, PlantedEngine(inspector.manifest), null_model=NullModel((scale,), 20))


def test_the_engine_is_given_rgb(planted: Inspector) -> None:
    frame = np.zeros((64, 64, 3), np.uint8)
    frame[:, :, 0] = 200  # blue
    planted.inspect(frame)
    (picture,) = planted.engine.seen[-1]
    assert (picture[:, :, 2] == 200).all()
    assert (picture[:, :, :2] == 0).all()


def test_json_holds_every_field(planted: Inspector) -> None:
    verdict = planted.inspect(np.zeros((48, 80, 3), np.uint8))
    written = json.loads(json.dumps(verdict.as_json()))
    assert {field.name for field in fields(Verdict)} <= written.keys()
    assert written["milliseconds"]["total"] == pytest.approx(verdict.timestamps.total_ms)
    runs = written["mask"]["counts"]
    values = np.concatenate([np.full(n, i % 2, bool) for i, n in enumerate(runs)])
    np.testing.assert_array_equal(values.reshape(80, 48).T, verdict.mask)


@pytest.mark.parametrize("mask", [np.zeros((3, 2), bool), np.ones((3, 2), bool), np.eye(4, dtype=bool)])
def test_run_lengths_start_with_false(mask: np.ndarray) -> None:
    runs = run_lengths(mask)
    assert sum(runs) == mask.size
    values = np.concatenate([np.full(n, i % 2, bool) for i, n in enumerate(runs)])
    np.testing.assert_array_equal(values, mask.ravel(order="F"))


def test_not_a_frame(inspector: Inspector) -> None:
    with pytest.raises(BadInput, match="in BGR order"):
        inspector.inspect(np.zeros((64, 64), np.uint8))


@pytest.mark.parametrize("size", [(40, 50), (64, 64), (300, 700)])
def test_overlay_shows_frame_and_header(planted: Inspector, size: tuple[int, int]) -> None:
    frame = np.full((*size, 3), 90, np.uint8)
    picture = draw_overlay(frame, planted.examine(frame), planted.manifest.channels)
    zoom = picture.shape[1] // size[1]
    assert picture.shape[1] >= 360
    assert picture.shape[0] > size[0] * zoom
    body = picture[-size[0] * zoom :]
    assert (body[-1, 0] == 90).all()  # far from the defect: the frame as it is
    assert (body == 255).all(axis=2).any()  # the outline


def test_a_missing_onnxruntime_is_named(monkeypatch: pytest.MonkeyPatch, exported: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependency, match=r"onnxruntime is not installed.*: pip install onnxruntime$"):
        Inspector.load(exported)


def test_two_onnxruntimes_are_refused(monkeypatch: pytest.MonkeyPatch, exported: Path) -> None:
    from uflow_edge.runtime.engines import onnx_runtime

    monkeypatch.setattr(onnx_runtime, "version", lambda name: "1.20.0")  # as if every distribution were installed
    with pytest.raises(MissingDependency, match="overwrite each other.*pip uninstall -y onnxruntime onnxruntime-gpu"):
        Inspector.load(exported, backend="onnxruntime")


# The door for programs.


@needs("openvino")
def test_load_takes_the_options_of_uflow_infer(exported: Path) -> None:
    with Inspector.load(exported, backend="openvino", precision="fp16", threshold=3.5, threads=1) as inspector:
        assert inspector.engine.name.startswith("OpenVINO")
        assert inspector.engine.name.endswith("fp16")
        assert inspector.operating_point == OperatingPoint(3.5, "manual")


def test_an_inspector_closes_the_engine_that_it_opened_and_no_other(exported: Path) -> None:
    closed: list[str] = []

    class Watched(OnnxRuntimeEngine):
        def close(self) -> None:
            closed.append(self.name)
            super().close()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("uflow_edge.runtime.engines.onnx_runtime.OnnxRuntimeEngine", Watched)
        inspector = Inspector.load(exported, threads=1)
    Inspector(inspector.manifest, inspector.engine).close()
    assert closed == []
    inspector.close()
    inspector.close()
    assert closed == [inspector.engine.name]


@needs("openvino")
def test_what_auto_skips_is_logged(exported: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]) -> None:
    def broken(*arguments: object) -> None:
        raise BadInput("this build has no Conv")

    monkeypatch.setattr("uflow_edge.runtime.engines.onnx_runtime.OnnxRuntimeEngine", broken)
    Inspector.load(exported, threads=1).close()
    assert "warning: onnxruntime is skipped: this build has no Conv" in logged


def test_the_snippet_of_the_readme_runs_and_is_typed(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    snippet = next(part for part in text.split("```python\n")[1:] if "Inspector.load" in part).split("```")[0]
    shutil.copytree(exported, tmp_path / "bottle.uflow")
    cv2.imwrite(str(tmp_path / "part.png"), np.full((40, 50, 3), 128, np.uint8))
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(compile(snippet, "README.md", "exec"), found)
    assert found["verdict"].size == (40, 50)
    assert found["examined"].verdict.score == found["verdict"].score
    # What mypy says of it follows from this: cv2.imread gives an array of any number type, or None.
    assert get_type_hints(Inspector.inspect)["frame_bgr"] == Frame

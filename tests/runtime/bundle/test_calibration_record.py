"""A line that runs otherwise than its bundle was calibrated loses the promise, and says in what it differs."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from uflow_edge.runtime.bundle.calibration_record import CalibrationRecord
from uflow_edge.runtime.bundle.folder import Bundle, parse_manifest, write_manifest
from uflow_edge.runtime.bundle.manifest import Precision
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.infer.command import main
from uflow_edge.runtime.infer.threshold import LiveThreshold
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.operating_point import LOG_NFA_0, OperatingPoint
from uflow_edge.runtime.sinks.hints import Hints
from uflow_edge.runtime.sources import Frame
from uflow_edge.runtime.views import ViewOptions

POINT = OperatingPoint(0.41, "conformal", 0.05, 40)
PROMISE = "at most 5 % of good images called anomalous, on average (from 40 held-out images)"
RECORD = CalibrationRecord.of(ViewOptions(), "fp32", "onnxruntime, CPU, fp32", 80, [(96, 96), (100, 100)])


@pytest.fixture
def calibrated(exported: Path, tmp_path: Path) -> Bundle[UFlowManifest]:
    """A bundle that says it was calibrated on whole frames in FP32."""
    manifest = replace(Bundle.load(exported, UFlowManifest).manifest, operating_point=POINT, calibration=RECORD)
    folder = tmp_path / "gravel.uflow"
    folder.mkdir()
    for name in manifest.files:
        (folder / name).symlink_to(exported / name)
    return write_manifest(folder, manifest)


def test_the_record_survives_the_manifest(calibrated: Bundle[UFlowManifest]) -> None:
    views = ViewOptions(((10, 20, 90, 100),), 48, 0.5)
    manifest = replace(calibrated.manifest, calibration=replace(RECORD, views=views))
    assert parse_manifest(manifest.to_json(), UFlowManifest) == manifest


def test_a_null_model_cannot_be_taken_from_its_threshold(calibrated: Bundle[UFlowManifest]) -> None:
    for record, fits in ((None, True), (False, True), (True, False)):
        text = replace(calibrated.manifest, calibration=replace(RECORD, null_model=record)).to_json()
        if fits:
            assert parse_manifest(text, UFlowManifest).null_model is None
        else:
            with pytest.raises(BadInput, match="null_model: None, but the calibration was made with one"):
                parse_manifest(text, UFlowManifest)


@pytest.mark.parametrize(
    ("views", "precision", "difference"),
    [
        (ViewOptions(), "fp32", None),
        (ViewOptions(overlap=0.5), "fp32", None),  # of tiles that there are not
        (ViewOptions(tile=48), "fp32", "calibrated on whole frames, run on tiles of 48 that overlap by 0.25"),
        (
            ViewOptions(((10, 20, 60, 80),), 48),
            "fp32",
            "calibrated on whole frames, run on regions of interest 10,20,50,60 in tiles of 48 that overlap by 0.25",
        ),
        (ViewOptions(), "fp16", "calibrated in fp32, run in fp16"),
    ],
)
def test_options_that_differ_are_named(views: ViewOptions, precision: Precision, difference: str | None) -> None:
    assert RECORD.difference(views, precision) == difference


@pytest.mark.parametrize(
    ("size", "differs"),
    [((96, 96), False), ((98, 99), False), ((95, 95), True), ((330, 440), True), ((96, 100), True), ((200, 200), True)],
)
def test_frames_that_differ_are_named(size: tuple[int, int], differs: bool) -> None:
    expected = f"calibrated on frames of 96 to 100 x 96 to 100 pixels, run on {size[1]} x {size[0]}"
    assert RECORD.difference_of_frame(size) == (expected if differs else None)


def test_an_inspector_with_other_tiles_warns_and_promises_nothing(
    calibrated: Bundle[UFlowManifest], logged: list[str]
) -> None:
    inspector = Inspector.load(calibrated.folder, threads=1, views=ViewOptions(tile=48))
    assert "warning: calibrated on whole frames, run on tiles of 48" in logged[-1]
    assert logged[-1].endswith(": no promise")
    verdict = inspector.inspect(np.zeros((96, 96, 3), np.uint8))
    assert verdict.operating_point.threshold == POINT.threshold
    assert verdict.operating_point.promise.endswith("run on tiles of 48 that overlap by 0.25: no promise")
    assert "tiles of 48" in verdict.as_json()["operating_point"]["doubt"]


def test_frames_of_another_shape_are_promised_nothing(calibrated: Bundle[UFlowManifest]) -> None:
    inspector = Inspector.load(calibrated.folder, threads=1)
    assert inspector.difference is None
    assert inspector.inspect(np.zeros((96, 96, 3), np.uint8)).operating_point == POINT
    other = inspector.inspect(np.zeros((64, 128, 3), np.uint8)).operating_point
    assert other.promise == "calibrated on frames of 96 to 100 x 96 to 100 pixels, run on 128 x 64: no promise"


def test_a_bundle_without_a_record_is_inspected_as_before(exported: Path) -> None:
    inspector = Inspector.load(exported, threads=1, views=ViewOptions(tile=48))
    assert inspector.difference is None
    assert inspector.inspect(np.zeros((64, 128, 3), np.uint8)).operating_point == LOG_NFA_0


def test_a_threshold_set_back_on_other_tiles_regains_no_promise(calibrated: Bundle[UFlowManifest]) -> None:
    inspector = Inspector.load(calibrated.folder, threads=1, views=ViewOptions(tile=48))
    threshold = LiveThreshold(inspector, calibrated)
    assert threshold.promise().endswith("no promise")
    threshold.set(3.0)
    assert threshold.promise() == "set by hand: no promise"
    threshold.set(POINT.threshold)
    assert "tiles of 48" in threshold.promise()
    threshold.save()
    assert Bundle.load(calibrated.folder, UFlowManifest).manifest.operating_point == POINT  # the doubt is of this run


def test_the_command_says_in_what_it_differs(
    calibrated: Bundle[UFlowManifest],
    texture_folder: Path,
    tmp_path: Path,
    exit_code: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    for i, size in enumerate(((96, 96), (128, 96), (140, 96))):
        picture = cv2.imread(str(texture_folder / "test" / "good" / "00.png"))
        cv2.imwrite(str(parts / f"{i}.png"), cv2.resize(picture, size))
    argv = ("--bundle", calibrated.folder, "--images", parts, "--backend", "onnxruntime", "--jsonl", tmp_path / "out")
    assert exit_code(main, *argv) == 0
    said = capsys.readouterr()
    assert f"threshold: 0.41 (conformal); {PROMISE}" in said.out
    assert "warning: calibrated" not in said.out
    assert said.err.count("run on 128 x 96: no promise for such frames") == 1
    assert "140 x 96" not in said.err  # once per source
    doubts = [json.loads(line)["operating_point"]["doubt"] for line in (tmp_path / "out").read_text().splitlines()]
    assert [doubt is None for doubt in doubts] == [True, False, False]
    assert exit_code(main, *argv[:-2], "--tile", 48, "--quiet") == 0
    assert "warning: calibrated on whole frames, run on tiles of 48" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("anomalous", "said_after"),
    [([True] * 60, [20]), ([False, *[True] * 60], [50]), ([True] * 19 + [False] * 5 + [True] * 40, [])],
)
def test_a_source_without_good_frames_gets_one_hint(
    exported: Path, anomalous: list[bool], said_after: list[int], logged: list[str]
) -> None:
    inspector, after = Inspector.load(exported, threads=1), list[int]()
    logged.clear()
    inspection = inspector.examine(np.zeros((96, 96, 3), np.uint8))
    hints = Hints(None)
    for i, one in enumerate(anomalous, 1):
        judged = replace(inspection, verdict=replace(inspection.verdict, anomalous=one))
        before = len(logged)
        hints.put(Frame(np.zeros((1, 1, 3), np.uint8), i, "line 2", Path(f"{i}"), 0.0), judged)
        after += [i] * (len(logged) - before)
    assert after == said_after
    assert all("hint: line 2: " in line and "uflow-calibrate" in line for line in logged)


def test_a_camera_without_hardware_shows_what_the_bundle_knows(
    calibrated: Bundle[UFlowManifest], tmp_path: Path, exit_code: Callable[..., int]
) -> None:
    """In the size of the calibration, so the promise holds for it."""
    argv = ("--bundle", calibrated.folder, "--camera", "synthetic:@0", "--max-frames", 3, "--backend", "onnxruntime")
    assert exit_code(main, *argv, "--policy", "every", "--jsonl", tmp_path / "out") == 0
    lines = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert {tuple(line["size"]) for line in lines} == {(98, 98)}
    assert {line["source"] for line in lines} == {"synthetic 98x98@0"}
    assert len({line["score"] for line in lines}) == 1  # one picture, where the belt would move
    assert lines[0]["operating_point"]["doubt"] is None

"""Calibrating a real bundle from folders of good images, and what the bundle keeps of it."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from uflow_edge.calibration import command
from uflow_edge.calibration.calibrate import Calibration, calibrate
from uflow_edge.calibration.command import chosen_images
from uflow_edge.calibration.operating_point import Promise
from uflow_edge.calibration.report import Pictures, report_page
from uflow_edge.calibration.saving import save_calibration
from uflow_edge.calibration.split import CalibrationOptions
from uflow_edge.calibration.summary import notices
from uflow_edge.export.graphs.parity import PARITY
from uflow_edge.runtime.bundle.calibration_record import REPORT
from uflow_edge.runtime.bundle.edit import save_operating_point
from uflow_edge.runtime.bundle.folder import Bundle, write_manifest
from uflow_edge.runtime.bundle.training_record import TRAINING, TrainingRecord
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.images.files import read_image
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.storage.files import content_hash, sha256
from uflow_edge.runtime.views import ViewOptions

PROMISE = Promise(0.1, 0.9)  # 22 held-out images


def calibrated(bundle_folder: Path, good: Path, **options: object) -> Calibration:
    bundle = Bundle.load(bundle_folder, UFlowManifest)
    variant = bundle.manifest.variants[0]
    engine = OnnxRuntimeEngine.from_bundle(bundle, variant, 1)
    chosen = CalibrationOptions(PROMISE, **options)  # type: ignore[arg-type]
    return calibrate(bundle, chosen_images([good], []), engine, chosen)


@pytest.fixture(scope="module")
def calibration(exported: Path, good_folder: Path) -> Calibration:
    return calibrated(exported, good_folder)


def test_the_bundle_judges_as_the_calibration_did(bundle_folder: Path, calibration: Calibration) -> None:
    save_calibration(Bundle.load(bundle_folder, UFlowManifest), calibration, None)
    inspector = Inspector.load(bundle_folder, threads=1)
    assert inspector.operating_point == calibration.operating_point
    for judged in calibration.held_out[:5]:
        verdict = inspector.inspect(read_image(judged.image.path))
        assert verdict.score == pytest.approx(judged.score, abs=1e-5)
        assert verdict.drift is not None and verdict.drift.status == "ok"
    point = calibration.operating_point
    assert (point.false_alarm_rate, point.confidence, point.good_images) == (0.1, 0.9, 30)
    assert calibration.above(point.threshold) == sum(score > point.threshold for score in calibration.scores) <= 1


def test_calibrating_again_replaces_what_was_there(
    bundle_folder: Path, good_folder: Path, calibration: Calibration
) -> None:
    bundle = Bundle.load(bundle_folder, UFlowManifest)
    save_calibration(bundle, calibration, "first")
    (first,) = bundle_folder.glob("null_model-*.npz")
    again = calibrated(bundle_folder, good_folder, seed=1)
    save_calibration(bundle, again, "second")
    (second,) = bundle_folder.glob("null_model-*.npz")
    loaded = Bundle.load(bundle_folder, UFlowManifest)
    assert first.name != second.name == loaded.manifest.null_model
    assert loaded.manifest.operating_point == again.operating_point
    assert (bundle_folder / REPORT).read_text() == "second"
    save_calibration(bundle, calibrated(bundle_folder, good_folder, null_model=False), None)
    loaded = Bundle.load(bundle_folder, UFlowManifest)
    assert loaded.manifest.null_model is None
    assert not list(bundle_folder.glob("null_model*")) and not (bundle_folder / REPORT).exists()


def test_the_same_images_give_the_same_calibration(exported: Path, good_folder: Path, calibration: Calibration) -> None:
    again = calibrated(exported, good_folder)
    assert again.scores == calibration.scores
    assert again.operating_point == calibration.operating_point


def test_what_changed_in_the_manifest_meanwhile_stays(bundle_folder: Path, calibration: Calibration) -> None:
    bundle = Bundle.load(bundle_folder, UFlowManifest)
    save_operating_point(bundle, OperatingPoint(3.0, "manual"))
    manifest = json.loads((bundle_folder / "manifest.json").read_text())
    manifest["tools"]["another"] = "1.0"
    (bundle_folder / "manifest.json").write_text(json.dumps(manifest))
    deep = replace(bundle, manifest=replace(bundle.manifest, bits=12))  # the images were read with --bits 12
    written = save_calibration(deep, calibration, None).manifest
    assert written.tools["another"] == "1.0"
    assert written.bits == 12
    assert written.operating_point == calibration.operating_point


def test_regions_of_interest_and_tiles(exported: Path, good_folder: Path) -> None:
    found = calibrated(exported, good_folder, views=ViewOptions(tile=50))
    inspector = Inspector(
        Bundle.load(exported, UFlowManifest).manifest,
        Inspector.load(exported, threads=1).engine,
        ViewOptions(tile=50),
        null_model=found.null_model,
    )
    judged = found.held_out[0]
    assert inspector.inspect(read_image(judged.image.path)).score == pytest.approx(judged.score, abs=1e-5)


def with_training_record(folder: Path, record: TrainingRecord) -> Bundle[UFlowManifest]:
    manifest = Bundle.load(folder, UFlowManifest).manifest
    record.save(folder)
    return write_manifest(folder, replace(manifest, files={**manifest.files, TRAINING: sha256(folder / TRAINING)}))


def hashes(folder: Path, numbers: range) -> tuple[str, ...]:
    return tuple(content_hash(folder / f"{i:02d}.png") for i in numbers)


def test_pictures_that_the_flow_was_fitted_to_are_left_out(
    bundle_folder: Path, good_folder: Path, exit_code: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    known = TrainingRecord(hashes(good_folder, range(30)), hashes(good_folder, range(30, 40)))
    with_training_record(bundle_folder, known)
    argv = ("--bundle", bundle_folder, "--good", good_folder, "--threads", 1, "--no-report")
    assert exit_code(command.main, *argv) == 0
    told = capsys.readouterr().out
    assert "Left out, because the flow was fitted to them: 30 of 60 images." in told
    assert "10 of the images decided when training stopped" in told
    manifest = Bundle.load(bundle_folder, UFlowManifest).manifest
    assert manifest.operating_point.good_images == 30
    assert manifest.calibration is not None and manifest.calibration.images == 30
    with_training_record(bundle_folder, TrainingRecord(hashes(good_folder, range(41))))
    before = (bundle_folder / "manifest.json").read_bytes()
    assert exit_code(command.main, *argv) == 3
    refused = capsys.readouterr().err
    assert "19 good images are too few" in refused
    assert "fitted to them: 41 of 60 images. Use good images that the training has not seen, or train" in refused
    assert (bundle_folder / "manifest.json").read_bytes() == before


def test_the_conditions_are_kept_in_the_bundle(exported: Path, calibration: Calibration) -> None:
    assert Bundle.load(exported, UFlowManifest).manifest.calibration is None
    record = calibration.record
    assert (record.views, record.precision, record.images) == (ViewOptions(), "fp32", 60)
    assert (record.heights, record.widths, record.aspects) == ((80, 80), (80, 80), (1.0, 1.0))
    assert record.engine.startswith("onnxruntime ")


def test_images_of_the_product_are_like_those_of_the_training(calibration: Calibration, exported: Path) -> None:
    assert len(TrainingRecord.load(Bundle.load(exported, UFlowManifest)).gains) == 2
    assert calibration.unlike is None


@pytest.mark.parametrize(("shift", "said"), [(-1.2, "3.3 times as high"), (1.2, "0.3 times as high")])
def test_another_product_is_promised_nothing(
    bundle_folder: Path,
    good_folder: Path,
    exit_code: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    shift: float,
    said: str,
) -> None:
    """As if the training had seen pictures of lower or higher energies than these."""
    bundle = Bundle.load(bundle_folder, UFlowManifest)
    found = calibrated(bundle_folder, good_folder, null_model=False)
    usual = np.median([judged.numbers[:-1] for judged in found.held_out], axis=0)
    gains = (tuple((usual + np.array([shift, 0])).tolist()),)
    with_training_record(bundle_folder, replace(TrainingRecord.load(bundle), gains=gains))
    asked = ("--max-false-alarms", 0.1, "--confidence", 0.9, "--backend", "onnxruntime", "--null-model", "none")
    argv = ("--bundle", bundle_folder, "--good", good_folder, "--threads", 1, *asked)
    assert exit_code(command.main, *argv) == 3
    told = capsys.readouterr().out
    assert f"their mean energy at stride 8 is {said}" in told
    promise = "calibrated on images unlike those of the training: no promise"
    assert promise in told
    assert Bundle.load(bundle_folder, UFlowManifest).manifest.operating_point.promise == promise
    assert "calibrated on images unlike those of the training" in (bundle_folder / REPORT).read_text()


def test_of_many_sizes_the_range_is_told(calibration: Calibration) -> None:
    sizes = {(100 + i, 200 - i): 1 for i in range(48)}
    told = "\n".join(notices(replace(calibration, sizes=sizes)))
    assert "48 sizes from 200 x 100 to 153 x 147 pixels" in told


def test_names_that_are_no_utf_8_do_not_stop_the_report(bundle_folder: Path, calibration: Calibration) -> None:
    bundle = Bundle.load(bundle_folder, UFlowManifest)
    save_calibration(bundle, calibration, "<p>Stra\udce4e.png</p>")
    assert (bundle_folder / REPORT).read_bytes() == b"<p>Stra\\udce4e.png</p>"
    assert Bundle.load(bundle_folder, UFlowManifest).manifest.operating_point == calibration.operating_point


def test_a_damaged_null_model_is_noticed(bundle_folder: Path, calibration: Calibration) -> None:
    written = save_calibration(Bundle.load(bundle_folder, UFlowManifest), calibration, None)
    path = bundle_folder / str(written.manifest.null_model)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Exception, match="differs from what was exported"):
        Inspector.load(bundle_folder)


@pytest.mark.parametrize(
    "entry", [{}, {"engine": 5, "holds": "yes", "energy_error": "x"}, {"energy_error": [], "mask_iou": 10**400}]
)
def test_what_parity_does_not_say_is_a_question_mark_in_the_report(
    exported: Path, calibration: Calibration, tmp_path: Path, entry: dict[str, object]
) -> None:
    (tmp_path / PARITY).write_text(json.dumps({"<b>": [entry]}))
    bundle = replace(Bundle.load(exported, UFlowManifest), folder=tmp_path)
    page = report_page(bundle, calibration, Pictures(), {}, datetime.now().astimezone())
    assert page.count("<td>?</td>") >= 4
    assert "&lt;b&gt;" in page

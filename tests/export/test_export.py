"""Bundles out: what the graph promises, and that nothing half-made is ever left behind."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from uflow_edge.export import bundle as bundle_module
from uflow_edge.export.bundle import ExportOptions, energy_graph, export_bundle, with_old_calibration
from uflow_edge.export.checkpoints.checkpoint import load_checkpoint
from uflow_edge.export.command import main
from uflow_edge.export.export_loop import ParityLost
from uflow_edge.export.graphs import trace as onnx_graph
from uflow_edge.export.graphs.parity import ENERGY_BOUNDS
from uflow_edge.export.network.uflow import EnergyGraph
from uflow_edge.runtime.bundle.calibration_record import CalibrationRecord
from uflow_edge.runtime.bundle.folder import Bundle, write_manifest
from uflow_edge.runtime.bundle.manifest import EXPORTED_PRECISIONS, CheckpointSource, Precision
from uflow_edge.runtime.bundle.training_record import TrainingRecord
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.drift import log_gains
from uflow_edge.runtime.engines.reference import noise_images
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.storage.files import sha256
from uflow_edge.runtime.views import ViewOptions

FP32 = ExportOptions(precisions=("fp32",))


@pytest.fixture(scope="module")
def session(exported: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(exported / "model.fp32.onnx"), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("fixture", "statistics"), [("exported", 1), ("counting", 2)])
def test_inputs_and_outputs(request: pytest.FixtureRequest, fixture: str, statistics: int) -> None:
    exported: Path = request.getfixturevalue(fixture)
    session = onnxruntime.InferenceSession(str(exported / "model.fp32.onnx"), providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    assert (image.name, image.type, image.shape[1:]) == ("image", "tensor(uint8)", [64, 64, 3])
    assert isinstance(image.shape[0], str)  # a dynamic batch
    manifest = Bundle.load(exported, UFlowManifest).manifest
    outputs = {output.name: (output.type, output.shape[1:]) for output in session.get_outputs()}
    sides = [[scale.height, scale.width] for scale in manifest.scales]
    assert sides == [[8, 8], [4, 4]]
    assert tuple(outputs) == manifest.signature.output_names
    assert list(outputs.values()) == [("tensor(float)", side) for side in sides] * statistics


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_any_batch_gives_what_torch_gives(counting: Path, trained: Path, batch: int) -> None:
    session = onnxruntime.InferenceSession(str(counting / "model.fp32.onnx"), providers=["CPUExecutionProvider"])
    graph = EnergyGraph(load_checkpoint(trained).network(), exceedance_probability=0.9).eval()
    images = np.stack([*noise_images(64), *noise_images(64, seed=1)])[:batch]
    with torch.no_grad():
        expected = graph(torch.from_numpy(images))
    found = session.run(None, {"image": images})
    for i in range(2):
        np.testing.assert_allclose(found[i], expected[i].numpy(), rtol=1e-3)
        assert np.abs(found[i + 2] - expected[i + 2].numpy()).mean() < 0.05


def test_energies_are_the_same_with_and_without_exceedances(
    session: onnxruntime.InferenceSession, counting: Path
) -> None:
    both = onnxruntime.InferenceSession(str(counting / "model.fp32.onnx"), providers=["CPUExecutionProvider"])
    images = np.stack(noise_images(64))
    alone, counted = (one.run(None, {"image": images}) for one in (session, both))
    assert len(counted) == 2 * len(alone)
    for energy, expected in zip(alone, counted, strict=False):
        np.testing.assert_array_equal(energy, expected)
    parity = json.loads((counting / "parity.json").read_text())["model.fp32.onnx"][0]
    assert len(parity["exceedance_error"]) == 2


@pytest.mark.parametrize("precision", EXPORTED_PRECISIONS)
def test_opset_is_as_the_manifest_says_and_the_checker_agrees(exported: Path, precision: Precision) -> None:
    model = onnx.load(exported / f"model.{precision}.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [entry.domain for entry in model.opset_import] == [""]
    assert {model.opset_import[0].version} == {
        variant.opset for variant in Bundle.load(exported, UFlowManifest).manifest.variants
    }


def test_the_graph_tells_nothing_of_where_it_was_made(exported: Path) -> None:
    content = (exported / "model.fp32.onnx").read_bytes()
    for trace in (b"site-packages", str(Path.home()).encode() + b"/", b"forward(self", b"stack_trace", b".py"):
        assert trace not in content


@pytest.mark.parametrize("precision", EXPORTED_PRECISIONS)
def test_parity_is_measured_and_kept(exported: Path, precision: Precision) -> None:
    entries = json.loads((exported / "parity.json").read_text())[f"model.{precision}.onnx"]
    engines = [entry["engine"] for entry in entries]
    assert [name.split()[0] for name in engines[:2]] == ["onnxruntime", "OpenVINO"]
    assert [name for name in engines if "rounded as on a GPU" in name] == engines[2:]
    assert len(engines) == {"fp32": 2, "fp16": 3}[precision]
    for entry in entries:
        assert (entry["holds"], entry["reference"]) == (True, "torch")
        assert len(entry["energy_error"]) == 2
        assert 0 < max(entry["mean_energy_error"]) < max(entry["most_energy_error"]) <= max(entry["energy_error"])
        assert max(entry["most_energy_error" if precision == "fp16" else "energy_error"]) < entry["bound"]
        assert entry["bound"] == ENERGY_BOUNDS[precision]
        assert entry["mask_iou"] > 0.98


def test_a_graph_that_misses_its_bound_is_not_written(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ParityLost, match="no bundle written"):
        export_bundle(trained, tmp_path / "x.uflow", ExportOptions(energy_bounds={"fp32": 1e-12, "fp16": 1e-12}))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def spoiled(monkeypatch) -> None:
    """One weight of every graph that is traced is one percent off."""

    def trace(*arguments, **named):
        model = onnx_graph.trace(*arguments, **named)
        weights = [value for value in model.graph.initializers.values() if value.dtype == ir.DataType.FLOAT]
        largest = max(weights, key=lambda value: value.const_value.size)
        largest.const_value = ir.tensor(largest.const_value.numpy() * np.float32(1.01), name=largest.name)
        return model

    monkeypatch.setattr(bundle_module, "trace", trace)


@pytest.mark.usefixtures("spoiled")
def test_a_graph_that_computes_something_else_is_not_written(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ParityLost, match=r"differ from the checkpoint; no bundle written\. onnxruntime .* \(bound 1e-03"
    ):
        export_bundle(trained, tmp_path / "x.uflow", FP32)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("spoiled")
def test_it_is_written_where_that_is_asked_for(trained: Path, tmp_path: Path, exit_code, capsys) -> None:
    arguments = ("--ckpt", trained, "--out", tmp_path / "x.uflow", "--precision", "fp32", "--allow-parity-loss")
    assert exit_code(main, *arguments) == 0
    assert "misses its bound\n" in capsys.readouterr().out
    (variant,) = Bundle.load(tmp_path / "x.uflow", UFlowManifest).manifest.variants
    entries = json.loads((tmp_path / "x.uflow" / "parity.json").read_text())[variant.file]
    assert not any(entry["holds"] for entry in entries)


def test_a_variant_that_misses_leaves_the_others(trained: Path, tmp_path: Path) -> None:
    options = ExportOptions(energy_bounds={"fp32": 1e-3, "fp16": 1e-12})
    exported = export_bundle(trained, tmp_path / "x.uflow", options)
    assert [variant.written for variant in exported.variants] == [True, False]
    assert [variant.precision for variant in exported.bundle.manifest.variants] == ["fp32"]
    assert not (tmp_path / "x.uflow" / "model.fp16.onnx").exists()


def test_an_existing_bundle_is_kept_unless_told(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "x.uflow"
    export_bundle(trained, folder)
    manifest = (folder / "manifest.json").stat().st_mtime_ns
    with pytest.raises(BadInput, match="exists already; .* --overwrite"):
        export_bundle(trained, folder)
    assert (folder / "manifest.json").stat().st_mtime_ns == manifest
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").touch()
    with pytest.raises(BadInput, match="is not a bundle"):
        export_bundle(trained, tmp_path / "precious", overwrite=True)
    assert (tmp_path / "precious" / "thesis.txt").exists()


def test_what_the_training_has_seen_is_in_the_bundle(trained: Path, exported: Path) -> None:
    checkpoint, bundle = load_checkpoint(trained), Bundle.load(exported, UFlowManifest)
    record = TrainingRecord.load(bundle)
    assert (record.fitted, record.held_out) == (checkpoint.fitted, checkpoint.held_out)
    assert (len(record.fitted), len(record.held_out)) == (14, 2)
    with torch.inference_mode():
        outputs = energy_graph(checkpoint)(torch.from_numpy(np.stack(checkpoint.pictures)))
    energies = [scale.numpy() for scale in outputs[: len(bundle.manifest.scales)]]
    expected = [log_gains([scale[i] for scale in energies], bundle.manifest.channels) for i in range(2)]
    np.testing.assert_allclose(record.gains, expected, atol=1e-3)


def test_a_bundle_that_is_exported_again_keeps_its_calibration(
    trained: Path, exported: Path, tmp_path: Path, logged: list[str]
) -> None:
    folder = shutil.copytree(exported, tmp_path / "x.uflow")
    bundle = Bundle.load(folder, UFlowManifest)
    point = OperatingPoint(0.41, "conformal", 0.05, 40)
    (folder / "report.html").write_text("as it was")
    files = {**bundle.manifest.files, "report.html": sha256(folder / "report.html")}
    write_manifest(folder, replace(bundle.manifest, operating_point=point, files=files))
    export_bundle(trained, folder, FP32, overwrite=True)
    assert "keeping the calibration of the bundle that is replaced: threshold 0.41" in logged
    assert Bundle.load(folder, UFlowManifest).manifest.operating_point == point
    assert (folder / "report.html").read_text() == "as it was"


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        ({"source": CheckpointSource("other.ckpt", "0" * 64)}, "it was made with another checkpoint"),
        ({"fit": "crop"}, "frames were made square by crop, now by squash"),
        (
            {"calibration": CalibrationRecord.of(ViewOptions(), "int8", "OpenVINO", 40, [(96, 96)])},
            "it was made in int8, which is not among the new graphs",
        ),
    ],
)
def test_a_calibration_that_does_not_hold_is_discarded_and_named(
    exported: Path, tmp_path: Path, before: dict[str, object], reason: str, logged: list[str]
) -> None:
    new = Bundle.load(exported, UFlowManifest).manifest
    old = replace(new, operating_point=OperatingPoint(0.41, "conformal", 0.05, 40), **before)
    assert with_old_calibration(Bundle(exported, old), tmp_path, new) == new
    assert logged == [f"discarding the calibration of the bundle that is replaced, threshold 0.41: {reason}"]


def test_the_command_says_where_thresholds_are_set_now(trained: Path, tmp_path: Path, exit_code, capsys) -> None:
    for given in (["--good", tmp_path], ["--false-alarm-rate", "0.1"]):
        assert exit_code(main, "--ckpt", trained, "--out", tmp_path / "x.uflow", *given) == 2
        assert "run: uflow-calibrate --bundle <bundle> --good <images>" in capsys.readouterr().err
    assert exit_code(main, "--unet", trained, "--good", tmp_path) == 2
    assert "--good: not with --unet, whose network has no threshold" in capsys.readouterr().err
    assert not (tmp_path / "x.uflow").exists()

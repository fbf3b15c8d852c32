"""Bundles out: what the graph promises, and that nothing half-made is ever left behind."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from uflow_edge.export import bundle as bundle_module
from uflow_edge.export import onnx_graph
from uflow_edge.export.bundle import ExportOptions, GoodImages, export_bundle
from uflow_edge.export.checkpoint import load_checkpoint
from uflow_edge.export.command import main
from uflow_edge.export.network import EnergyGraph
from uflow_edge.export.parity import ENERGY_BOUNDS
from uflow_edge.export.writing import ParityLost
from uflow_edge.runtime.bundle import Bundle
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images import read_image
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.manifest import EXPORTED_PRECISIONS, Precision
from uflow_edge.runtime.reference import noise_images
from uflow_edge.runtime.uflow_manifest import UFlowManifest

FP32 = ExportOptions(precisions=("fp32",))


@pytest.fixture(scope="module")
def session(exported: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(exported / "model.fp32.onnx"), providers=["CPUExecutionProvider"])


def test_inputs_and_outputs(session: onnxruntime.InferenceSession, exported: Path) -> None:
    (image,) = session.get_inputs()
    assert (image.name, image.type, image.shape[1:]) == ("image", "tensor(uint8)", [64, 64, 3])
    assert isinstance(image.shape[0], str)  # a dynamic batch
    manifest = Bundle.load(exported, UFlowManifest).manifest
    outputs = {output.name: (output.type, output.shape[1:]) for output in session.get_outputs()}
    sides = [[scale.height, scale.width] for scale in manifest.scales]
    assert sides == [[8, 8], [4, 4]]
    assert tuple(outputs) == manifest.signature.output_names
    assert list(outputs.values()) == [("tensor(float)", side) for side in sides] * 2


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_any_batch_gives_what_torch_gives(session, trained: Path, batch: int) -> None:
    graph = EnergyGraph(load_checkpoint(trained).network(), 0.9).eval()
    images = np.stack([*noise_images(64), *noise_images(64, seed=1)])[:batch]
    with torch.no_grad():
        expected = graph(torch.from_numpy(images))
    found = session.run(None, {"image": images})
    for i in range(2):
        np.testing.assert_allclose(found[i], expected[i].numpy(), rtol=1e-3)
        assert np.abs(found[i + 2] - expected[i + 2].numpy()).mean() < 0.05


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


def test_threshold_from_good_images(trained: Path, texture_folder: Path, tmp_path: Path) -> None:
    good = texture_folder / "train" / "good"
    exported = export_bundle(trained, tmp_path / "x.uflow", FP32, GoodImages((good,), 0.1))
    point = exported.bundle.manifest.operating_point
    assert (point.origin, point.false_alarm_rate, point.good_images) == ("conformal", 0.1, 16)
    inspector = Inspector.load(tmp_path / "x.uflow")
    scores = [inspector.inspect(read_image(path)).score for path in sorted(good.iterdir())]
    assert point.threshold == pytest.approx(sorted(scores)[15], rel=1e-6)  # ceil(17 * 0.9) = 16th of 16
    with pytest.raises(BadInput, match="19 are needed"):
        export_bundle(trained, tmp_path / "y.uflow", FP32, GoodImages((good,), 0.05))
    assert not (tmp_path / "y.uflow").exists()


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


def test_command_takes_a_threshold(
    trained: Path, texture_folder: Path, tmp_path: Path, monkeypatch, exit_code, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    good = texture_folder / "train" / "good"
    assert exit_code(main, "--ckpt", trained, "--good", good, "--false-alarm-rate", "0.2") == 0
    printed = capsys.readouterr().out
    assert "at most 20.0% false alarms, from 16 good images" in printed
    assert Bundle.load("gravel.uflow", UFlowManifest).manifest.source.name == "gravel.ckpt"
    for code, arguments, message in (
        (2, ["--ckpt", trained, "--false-alarm-rate", "0.1"], "needs --good"),
        (3, ["--ckpt", trained, "--out", "n.uflow", "--good", good, "--false-alarm-rate", "0"], "between 0 and 1"),
    ):
        assert exit_code(main, *arguments) == code, arguments
        assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["gravel.uflow"]

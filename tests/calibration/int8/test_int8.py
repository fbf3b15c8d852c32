"""From a bundle and good images to a bundle with an INT8 graph."""

import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from uflow_edge.benchmarks.studies.int8_costs import Seen
from uflow_edge.calibration.int8 import store as int8_bundle
from uflow_edge.calibration.int8.quantize_bundle import FILE, Int8Options, largest_magnitudes, quantize_bundle
from uflow_edge.calibration.int8.store import Int8Failed
from uflow_edge.export.graphs.parity import PARITY
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.engines.openvino import OpenVinoEngine
from uflow_edge.runtime.engines.proof import EngineDeviates
from uflow_edge.runtime.engines.selection import open_engine
from uflow_edge.runtime.errors import BadInput, UsageError
from uflow_edge.runtime.images.files import read_image
from uflow_edge.runtime.resize.cpu import model_input

pytestmark = pytest.mark.long

BOUND = 0.1


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Bundle[UFlowManifest]:
    shutil.copytree(exported, tmp_path / "gravel.uflow")
    return Bundle.load(tmp_path / "gravel.uflow", UFlowManifest)


@pytest.fixture
def options() -> Int8Options:
    return Int8Options(error_bound=BOUND, search_images=4)


def pictures(folder: Path, side: int) -> list[np.ndarray]:
    return [model_input(read_image(path), side) for path in sorted(folder.iterdir())]


def test_a_bundle_gets_an_int8_graph_that_keeps_its_bound(
    bundle: Bundle[UFlowManifest], options: Int8Options, texture_folder: Path, logged: list[str]
) -> None:
    good = texture_folder / "train" / "good"
    changed, result = quantize_bundle(bundle, [good], options)
    assert Bundle.load(bundle.folder, UFlowManifest) == changed
    assert [variant.precision for variant in changed.manifest.variants][-1] == "int8"
    assert result.variant == changed.manifest.variants[-1]
    assert result.choice.error <= BOUND
    assert 0.3 < result.quantized_work <= 1
    assert (result.calibration_images, result.search_images) == (12, 4)
    noted = json.loads((bundle.folder / PARITY).read_text())
    assert [entry["engine"] for entry in noted[FILE]] == [parity.engine for parity in result.parities]
    assert all(entry["bounded"] == "mean" and entry["holds"] for entry in noted[FILE])
    assert noted.keys() > {FILE}
    model = onnx.load(bundle.folder / FILE)
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) > 5
    size = (bundle.folder / FILE).stat().st_size
    assert size < (bundle.folder / changed.manifest.variants[0].file).stat().st_size
    assert sum(line.startswith(("measuring ", "choosing ", "comparing ")) for line in logged) == 3


def test_energies_stay_unbiased(bundle: Bundle[UFlowManifest], options: Int8Options, texture_folder: Path) -> None:
    changed, _ = quantize_bundle(bundle, [texture_folder / "train" / "good"], options)
    manifest = changed.manifest
    images = pictures(texture_folder / "train" / "good", manifest.input_size)
    seen = []
    for variant in (manifest.variants[0], manifest.variants[-1]):
        with closing(OnnxRuntimeEngine(changed.path(variant), manifest, variant)) as engine:
            seen.append(Seen.by(engine.run, images, manifest))
    for exact, found in zip(seen[0].energies, seen[1].energies, strict=True):
        assert abs(found.mean() / exact.mean() - 1) < BOUND
        assert 0 < np.abs(found / exact - 1).mean() < 1.5 * BOUND


def test_int8_is_run_when_asked_for_and_never_else(
    bundle: Bundle[UFlowManifest], options: Int8Options, texture_folder: Path
) -> None:
    changed, _ = quantize_bundle(bundle, [texture_folder / "train" / "good"], options)
    for backend in ("onnxruntime", "openvino"):
        with closing(open_engine(changed, backend, "int8")) as engine:
            assert engine.name.endswith("CPU, int8")
    with closing(open_engine(changed, "auto", "int8")) as engine:
        assert engine.name.startswith("OpenVINO")  # onnxruntime would compute it in FP32
    with closing(open_engine(changed, "auto")) as engine:
        assert engine.name.endswith("fp32")
    only = replace(changed.manifest, variants=changed.manifest.variants[-1:])
    with pytest.raises(UsageError, match="no fp32 or fp16 graph, only: int8"):
        open_engine(Bundle(changed.folder, only), "onnxruntime")


def test_a_second_time_writes_the_same(
    bundle: Bundle[UFlowManifest], options: Int8Options, texture_folder: Path
) -> None:
    good = texture_folder / "train" / "good"
    first, _ = quantize_bundle(bundle, [good], options)
    second, _ = quantize_bundle(first, [good], options)
    assert second.manifest == first.manifest


def test_ranges_clip_nothing_that_was_seen() -> None:
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 18]>
    signs (uint8[N,2,2,3] image) => (float[N,2,2,3] negative) {
        positive = Cast <to = 1> (image)
        negative = Neg(positive)
    }""")
    black, grey = (np.full((2, 2, 3), level, np.uint8) for level in (0, 40))
    spot = black.copy()
    spot[1, 0, 2] = 200
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    ranges = largest_magnitudes(model, ["positive", "negative"], [grey, spot, black])
    assert ranges == {"positive": 200.0, "negative": 200.0}


def test_fp16_around_it(bundle: Bundle[UFlowManifest], options: Int8Options, texture_folder: Path) -> None:
    changed, result = quantize_bundle(bundle, [texture_folder / "train" / "good"], replace(options, rest="fp16"))
    assert result.variant.opset == 19
    assert all(parity.holds for parity in result.parities)
    weights = {tensor.data_type for tensor in onnx.load(changed.path(result.variant)).graph.initializer}
    assert {onnx.TensorProto.INT8, onnx.TensorProto.FLOAT16} <= weights


def test_what_is_interrupted_leaves_the_bundle_as_it_was(
    bundle: Bundle[UFlowManifest], options: Int8Options, texture_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = texture_folder / "train" / "good"
    first, _ = quantize_bundle(bundle, [good], options)
    before = sorted(path.name for path in bundle.folder.iterdir())

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(int8_bundle, "_parities", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quantize_bundle(first, [good], options)
    assert Bundle.load(bundle.folder, UFlowManifest) == first
    assert sorted(path.name for path in bundle.folder.iterdir()) == before


def saturate(monkeypatch: pytest.MonkeyPatch, engine: type[OnnxRuntimeEngine | OpenVinoEngine]) -> None:
    """Let an engine's INT8 energies be ten times too large, as where sums of products saturate."""
    honest = engine.run

    def run(self: OnnxRuntimeEngine | OpenVinoEngine, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        factor = 10 if self.name.endswith("int8") else 1
        return tuple(factor * output for output in honest(self, *inputs))

    monkeypatch.setattr(engine, "run", run)


def test_a_graph_is_kept_for_the_engines_that_compute_it(
    bundle: Bundle[UFlowManifest],
    options: Int8Options,
    texture_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    logged: list[str],
) -> None:
    saturate(monkeypatch, OpenVinoEngine)
    changed, result = quantize_bundle(bundle, [texture_folder / "train" / "good"], options)
    assert [(parity.engine.split()[0], parity.holds) for parity in result.parities] == [
        ("onnxruntime", True),
        ("OpenVINO", False),
    ]
    noted = json.loads((bundle.folder / PARITY).read_text())[FILE]
    assert [entry["holds"] for entry in noted] == [True, False]
    with pytest.raises(EngineDeviates, match=r"something else than FP32: .*uflow-calibrate --int8"):
        open_engine(changed, "openvino", "int8")
    with closing(open_engine(changed, "auto", "int8")) as engine:
        assert engine.name.startswith("onnxruntime")
    assert any(line.startswith("warning: openvino is skipped: OpenVINO") for line in logged)


def test_a_graph_that_no_engine_computes_is_not_written(
    bundle: Bundle[UFlowManifest], options: Int8Options, texture_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = texture_folder / "train" / "good"
    first, _ = quantize_bundle(bundle, [good], options)
    before = {path.name: path.read_bytes() for path in bundle.folder.iterdir()}
    saturate(monkeypatch, OpenVinoEngine)
    saturate(monkeypatch, OnnxRuntimeEngine)
    with pytest.raises(Int8Failed, match="no INT8 graph is written"):
        quantize_bundle(first, [good], options)
    assert {path.name: path.read_bytes() for path in bundle.folder.iterdir()} == before


def test_weights_of_seven_bits_cannot_saturate(
    bundle: Bundle[UFlowManifest], options: Int8Options, texture_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seven = replace(options, weight_bits=7)
    changed, result = quantize_bundle(bundle, [texture_folder / "train" / "good"], seven)
    assert all(parity.holds for parity in result.parities)
    weights = [
        numpy_helper.to_array(tensor)
        for tensor in onnx.load(changed.path(result.variant)).graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8
    ]
    assert max(int(np.abs(weight.astype(int)).max()) for weight in weights) == 64
    assert 2 * 255 * 64 < 2**15  # what two products of a byte and a weight are summed in
    monkeypatch.setattr("uflow_edge.runtime.engines.proof.has_vnni", lambda: False)
    open_engine(changed, "openvino", "int8").close()
    eight, _ = quantize_bundle(bundle, [texture_folder / "train" / "good"], replace(options, weight_bits=8))
    with pytest.raises(EngineDeviates, match="its weights have 8 bits; this processor has no VNNI.*--int8"):
        open_engine(eight, "openvino", "int8")
    open_engine(eight, "onnxruntime", "int8").close()


def test_a_bound_that_nothing_keeps_changes_nothing(
    bundle: Bundle[UFlowManifest], options: Int8Options, texture_folder: Path
) -> None:
    before = {path.name: path.read_bytes() for path in bundle.folder.iterdir()}
    with pytest.raises(Int8Failed, match="no layer can be computed in INT8 with energies within"):
        quantize_bundle(bundle, [texture_folder / "train" / "good"], replace(options, error_bound=1e-9))
    assert {path.name: path.read_bytes() for path in bundle.folder.iterdir()} == before


def test_too_few_images(bundle: Bundle[UFlowManifest], options: Int8Options, texture_folder: Path) -> None:
    few = sorted((texture_folder / "train" / "good").iterdir())[:7]
    with pytest.raises(BadInput, match="7 images: INT8 needs at least 8"):
        quantize_bundle(bundle, few, options)


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="positive"):
        Int8Options(error_bound=0)
    with pytest.raises(UsageError, match="positive"):
        Int8Options(search_images=0)

"""INT8 graphs where they are to run, and what the commands say of them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from uflow_edge.calibration.command import main as calibrate
from uflow_edge.calibration.int8.quantize_bundle import Int8Options, quantize_bundle
from uflow_edge.export.command import main as export
from uflow_edge.export.engines.plan_options import PlanOptions
from uflow_edge.export.engines.plans import PlanResult, build_plans, layers_file
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.infer.command import main as infer

pytestmark = pytest.mark.long


@pytest.fixture
def quantized(exported: Path, texture_folder: Path, tmp_path: Path) -> Callable[..., Bundle[UFlowManifest]]:
    def make(**options: object) -> Bundle[UFlowManifest]:
        folder = tmp_path / "gravel.uflow"
        if not folder.exists():
            shutil.copytree(exported, folder)
        chosen = Int8Options(error_bound=0.1, search_images=4, **options)
        return quantize_bundle(Bundle.load(folder, UFlowManifest), [texture_folder / "train" / "good"], chosen)[0]

    return make


def assert_tensorrt_rtx_builds_every_pair(
    bundle: Bundle[UFlowManifest], capabilities: tuple[str, ...], *, fp16: bool
) -> PlanResult:
    bundle, (result,) = build_plans(bundle, ["int8"], PlanOptions("rtx", compute_capabilities=capabilities))
    assert result.plan.file.endswith("-int8.plan")
    assert result.plan.graph == "model.int8.onnx"
    log = json.loads((bundle.folder / layers_file(result.plan)).read_text())
    types = [layer["type"] for layer in log["layers"]]
    assert types.count("QUANTIZE") > 5
    assert types.count("DEQUANTIZE") >= 2 * types.count("QUANTIZE")
    assert ("fp16" in result.layers) == fp16
    return result


def test_tensorrt_rtx_takes_every_pair_with_fp32_around(quantized: Callable[..., Bundle[UFlowManifest]]) -> None:
    bundle = quantized(weight_bits=8)
    # Turing multiplies no FP32 matrices, which whitened features need: that has nothing to do with INT8.
    result = assert_tensorrt_rtx_builds_every_pair(bundle, ("8.6", "12.0"), fp16=False)
    # Quantised anew, the graph is another, so its engine goes.
    again = quantized(weight_bits=7)
    assert again.manifest.plans == ()
    assert not (bundle.folder / result.plan.file).exists()
    assert Bundle.load(bundle.folder, UFlowManifest) == again


def test_the_command_makes_a_graph_with_fp16_around_int8_for_tensorrt(
    exported: Path, good_folder: Path, tmp_path: Path, exit_code: Callable[..., int]
) -> None:
    folder = shutil.copytree(exported, tmp_path / "gravel.uflow")
    chosen = ("--bundle", folder, "--good", good_folder, "--no-report", "--backend", "onnxruntime", "--threads", 1)
    assert exit_code(calibrate, *chosen, "--int8", "--int8-rest", "fp16") == 0
    bundle = Bundle.load(folder, UFlowManifest)
    assert bundle.manifest.variants[-1].opset == 19  # the first in which INT8's scales may be FP16
    assert_tensorrt_rtx_builds_every_pair(bundle, ("7.5", "8.6", "12.0"), fp16=True)


def test_the_precision_around_int8_needs_an_int8_graph(
    bundle_folder: Path, good_folder: Path, exit_code: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(calibrate, "--bundle", bundle_folder, "--good", good_folder, "--int8-rest", "fp16") == 2
    assert "--int8-rest needs --int8" in capsys.readouterr().err


def test_int8_needs_images_not_just_a_checkpoint(
    trained: Path, tmp_path: Path, exit_code: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(export, "--ckpt", trained, "--out", tmp_path / "new.uflow", "--precision", "int8") == 2
    assert "int8 needs images of the line" in capsys.readouterr().err
    assert not (tmp_path / "new.uflow").exists()


def test_inference_in_int8(
    quantized: Callable[..., Bundle[UFlowManifest]],
    texture_folder: Path,
    exit_code: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = quantized()
    chosen = ("--bundle", bundle.folder, "--images", texture_folder / "test", "--precision", "int8")
    assert exit_code(infer, *chosen, "--backend", "onnxruntime") == 0
    told = capsys.readouterr()
    assert "CPU, int8" in told.out + told.err

"""INT8 graphs where they are to run, and what the commands say of them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from uflow_edge.calibration.int8.quantize_bundle import Int8Options, quantize_bundle
from uflow_edge.export.command import main as export
from uflow_edge.export.engines.plan_options import PlanOptions
from uflow_edge.export.engines.plans import build_plans, layers_file
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
        chosen = Int8Options(error_bound=0.1, search_images=4, cache=tmp_path / "cache", **options)
        return quantize_bundle(Bundle.load(folder, UFlowManifest), [texture_folder / "train" / "good"], chosen)[0]

    return make


@pytest.mark.parametrize("rest", ["fp32", "fp16"])
def test_tensorrt_rtx_takes_every_pair(quantized: Callable[..., Bundle[UFlowManifest]], rest: str) -> None:
    bundle = quantized(rest=rest)
    # Turing multiplies no FP32 matrices, which whitened features need: that has nothing to do with INT8.
    newer = PlanOptions("rtx", compute_capabilities=("8.6", "12.0"))
    bundle, (result,) = build_plans(bundle, ["int8"], newer)
    assert result.plan.file.endswith("-int8.plan")
    assert result.plan.graph == "model.int8.onnx"
    log = json.loads((bundle.folder / layers_file(result.plan)).read_text())
    types = [layer["type"] for layer in log["layers"]]
    assert types.count("QUANTIZE") > 5
    assert types.count("DEQUANTIZE") >= 2 * types.count("QUANTIZE")
    assert ("fp16" in result.layers) == (rest == "fp16")
    # Quantised anew, the graph is another, so its engine goes.
    again = quantized(rest=rest, ranges="percentile")
    assert again.manifest.plans == ()
    assert not (bundle.folder / result.plan.file).exists()
    assert Bundle.load(bundle.folder, UFlowManifest) == again


def test_int8_needs_images_not_just_a_checkpoint(
    trained: Path, tmp_path: Path, exit_code: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(export, "--ckpt", trained, "--out", tmp_path / "new.uflow", "--precision", "int8") == 2
    assert "int8 takes images of the line" in capsys.readouterr().err
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

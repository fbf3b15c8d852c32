"""Which engine is chosen, and what is said of those that are not."""

from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec

import onnxruntime
import pytest

from extras import needs
from uflow_edge.runtime.bundle.calibration_record import CalibrationRecord
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.manifest import Precision
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.engines.openvino import OpenVinoEngine
from uflow_edge.runtime.engines.proof import EngineDeviates
from uflow_edge.runtime.engines.selection import BACKENDS, open_engine
from uflow_edge.runtime.errors import BadInput, ExitCode, MissingDependency, UsageError
from uflow_edge.runtime.views import ViewOptions


def bfloat16_here() -> bool:
    if find_spec("openvino") is None:
        return False
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


with_bfloat16 = pytest.mark.skipif(not bfloat16_here(), reason="needs OpenVINO and a processor with bfloat16")


def test_auto_takes_onnxruntime_in_fp32_here_and_names_nothing_that_is_absent(bundle, logged: list[str]) -> None:
    with closing(open_engine(bundle)) as engine:
        assert isinstance(engine, OnnxRuntimeEngine)
    assert logged == [f"engine: onnxruntime {onnxruntime.__version__}, CPU, fp32"]


def test_auto_heeds_the_precision(bundle) -> None:
    with closing(open_engine(bundle, precision="fp16")) as engine:
        assert engine.name.endswith("CPU, fp16")


@pytest.mark.parametrize("backend", ["onnxruntime-tensorrt", "onnxruntime-cuda"])
def test_a_backend_that_is_not_here_is_an_error_that_says_what_to_install(bundle, backend) -> None:
    with pytest.raises(MissingDependency, match="this onnxruntime has no .*pip install onnxruntime-gpu") as info:
        open_engine(bundle, backend)
    assert info.value.exit_code == ExitCode.MISSING


def test_a_precision_that_the_bundle_lacks_is_an_error(bundle) -> None:
    manifest = replace(bundle.manifest, variants=bundle.manifest.variants[:1])
    with pytest.raises(UsageError, match="no fp16 graph, only: fp32"):
        open_engine(Bundle(bundle.folder, manifest), precision="fp16")


@needs("openvino")
def test_when_onnxruntime_fails_the_next_one_runs(bundle, monkeypatch, logged: list[str]) -> None:
    def broken(*arguments: object) -> None:
        raise BadInput("this build has no Conv")

    monkeypatch.setattr("uflow_edge.runtime.engines.onnx_runtime.OnnxRuntimeEngine", broken)
    with closing(open_engine(bundle)) as engine:
        assert isinstance(engine, OpenVinoEngine)
    assert logged[0] == "warning: onnxruntime is skipped: this build has no Conv"

    def surprised(*arguments: object) -> None:
        raise ValueError("two\nlines")

    monkeypatch.setattr("uflow_edge.runtime.engines.openvino.OpenVinoEngine", surprised)
    with pytest.raises(BadInput, match="this build has no Conv"):
        open_engine(bundle)
    assert logged[-1] == "warning: openvino is skipped: ValueError: two lines"


def test_the_best_come_first() -> None:
    assert BACKENDS == ("tensorrt", "onnxruntime-tensorrt", "onnxruntime-cuda", "onnxruntime", "openvino")


def calibrated_in(precision: Precision, bundle: Bundle) -> Bundle:
    record = CalibrationRecord.of(ViewOptions(), precision, "any", 50, [(64, 64)])
    return Bundle(bundle.folder, replace(bundle.manifest, calibration=record))


def test_bf16_runs_the_fp32_graph_in_openvino_only(bundle) -> None:
    with pytest.raises(UsageError, match="onnxruntime does not compute in bf16; use --backend openvino"):
        open_engine(bundle, "onnxruntime", "bf16")
    half = Bundle(bundle.folder, replace(bundle.manifest, variants=bundle.manifest.variants[1:]))
    with pytest.raises(UsageError, match="no bf16 graph, only: fp16"):
        open_engine(half, precision="bf16")


@needs("openvino")
def test_bf16_without_bfloat16_is_an_error_and_auto_computes_in_fp32(bundle, monkeypatch, logged: list[str]) -> None:
    monkeypatch.setattr("openvino.Core.get_property", lambda *_: ["FP32", "INT8"])
    with pytest.raises(MissingDependency, match="this processor has no bfloat16"):
        open_engine(bundle, precision="bf16")
    with closing(open_engine(calibrated_in("bf16", bundle))) as engine:
        assert engine.precision == "fp32"
    assert logged[0] == "warning: openvino is skipped: this processor has no bfloat16; run with --precision fp32"


@with_bfloat16
@pytest.mark.parametrize(("precision", "taken"), [("fp32", "fp32"), ("bf16", "bf16"), ("int8", "fp32")])
def test_auto_takes_bf16_only_if_the_promise_was_made_in_it(bundle, precision, taken) -> None:
    with closing(open_engine(calibrated_in(precision, bundle))) as engine:
        assert engine.precision == taken


@with_bfloat16
def test_bf16_that_is_too_far_from_fp32_is_refused(bundle, images, monkeypatch) -> None:
    with closing(open_engine(bundle, precision="bf16")) as engine, closing(open_engine(bundle)) as exact:
        errors = [abs(a / b - 1) for a, b in zip(engine.run(images), exact.run(images), strict=True)]
    assert max(error.max() for error in errors) > 1e-3  # it does compute in another precision
    monkeypatch.setattr("uflow_edge.runtime.engines.selection.BF16_BOUND", 1e-4)
    with pytest.raises(EngineDeviates, match="bf16 computes something else than FP32.*Use --precision fp32"):
        open_engine(bundle, precision="bf16")

"""Which engine is chosen, and what is said of those that are not."""

from contextlib import closing
from dataclasses import replace

import onnxruntime
import pytest

from extras import needs
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.engines.openvino import OpenVinoEngine
from uflow_edge.runtime.engines.selection import BACKENDS, open_engine
from uflow_edge.runtime.errors import BadInput, ExitCode, MissingDependency, UsageError


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

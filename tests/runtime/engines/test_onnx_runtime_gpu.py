"""Providers of a GPU: as onnxruntime behaves when something is wrong with one, and for real where there is one."""

import itertools
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import pytest

from engine_outputs import assert_same, on_cpu
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.engines import EngineFailed
from uflow_edge.runtime.engines.onnx_runtime import session_options
from uflow_edge.runtime.engines.onnx_runtime_gpu import DeviceBinding, OnnxRuntimeGpuEngine
from uflow_edge.runtime.engines.selection import open_engine
from uflow_edge.runtime.engines.stopwatch import Stopwatch, Transfers
from uflow_edge.runtime.errors import UsageError

RealSession = onnxruntime.InferenceSession


@pytest.mark.parametrize("count", [1, 3])
def test_bound_buffers_are_used_again_and_give_the_same(bundle, images, count) -> None:
    variant, manifest = bundle.manifest.variants[0], bundle.manifest
    session = RealSession(str(bundle.path(variant)), session_options(1), providers=["CPUExecutionProvider"])
    binding = DeviceBinding(session, manifest.signature, count, "cpu")
    first = binding.run([images[:count]])
    second = binding.run([images[::-1][:count]])
    with closing(on_cpu(bundle)) as reference:
        for found, expected in ((first, images[:count]), (second, images[::-1][:count])):
            assert_same(tuple(found), reference.run(expected), 1e-5)


@pytest.fixture
def pretend(monkeypatch, tmp_path) -> Callable[..., list[SimpleNamespace]]:
    """onnxruntime-gpu that lists its providers; sessions claim to run on what they are told."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def set_up(runs_on: Callable[[str], str], run: Callable[[], None]) -> list[SimpleNamespace]:
        asked = []

        class Session:
            def __init__(self, path: str, options: object, providers: list, **rest: object) -> None:
                self.first = providers[0][0] if isinstance(providers[0], tuple) else providers[0]
                asked.append(SimpleNamespace(providers=providers, **rest))
                print("EP Error: onnxruntime says this on stdout")
                self.real = RealSession(path, options, providers=["CPUExecutionProvider"])

            def get_providers(self) -> list[str]:
                return [runs_on(self.first)]

            def run_with_iobinding(self, binding: object) -> None:
                run()
                self.real.run_with_iobinding(binding)

            def __getattr__(self, name: str) -> object:
                return getattr(self.real, name)

        listed = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
        monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcudnn.so.9"), raising=False)
        # There is no device to bind to, so the same buffers are made on the CPU.
        real = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        on_host = staticmethod(lambda shape, kind, device, number: real(shape, kind, "cpu", number))
        monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_shape_and_type", on_host)
        return asked

    return set_up


def test_a_provider_that_falls_back_to_the_cpu_is_skipped(bundle, images, pretend, capfd, logged: list[str]) -> None:
    pretend(runs_on=lambda asked: "CPUExecutionProvider", run=lambda: None)
    with closing(open_engine(bundle)) as engine:
        assert engine.name == f"onnxruntime {onnxruntime.__version__}, CPU, fp32"
        engine.run(images)
    assert [line.split(" but ")[0] for line in logged] == [
        "warning: onnxruntime-tensorrt is skipped: onnxruntime lists TensorrtExecutionProvider",
        "warning: onnxruntime-cuda is skipped: onnxruntime lists CUDAExecutionProvider",
        f"engine: onnxruntime {onnxruntime.__version__}, CPU, fp32",
    ]
    captured = capfd.readouterr()
    assert "EP Error" in captured.err and "libcudnn" in captured.err
    assert "libcudnn" not in captured.out


def test_a_provider_that_fails_its_first_run_is_skipped(bundle, images, pretend, logged: list[str]) -> None:
    def fail() -> None:
        raise RuntimeError("CUDNN_STATUS_NOT_INITIALIZED\n in conv")

    pretend(runs_on=lambda asked: asked, run=fail)
    with closing(open_engine(bundle)) as engine:
        assert ", CPU, " in engine.name
        assert len(engine.run(images)) == len(bundle.manifest.scales)
    assert [": the run failed (CUDNN_STATUS_NOT_INITIALIZED in conv)" in line for line in logged] == [True, True, False]
    with pytest.raises(EngineFailed, match="onnxruntime .*, CUDA, fp16: the run failed"):  # asked for by name: no other
        open_engine(bundle, "onnxruntime-cuda")


def test_providers_that_work_are_taken_tensorrt_first(bundle, images, pretend) -> None:
    asked = pretend(runs_on=lambda asked: asked, run=lambda: None)
    version = onnxruntime.__version__
    for backend, name in (
        ("auto", f"onnxruntime {version}, TensorRT, fp32"),
        ("onnxruntime-tensorrt", f"onnxruntime {version}, TensorRT, fp32"),
        ("onnxruntime-cuda", f"onnxruntime {version}, CUDA, fp16"),
    ):
        with closing(open_engine(bundle, backend)) as engine, closing(on_cpu(bundle)) as reference:
            assert engine.name == name
            assert_same(engine.run(images), reference.run(images), 2e-2)
            assert_same(engine.run(images[:1]), reference.run(images[:1]), 2e-2)
    engines = [session for session in asked if session.providers != ["CPUExecutionProvider"]]
    assert all(session.enable_fallback == 0 for session in engines)
    assert [session.providers[-1] for session in engines] == ["CPUExecutionProvider"] * 3
    assert engines[2].providers[0] == ("CUDAExecutionProvider", {"use_tf32": "0"})


def test_a_stopwatch_is_told_of_the_transfers_of_every_run(bundle, images, pretend, monkeypatch) -> None:
    pretend(runs_on=lambda asked: asked, run=lambda: None)
    stopwatch = Stopwatch()
    with closing(open_engine(bundle, "onnxruntime-cuda", stopwatch=stopwatch)) as engine:
        assert stopwatch.transfers is not None  # of the sample that it was tried with
        stopwatch.restart()
        squares = (float(i**2) for i in itertools.count())  # of seconds, so that no two parts take as long
        clock = SimpleNamespace(perf_counter=lambda: next(squares))
        monkeypatch.setattr("uflow_edge.runtime.engines.onnx_runtime_gpu.time", clock)
        engine.run(images)
        assert stopwatch.transfers == Transfers(1e3 * (1 - 0), 1e3 * (9 - 4))
        engine.run(images)
        assert stopwatch.transfers == Transfers(1e3 * (1 + 25 - 16), 1e3 * (5 + 49 - 36))


def test_engines_of_the_tensorrt_provider_are_kept_for_the_user_outside_the_bundle(
    bundle, exported, pretend, tmp_path
) -> None:
    asked = pretend(runs_on=lambda asked: asked, run=lambda: None)
    read_only = Path(shutil.copytree(exported, tmp_path / "read_only.uflow"))
    before = sorted(read_only.rglob("*"))
    open_engine(Bundle.load(read_only, UFlowManifest), "onnxruntime-tensorrt").close()
    assert sorted(read_only.rglob("*")) == before
    (_, options), *_ = asked[0].providers
    folder = Path(options["trt_engine_cache_path"])
    assert folder.parent == tmp_path / "cache" / "uflow-edge"
    assert folder.name.endswith(bundle.manifest.files["model.fp32.onnx"][:16])
    assert folder.stat().st_mode & 0o777 == 0o700
    side = bundle.manifest.input_size
    assert options["trt_profile_max_shapes"] == f"image:4x{side}x{side}x3"
    assert options["trt_engine_cache_enable"] == "1"


def test_without_a_cache_folder_the_tensorrt_provider_builds_at_each_start(bundle, pretend, tmp_path) -> None:
    asked = pretend(runs_on=lambda asked: asked, run=lambda: None)
    (tmp_path / "cache").touch()  # a file where the folder would be
    open_engine(bundle, "onnxruntime-tensorrt").close()
    (_, options), *_ = asked[0].providers
    assert not any("cache" in name for name in options)
    assert "trt_profile_max_shapes" in options


def test_the_tensorrt_provider_may_not_choose_half_precision(bundle, pretend) -> None:
    pretend(runs_on=lambda asked: asked, run=lambda: None)
    with pytest.raises(UsageError, match="decides itself what runs in half precision"):
        open_engine(bundle, "onnxruntime-tensorrt", "fp16")


@pytest.mark.gpu
@pytest.mark.parametrize("provider", ["CUDAExecutionProvider", "TensorrtExecutionProvider"])
def test_a_real_provider_gives_what_the_cpu_gives(bundle, images, provider, monkeypatch, tmp_path) -> None:
    if provider not in onnxruntime.get_available_providers():
        if os.environ.get("UFLOW_EDGE_REQUIRE_SERVICES"):
            pytest.fail(f"{provider} is required, but this onnxruntime lacks it")
        pytest.skip(f"this onnxruntime has no {provider}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    variant = bundle.manifest.variants[0]
    engine = OnnxRuntimeGpuEngine(bundle.path(variant), bundle.manifest, variant, provider)
    with closing(engine), closing(on_cpu(bundle)) as reference:
        for count in (3, 1, 1):
            assert_same(engine.run(images[:count]), reference.run(images[:count]), 1e-2)

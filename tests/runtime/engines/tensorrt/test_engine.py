"""The native TensorRT engine on the stand-in of a GPU, and once on a real one."""

import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from stand_in_cuda import WORK, Error, assert_nothing_left, fake_tensorrt, pictures, same, with_plan
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.engines import EngineFailed, cuda
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.engines.selection import open_engine
from uflow_edge.runtime.engines.stopwatch import Stopwatch, Transfers
from uflow_edge.runtime.engines.tensorrt import DeviceInput, TensorRtEngine
from uflow_edge.runtime.errors import BadInput, UsageError
from uflow_edge.runtime.numeric import Image


def test_runs_of_any_number_give_what_the_network_gives(bundle, network, gpu) -> None:
    with closing(TensorRtEngine(bundle, bundle.manifest.plans[0])) as engine:
        assert engine.name == "TensorRT 10.3.0, Orin, fp16"
        kept = []
        for seed, count in enumerate([1, 1, 1, 4, 4, 3, 9, 1, 1]):
            images = pictures(count, bundle.manifest.input_size, seed)
            kept.append((engine.run(images), network.run(images)))
        assert all(same(found, expected) for found, expected in kept)  # looked at last: no run may change another's
    assert_nothing_left(gpu)


def test_calls_come_in_the_right_order(bundle, gpu) -> None:
    side, maps = bundle.manifest.input_size, len(bundle.manifest.scales)
    engine = TensorRtEngine(bundle, bundle.manifest.plans[0])
    made = ["pagelocked_empty", "mem_alloc", "set_tensor_address"] * (1 + maps)
    assert gpu.calls == ["push", "runtime", "engine", "context", "pop", "push", "Stream", *made, "pop"]
    copies = ["download"] * maps
    runs = []
    for _ in range(3):
        gpu.calls.clear()
        engine.run(pictures(1, side))
        runs.append(list(gpu.calls))
    recorded = ["begin_capture", "execute", *copies, "end_capture"]
    assert runs == [
        ["push", "upload", "set_input_shape", "execute", *copies, "synchronize", "pop"],
        ["push", "upload", *recorded, "launch", "synchronize", "pop"],
        ["push", "upload", "launch", "synchronize", "pop"],
    ]
    gpu.calls.clear()
    engine.close()
    engine.close()  # closing again is nothing
    assert gpu.calls == ["push", "synchronize", "~context", "~engine", "~runtime", *["free"] * (1 + maps), "pop"]
    assert_nothing_left(gpu)


def test_a_stopwatch_is_told_of_transfers_whether_work_is_recorded_or_not(bundle, network, gpu) -> None:
    side, maps = bundle.manifest.input_size, len(bundle.manifest.scales)
    stopwatch = Stopwatch()
    with closing(TensorRtEngine(bundle, bundle.manifest.plans[0], stopwatch)) as engine:
        for count, runs in ((1, 1), (1, 1), (1, 1), (4, 1), (9, 3)):
            images = pictures(count, side)
            stopwatch.restart()
            assert same(engine.run(images), network.run(images))
            assert stopwatch.transfers == Transfers(runs * WORK["upload"], runs * maps * WORK["download"])
        stopwatch.restart()
        engine.run_on_device(lambda target: None)  # a kernel that finds its input there
        assert stopwatch.transfers == Transfers(0.0, maps * WORK["download"])
    assert gpu.calls.count("launch") == 5  # all others were the first of their size
    assert_nothing_left(gpu)


def test_without_a_stopwatch_no_event_is_made(bundle, gpu) -> None:
    with closing(open_engine(bundle, "tensorrt")) as engine:
        engine.run(pictures(1, bundle.manifest.input_size))
    assert not {"Event", "record"} & set(gpu.calls)


def test_it_is_made_in_one_thread_run_in_another_and_closed_in_a_third(bundle, network, gpu) -> None:
    images = pictures(2, bundle.manifest.input_size)

    def in_a_thread(work: Callable[[], object]) -> object:
        def run() -> object:
            result = work()
            assert gpu.stack == []  # pycuda ends the process when a thread ends with anything on it
            return result

        with ThreadPoolExecutor(1) as executor:
            return executor.submit(run).result()

    engine = in_a_thread(lambda: TensorRtEngine(bundle, bundle.manifest.plans[0]))
    assert same(in_a_thread(lambda: engine.run(images)), network.run(images))
    assert same(in_a_thread(lambda: engine.run(images)), network.run(images))
    in_a_thread(engine.close)
    assert_nothing_left(gpu)


def test_the_stand_in_insists_on_a_current_context(bundle, gpu) -> None:
    """Without this, the test before would prove nothing."""
    with pytest.raises(Error, match="no context is current in MainThread"):
        sys.modules["pycuda.driver"].Stream()


def test_the_context_is_kept_until_the_process_ends(bundle, gpu, monkeypatch) -> None:
    at_exit: list[Callable[[], None]] = []
    monkeypatch.setattr(cuda.atexit, "register", at_exit.append)
    for _ in range(2):
        TensorRtEngine(bundle, bundle.manifest.plans[0]).close()
    assert "detach" not in gpu.calls
    assert len(at_exit) == 1
    at_exit[0]()
    assert gpu.calls[-1] == "detach"


@pytest.mark.parametrize(
    ("failing", "error", "message"),
    [
        ("deserialize", EngineFailed, "stdVersionRead failed.*uflow-export --bundle .* --trt"),
        ("types", BadInput, "differ from the manifest in name, shape"),
        ("address", EngineFailed, "refuses the buffer for 'image'"),
        ("mem_alloc", EngineFailed, "the GPU cannot load this plan .mem_alloc: out of luck"),
        ("pagelocked_empty", EngineFailed, "the GPU cannot load this plan"),
        ("Stream", EngineFailed, "the GPU cannot load this plan"),
    ],
)
def test_an_engine_that_cannot_be_made_leaves_nothing_behind(bundle, gpu, failing, error, message) -> None:
    gpu.fails = {failing}
    with pytest.raises(error, match=message) as kept:  # while the error, with its traceback, lives on
        TensorRtEngine(bundle, bundle.manifest.plans[0])
    assert_nothing_left(gpu)
    assert kept.value.__traceback__ is not None


@pytest.mark.parametrize(
    ("failing", "message"), [("enqueue", "out of workspace"), ("upload", "out of luck"), ("synchronize", "out of luck")]
)
def test_a_run_that_fails_says_why_and_the_engine_can_be_closed(bundle, network, gpu, failing, message) -> None:
    images = pictures(1, bundle.manifest.input_size)
    engine = TensorRtEngine(bundle, bundle.manifest.plans[0])
    engine.run(images)
    gpu.fails = {failing}
    with pytest.raises(EngineFailed, match=f"TensorRT 10.3.0, Orin, fp16: the run failed .*{message}"):
        engine.run(images)
    assert gpu.stack == []
    engine.close()
    assert_nothing_left(gpu)


@pytest.mark.parametrize("failing", ["end_capture", "begin_capture", "no such function"])
def test_where_no_graph_can_be_recorded_kernels_are_launched_one_by_one(
    bundle, network, gpu, monkeypatch, failing
) -> None:
    gpu.fails = {failing}
    if failing == "no such function":
        monkeypatch.setattr(cuda, "driver_library", SimpleNamespace)
    images = pictures(2, bundle.manifest.input_size)
    with closing(TensorRtEngine(bundle, bundle.manifest.plans[0])) as engine:
        for _ in range(4):
            assert same(engine.run(images), network.run(images))
    assert "launch" not in gpu.calls
    assert gpu.calls.count("begin_capture") <= 1  # what failed once is not tried again
    assert_nothing_left(gpu)


def test_a_graph_is_forgotten_when_the_batch_changes(bundle, gpu) -> None:
    side = bundle.manifest.input_size
    with closing(TensorRtEngine(bundle, bundle.manifest.plans[0])) as engine:
        for count in (1, 1):
            engine.run(pictures(count, side))
        assert len(gpu.recordings) == 1
        engine.run(pictures(2, side))
        assert gpu.recordings == {}
    assert gpu.calls.count("launch") == 1


def test_a_preprocessor_on_the_gpu_writes_the_input_itself(bundle, network, gpu) -> None:
    side = bundle.manifest.input_size
    asked: list[DeviceInput] = []
    with closing(TensorRtEngine(bundle, bundle.manifest.plans[0])) as engine:
        for seed in range(3):
            images = pictures(2, side, seed)

            def kernel(target: DeviceInput, images: Image = images) -> None:
                gpu.call("kernel")  # needs the context
                gpu.memory[target.pointer][: images.size] = images.reshape(-1)
                asked.append(target)

            gpu.calls.clear()
            assert same(engine.run_on_device(kernel, 2), network.run(images))
            assert "upload" not in gpu.calls
        assert {(target.shape, target.stream.handle) for target in asked} == {((2, side, side, 3), 77)}
        with pytest.raises(UsageError, match="expected 1 to 4 samples at once, got 5"):
            engine.run_on_device(kernel, 5)


def test_tensorrt_rtx_is_told_to_record_graphs_itself(bundle, network, gpu, monkeypatch) -> None:
    library = fake_tensorrt(gpu)
    asked = SimpleNamespace()
    monkeypatch.delitem(sys.modules, "tensorrt")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", library)
    library.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
    make_runtime = library.Runtime.deserialize_cuda_engine

    def deserialize(runtime: object, content: bytes) -> object:
        engine = make_runtime(runtime, content)
        plain = type(engine).create_execution_context
        type(engine).create_runtime_config = lambda engine: asked
        type(engine).create_execution_context = lambda engine, config: plain(engine)
        return engine

    library.Runtime.deserialize_cuda_engine = deserialize
    rtx = with_plan(bundle, library="tensorrt_rtx")
    images = pictures(1, bundle.manifest.input_size)
    with closing(TensorRtEngine(rtx, rtx.manifest.plans[1])) as engine:
        assert engine.name == "TensorRT-RTX 10.3.0, Orin, fp16"
        for _ in range(3):
            assert same(engine.run(images), network.run(images))
    assert asked.cuda_graph_strategy == "whole"
    assert "begin_capture" not in gpu.calls


@pytest.mark.gpu
def test_a_real_plan_on_a_real_gpu_gives_what_the_cpu_gives(exported: Path, tmp_path: Path) -> None:
    """Builds the plan first; takes TensorRT, pycuda and an NVIDIA GPU."""
    from uflow_edge.export.engines.plans import build_plans

    folder = tmp_path / "gravel.uflow"
    shutil.copytree(exported, folder)
    real, _ = build_plans(Bundle.load(folder, UFlowManifest), ["fp32", "fp16"])
    manifest, images = real.manifest, pictures(3, real.manifest.input_size)
    reference = OnnxRuntimeEngine(real.path(manifest.variants[0]), manifest, manifest.variants[0]).run(images)
    for precision, tolerance in (("fp32", 1e-3), ("fp16", 2e-2)):
        engine = open_engine(real, "tensorrt", precision)
        with closing(engine), ThreadPoolExecutor(1) as executor:
            for _ in range(3):  # plain, recorded, replayed; in another thread than it was made in
                found = executor.submit(engine.run, images).result()
                for a, b in zip(found.energies, reference.energies, strict=True):
                    np.testing.assert_allclose(a, b, rtol=tolerance)

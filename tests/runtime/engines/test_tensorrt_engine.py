"""The native TensorRT engine on a stand-in for the GPU.

The stand-in keeps the rules that matter: every call needs the context current in its thread, work on a stream reads and
writes the addresses it was given, a stream that records runs nothing, and freed memory is gone. Its networks are run by
onnxruntime, so that numbers can be compared. Real attributes of TensorRT are looked up in test_tensorrt_attributes.py.
"""

import ctypes
import dataclasses
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from uflow_edge.runtime.bundle.folder import MANIFEST, Bundle
from uflow_edge.runtime.bundle.manifest import BatchRange, Plan
from uflow_edge.runtime.bundle.uflow import INPUT_NAME, UFlowManifest
from uflow_edge.runtime.engines import EngineFailed, Outputs, cuda
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.engines.plans import find_plan
from uflow_edge.runtime.engines.selection import open_engine
from uflow_edge.runtime.engines.stopwatch import Stopwatch, Transfers
from uflow_edge.runtime.engines.tensorrt import DeviceInput, TensorRtEngine
from uflow_edge.runtime.errors import BadInput, MissingDependency, UsageError
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.storage.files import sha256

CONTENT = b"a plan"
WORK = {"upload": 2.0, "execute": 5.0, "download": 0.25}
"""Milliseconds."""


class Gpu:
    """What is on the GPU, what is current in which thread, and every call in order."""

    def __init__(self, manifest: UFlowManifest, run: Callable[[Image], Outputs]) -> None:
        self.manifest, self.network = manifest, run
        self.calls: list[str] = []
        self.memory: dict[int, np.ndarray] = {}
        self.threads = threading.local()
        self.recording: list[Callable[[], None]] | None = None
        self.recordings: dict[int, list[Callable[[], None]]] = {}
        self.names = 1000
        self.fails: set[str] = set()
        self.alive: set[str] = set()
        self.clock = 0.0  # milliseconds: work on a stream takes what WORK says

    @property
    def stack(self) -> list[str]:
        if not hasattr(self.threads, "stack"):
            self.threads.stack = []
        return self.threads.stack

    def call(self, name: str) -> None:
        self.calls.append(name)
        if not self.stack:
            raise Error(f"{name}: no context is current in {threading.current_thread().name}")
        if name in self.fails:
            raise Error(f"{name}: out of luck")

    def new_name(self) -> int:
        self.names += 1
        return self.names

    def enqueue(self, kind: str, work: Callable[[], None]) -> None:
        def timed() -> None:
            work()
            self.clock += WORK[kind]

        if self.recording is None:
            timed()
        else:
            self.recording.append(timed)


class Error(Exception):
    """Stands in for pycuda.driver.Error."""


class Allocation:
    def __init__(self, gpu: Gpu, size: int) -> None:
        gpu.call("mem_alloc")
        self.gpu, self.address = gpu, gpu.new_name()
        gpu.memory[self.address] = np.full(size, 0xAB, np.uint8)

    def __int__(self) -> int:
        return self.address

    def free(self) -> None:
        self.gpu.call("free")
        assert "context" not in self.gpu.alive, "TensorRT still uses this memory"
        del self.gpu.memory[self.address]


def fake_pycuda(gpu: Gpu) -> ModuleType:
    class Context:
        def push(self) -> None:
            gpu.calls.append("push")
            gpu.stack.append("primary")

        @staticmethod
        def pop() -> None:
            gpu.calls.append("pop")
            gpu.stack.pop()

        def detach(self) -> None:
            gpu.calls.append("detach")

    class Stream:
        handle = 77

        def __init__(self) -> None:
            gpu.call("Stream")

        def synchronize(self) -> None:
            gpu.call("synchronize")
            assert gpu.recording is None, "a stream that records cannot be waited for"

    class Event:
        at: float

        def __init__(self) -> None:
            gpu.call("Event")

        def record(self, stream: Stream) -> None:
            gpu.call("record")
            assert gpu.recording is None, "an event in a recording tells no time"
            self.at = gpu.clock

        def time_since(self, earlier: "Event") -> float:
            assert gpu.calls[-1] == "synchronize", "the stream may not have come so far"
            return self.at - earlier.at

    def upload(target: Allocation, array: np.ndarray, stream: Stream) -> None:
        gpu.call("upload")
        data = array.reshape(-1).view(np.uint8)
        gpu.enqueue("upload", lambda: gpu.memory[int(target)].__setitem__(slice(array.nbytes), data))

    def download(array: np.ndarray, source: Allocation, stream: Stream) -> None:
        gpu.call("download")
        address = int(source)

        def copy() -> None:
            array[...] = gpu.memory[address][: array.nbytes].view(array.dtype).reshape(array.shape)

        gpu.enqueue("download", copy)

    def pagelocked_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        gpu.call("pagelocked_empty")
        return np.ones(shape, dtype)

    device = SimpleNamespace(
        name=lambda: "Orin", compute_capability=lambda: (8, 7), retain_primary_context=lambda: Context()
    )
    driver = ModuleType("pycuda.driver")
    driver.__dict__.update(
        Error=Error,
        Context=Context,
        Stream=Stream,
        Event=Event,
        Device=lambda ordinal: device,
        init=lambda: None,
        mem_alloc=lambda size: Allocation(gpu, size),
        pagelocked_empty=pagelocked_empty,
        memcpy_htod_async=upload,
        memcpy_dtoh_async=download,
    )
    return driver


def fake_libcuda(gpu: Gpu) -> SimpleNamespace:
    """The functions of the driver that record graphs; pointers to results come through ctypes, as they do really."""

    def begin(stream: ctypes.c_void_p, mode: ctypes.c_int) -> int:
        gpu.call("begin_capture")
        assert (stream.value, mode.value) == (77, 1)
        gpu.recording = []
        return 0

    def end(stream: ctypes.c_void_p, graph: object) -> int:
        gpu.calls.append("end_capture")
        name = gpu.new_name()
        gpu.recordings[name], gpu.recording = gpu.recording, None
        if "end_capture" in gpu.fails:
            return 901  # CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
        graph._obj.value = name
        return 0

    def instantiate(executable: object, graph: ctypes.c_void_p, flags: ctypes.c_ulonglong) -> int:
        name = executable._obj.value = gpu.new_name()
        gpu.recordings[name] = gpu.recordings[graph.value]
        return 0

    def launch(executable: ctypes.c_void_p, stream: ctypes.c_void_p) -> int:
        gpu.call("launch")
        for work in gpu.recordings[executable.value]:
            work()
        return 0

    def destroy(handle: ctypes.c_void_p) -> int:
        del gpu.recordings[handle.value]
        return 0

    return SimpleNamespace(
        cuStreamBeginCapture_v2=begin,
        cuStreamEndCapture=end,
        cuGraphInstantiateWithFlags=instantiate,
        cuGraphLaunch=launch,
        cuGraphDestroy=destroy,
        cuGraphExecDestroy=destroy,
    )


def fake_tensorrt(gpu: Gpu) -> ModuleType:
    manifest = gpu.manifest
    outputs = {tensor.name: tensor.shape for tensor in manifest.signature.outputs}
    side = manifest.input_size

    class Logger:
        INTERNAL_ERROR, ERROR, WARNING = range(3)

        def __init__(self) -> None:
            pass

    class Alive:
        kind = ""

        def __init__(self) -> None:
            gpu.call(self.kind)
            gpu.alive.add(self.kind)

        def __del__(self) -> None:
            gpu.alive.discard(self.kind)
            gpu.calls.append(f"~{self.kind}")

    class Context(Alive):
        kind = "context"

        def __init__(self) -> None:
            super().__init__()
            self.addresses: dict[str, int] = {}
            self.count = 0

        def set_tensor_address(self, name: str, address: int) -> bool:
            gpu.call("set_tensor_address")
            self.addresses[name] = address
            return "address" not in gpu.fails

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            gpu.call("set_input_shape")
            assert (name, shape[1:]) == (INPUT_NAME, (side, side, 3))
            self.count = shape[0]
            return 1 <= shape[0] <= 4

        def execute_async_v3(self, stream: int) -> bool:
            gpu.call("execute")
            assert stream == 77
            if "enqueue" in gpu.fails:
                logger_of_runtime[0].log(Logger.ERROR, "out of\nworkspace")
                return False
            addresses, count = dict(self.addresses), self.count

            def work() -> None:
                shape = (count, side, side, 3)
                found = gpu.network(gpu.memory[addresses[INPUT_NAME]][: np.prod(shape)].reshape(shape))
                for name, output in zip(outputs, found, strict=True):
                    gpu.memory[addresses[name]][: output.nbytes] = (
                        np.ascontiguousarray(output).reshape(-1).view(np.uint8)
                    )

            gpu.enqueue("execute", work)
            return True

    class Engine(Alive):
        kind = "engine"
        num_io_tensors = 1 + len(outputs)

        def get_tensor_name(self, i: int) -> str:
            return [INPUT_NAME, *outputs][i]

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return (-1, side, side, 3) if name == INPUT_NAME else (-1, *outputs[name])

        def get_tensor_dtype(self, name: str) -> str:
            return "uint8" if (name == INPUT_NAME) != ("types" in gpu.fails) else "float"

        def create_execution_context(self) -> Context:
            return Context()

    logger_of_runtime: list[Logger] = []

    class Runtime(Alive):
        kind = "runtime"
        engine_host_code_allowed = False

        def __init__(self, logger: Logger) -> None:
            super().__init__()
            logger_of_runtime[:] = [logger]

        def deserialize_cuda_engine(self, content: bytes) -> Engine | None:
            assert content == CONTENT
            if "deserialize" in gpu.fails:
                logger_of_runtime[0].log(Logger.ERROR, "Serialization assertion stdVersionRead failed")
                return None
            return Engine()

    library = ModuleType("tensorrt")
    library.__dict__.update(
        __version__="10.3.0",
        ILogger=Logger,
        Runtime=Runtime,
        DataType=SimpleNamespace(UINT8="uint8", FLOAT="float"),
    )
    return library


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Bundle:
    """The exported bundle, with a plan for the stand-in."""
    folder = tmp_path / "gravel.uflow"
    shutil.copytree(exported, folder)
    (folder / "engines").mkdir()
    return with_plan(Bundle.load(folder, UFlowManifest))


def with_plan(bundle: Bundle, **differences: object) -> Bundle:
    """One more plan, written to disk."""
    manifest = bundle.manifest
    variant = next(variant for variant in manifest.variants if variant.precision == "fp16")
    plan = Plan(
        f"engines/sm87-trt10.3-{len(manifest.plans)}.plan",
        variant.file,
        manifest.files[variant.file],
        "tensorrt",
        "10.3.0",
        "12.6",
        ("8.7",),
        BatchRange(1, 1, 4),
        "workspace 1024 MiB",
    )
    plan = replace(plan, **differences)
    (bundle.folder / plan.file).write_bytes(CONTENT)
    files = {**manifest.files, plan.file: sha256(bundle.folder / plan.file)}
    manifest = replace(manifest, plans=(*manifest.plans, plan), files=files)
    (bundle.folder / MANIFEST).write_text(manifest.to_json())
    return Bundle.load(bundle.folder, UFlowManifest)


@pytest.fixture
def network(bundle: Bundle) -> Iterator[OnnxRuntimeEngine]:
    """What the plan computes, by onnxruntime."""
    variant = bundle.manifest.variants[0]
    with closing(OnnxRuntimeEngine(bundle.path(variant), bundle.manifest, variant)) as engine:
        yield engine


@pytest.fixture
def gpu(bundle: Bundle, network: OnnxRuntimeEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    """An Orin with pycuda and TensorRT 10.3."""
    gpu = Gpu(bundle.manifest, network.run)
    driver = fake_pycuda(gpu)
    package = ModuleType("pycuda")
    package.driver = driver
    for name, module in {"pycuda": package, "pycuda.driver": driver, "tensorrt": fake_tensorrt(gpu)}.items():
        monkeypatch.setitem(sys.modules, name, module)
    libcuda = fake_libcuda(gpu)
    monkeypatch.setattr(cuda, "_driver_library", lambda: libcuda)
    cuda.primary_context.cache_clear()
    yield gpu
    cuda.primary_context.cache_clear()


def pictures(count: int, side: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def same(found: Outputs, expected: Outputs) -> bool:
    pairs = zip(found, expected, strict=True)
    return all(a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in pairs)


def assert_nothing_left(gpu: Gpu) -> None:
    assert gpu.memory == {}
    assert gpu.alive == set()
    assert gpu.stack == []
    assert gpu.recording is None


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
    side, maps = bundle.manifest.input_size, 2 * len(bundle.manifest.scales)
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
    side, maps = bundle.manifest.input_size, 2 * len(bundle.manifest.scales)
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
        ("types", BadInput, "other shapes or types"),
        ("address", EngineFailed, "does not take a buffer for 'image'"),
        ("mem_alloc", EngineFailed, "the GPU cannot hold it .mem_alloc: out of luck"),
        ("pagelocked_empty", EngineFailed, "the GPU cannot hold it"),
        ("Stream", EngineFailed, "the GPU cannot hold it"),
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
        monkeypatch.setattr(cuda, "_driver_library", SimpleNamespace)
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
        with pytest.raises(UsageError, match="5 samples at once: .* takes 1 to 4"):
            engine.run_on_device(kernel, 5)


def test_a_plan_for_a_fixed_batch_is_filled_up(bundle, network, gpu) -> None:
    fixed = with_plan(bundle, batch=BatchRange(4, 4, 4))
    images = pictures(3, bundle.manifest.input_size)
    with closing(TensorRtEngine(fixed, fixed.manifest.plans[1])) as engine:
        assert same(engine.run(images), network.run(images))
        assert gpu.calls.count("set_input_shape") == 1

        def kernel(target: DeviceInput) -> None:
            gpu.memory[target.pointer][: images.size] = images.reshape(-1)

        assert same(engine.run_on_device(kernel, 3), network.run(images))


def test_the_bytes_that_are_loaded_are_the_ones_that_were_hashed(bundle, gpu) -> None:
    (bundle.folder / bundle.manifest.plans[0].file).write_bytes(b"another")
    with pytest.raises(BadInput, match="differs from what was built"):
        TensorRtEngine(bundle, bundle.manifest.plans[0])
    assert_nothing_left(gpu)


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


@pytest.mark.parametrize(
    ("differences", "reason"),
    [
        ({"compute_capabilities": ("8.6", "8.9")}, "compute capability 8.6, 8.9, this one has 8.7"),
        ({"graph_sha256": "0" * 64}, "built from another model.fp16.onnx"),
        ({"version": "10.2.0"}, "built by TensorRT 10.2.0, here is 10.3.0"),
        ({"version": "9.9.0", "options": "version-compatible"}, "built by TensorRT 9.9.0"),
        ({"version": "10.16.0", "options": "version-compatible"}, "built by TensorRT 10.16.0"),
    ],
)
def test_a_plan_that_does_not_fit_is_passed_over_with_the_reason(bundle, network, gpu, differences, reason) -> None:
    manifest = bundle.manifest
    other = Bundle(bundle.folder, replace(manifest, plans=(replace(manifest.plans[0], **differences),)))
    with pytest.raises(MissingDependency, match=f"{reason}.*uflow-export --bundle .*gravel.uflow --trt"):
        open_engine(other, "tensorrt")
    told: list[str] = []
    with closing(open_engine(other, report=told.append)) as engine:
        assert engine.name.startswith("onnxruntime")
        assert same(engine.run(pictures(1, manifest.input_size)), network.run(pictures(1, manifest.input_size)))
    assert len(told) == 2
    assert told[0].startswith("warning: tensorrt is skipped: ")
    assert reason.replace("\\", "") in told[0]
    assert told[1].startswith("engine: onnxruntime ")
    assert_nothing_left(gpu)


def test_among_plans_the_one_that_fits_is_taken(bundle, gpu) -> None:
    fp32 = next(variant for variant in bundle.manifest.variants if variant.precision == "fp32")
    many = with_plan(bundle, compute_capabilities=("12.0",))
    many = with_plan(many, graph=fp32.file, graph_sha256=bundle.manifest.files[fp32.file])
    many = with_plan(many, library="tensorrt_rtx", version="1.7.0")
    many = Bundle(many.folder, replace(many.manifest, plans=many.manifest.plans[::-1]))
    rtx, exact, other, first = many.manifest.plans
    assert find_plan(many, ["fp16", "fp32"], "8.7") == first  # TensorRT-RTX there is another version, or none
    assert find_plan(many, ["fp32"], "8.7") == exact
    assert find_plan(many, ["fp32", "fp16"], "8.7") == exact
    assert find_plan(many, ["fp16"], "12.0") == dataclasses.replace(other)
    with pytest.raises(MissingDependency, match="for GPUs of compute capability 8.7, this one has 5.3"):
        find_plan(many, ["fp16"], "5.3")
    assert rtx.library == "tensorrt_rtx"


def test_a_version_compatible_plan_runs_later_and_may_bring_its_code(bundle, network, gpu, monkeypatch) -> None:
    compatible = with_plan(bundle, version="10.0.1", options="workspace 1 MiB, version-compatible")
    plan = compatible.manifest.plans[1]
    assert find_plan(Bundle(bundle.folder, replace(compatible.manifest, plans=(plan,))), ["fp16"], "8.7") == plan
    with closing(TensorRtEngine(compatible, plan)) as engine:
        assert engine._plan._runtime.engine_host_code_allowed is True
    with closing(TensorRtEngine(compatible, compatible.manifest.plans[0])) as engine:
        assert engine._plan._runtime.engine_host_code_allowed is False


def test_auto_takes_the_plan_and_says_so(bundle, gpu) -> None:
    told: list[str] = []
    with closing(open_engine(bundle, report=told.append)) as engine:
        assert isinstance(engine, TensorRtEngine)
    assert told == ["engine: TensorRT 10.3.0, Orin, fp16"]
    gpu.fails = {"enqueue"}
    with closing(open_engine(bundle, report=told.append)) as engine:
        assert engine.name.startswith("onnxruntime")
    assert "tensorrt is skipped: TensorRT 10.3.0, Orin, fp16: the run failed (out of workspace)" in told[1]
    assert_nothing_left(gpu)


def test_without_a_gpu_or_pycuda_it_says_what_to_install(bundle, gpu, monkeypatch) -> None:
    cuda.primary_context.cache_clear()

    def no_gpu() -> None:
        raise Error("cuInit failed: no CUDA-capable device is detected")

    monkeypatch.setattr(sys.modules["pycuda.driver"], "init", no_gpu)
    with pytest.raises(MissingDependency, match="no NVIDIA GPU that CUDA can use .cuInit failed"):
        open_engine(bundle, "tensorrt")
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(MissingDependency, match=r"pycuda cannot be loaded .*pip install '.\[trt\]'"):
        open_engine(bundle, "tensorrt")
    told: list[str] = []
    open_engine(bundle, report=told.append).close()
    assert "warning: tensorrt is skipped: pycuda cannot be loaded" in told[0]


def test_without_tensorrt_it_says_what_to_install(bundle, gpu, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingDependency, match=r"TensorRT is not installed.*pip install '.\[trt\]'"):
        open_engine(bundle, "tensorrt")


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

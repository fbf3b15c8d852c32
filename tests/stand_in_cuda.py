"""A stand-in for the GPU, pycuda, libcuda and TensorRT.

It keeps the rules that matter: every call needs the context current in its thread; work on a stream reads and writes
the addresses that it was given; a stream that records runs nothing; freed memory is gone. onnxruntime computes its
networks, so that numbers can be compared. test_tensorrt_attributes.py looks up the attributes of the real TensorRT.
"""

import ctypes
import threading
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np

from uflow_edge.runtime.bundle.folder import MANIFEST, Bundle
from uflow_edge.runtime.bundle.manifest import BatchRange, Plan
from uflow_edge.runtime.bundle.uflow import INPUT_NAME, UFlowManifest
from uflow_edge.runtime.engines import Outputs
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


def with_plan(bundle: Bundle, **differences: object) -> Bundle:
    """Add a plan that the stand-in takes to a bundle on disk.

    Args:
        bundle: is changed.
        differences: of the plan from one for an Orin with TensorRT 10.3.
    """
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


def pictures(count: int, side: int, seed: int = 0) -> Image:
    """Noise, (count, side, side, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def same(found: Outputs, expected: Outputs) -> bool:
    """Whether two engines gave the same outputs, up to rounding."""
    pairs = zip(found, expected, strict=True)
    return all(a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in pairs)


def assert_nothing_left(gpu: Gpu) -> None:
    assert gpu.memory == {}
    assert gpu.alive == set()
    assert gpu.stack == []
    assert gpu.recording is None

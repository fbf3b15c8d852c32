"""The GPU through pycuda: its context, buffers with a copy on the host, and CUDA graphs.

CUDA keeps a stack of current contexts for each thread, and pycuda ends the process when a thread ends while its stack
is not empty. So the context is current only inside a ``with`` block, in the thread that runs the block.

Sources: CUDA Driver API, sections on primary contexts and on graphs; pycuda 2026.1, which does not wrap graphs.
"""

import atexit
import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from uflow_edge.runtime.engines import EngineFailed
from uflow_edge.runtime.errors import MissingDependency, install_command

DRIVER_LIBRARY = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
_CAPTURE_MODE_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_…: work of other threads is no error


class CudaContext:
    """The primary context of the first GPU. CUDA's runtime uses the same context, and so does TensorRT.

    Attributes:
        driver: the module ``pycuda.driver``.
        compute_capability: such as ``8.7``.

    Raises:
        MissingDependency: pycuda, the driver or a GPU is missing.
    """

    def __init__(self) -> None:
        try:
            driver: Any = import_module("pycuda.driver")
        except (ImportError, OSError) as error:  # OSError: a library that it loads is missing
            raise MissingDependency(
                f"pycuda cannot be loaded ({error}). Install it with: {install_command('trt')}; "
                "see docs/engines.md for its requirements"
            ) from error
        self.driver = driver
        try:
            driver.init()
            device = driver.Device(0)
            self._context = device.retain_primary_context()
        except driver.Error as error:
            raise MissingDependency(f"no NVIDIA GPU that CUDA can use ({error}); see nvidia-smi") from error
        self.gpu: str = device.name()
        major, minor = device.compute_capability()
        self.compute_capability = f"{major}.{minor}"

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current in this thread during the block; blocks may be nested."""
        self._context.push()
        try:
            yield
        finally:
            self.driver.Context.pop()

    def release(self) -> None:
        """Release the context; objects that were made in it may not be used afterwards."""
        self._context.detach()


@cache
def primary_context() -> CudaContext:
    """The one `CudaContext` of this process, kept until the process ends.

    TensorRT keeps the primary context just as long, so an earlier release would free nothing.

    Raises:
        MissingDependency: pycuda, the driver or a GPU is missing.
    """
    context = CudaContext()
    atexit.register(context.release)  # pycuda's destructor calls a function that fails at exit, and prints the error
    return context


class TwinBuffer:
    """An array on the GPU and its page-locked copy on the host. Make, use and free it while the context is current.

    Attributes:
        host: (N, …) array to read or write; every run overwrites it.
        pointer: address on the GPU, valid until `free`.
    """

    def __init__(self, driver: Any, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._driver = driver
        self.host: NDArray[Any] = driver.pagelocked_empty(shape, dtype)
        self._device = driver.mem_alloc(self.host.nbytes)
        self.pointer = int(self._device)

    def upload(self, count: int, stream: Any) -> None:
        """Start to copy the first ``count`` rows to the GPU."""
        self._driver.memcpy_htod_async(self._device, self.host[:count], stream)

    def download(self, count: int, stream: Any) -> None:
        """Start to copy the first ``count`` rows from the GPU."""
        self._driver.memcpy_dtoh_async(self.host[:count], self._device, stream)

    def free(self) -> None:
        """Free both arrays; no work on a stream may still use them."""
        self._device.free()
        self.host = np.empty(0, self.host.dtype)  # the last reference to the page-locked memory frees it


class StreamTimer:
    """Times work on a stream by the GPU's own clock. Make and use it while the context is current."""

    def __init__(self, driver: Any) -> None:
        self._start, self._end = driver.Event(), driver.Event()

    @contextmanager
    def timing(self, stream: Any) -> Iterator[None]:
        """Time the work that the block puts on the stream; the stream may not be recording a graph."""
        self._start.record(stream)
        yield
        self._end.record(stream)

    def milliseconds(self) -> float:
        """Duration of the timed work; synchronise the stream first."""
        return float(self._end.time_since(self._start))


class CudaGraph:
    """Work on a stream, recorded once; a launch costs one call instead of one per kernel.

    Args:
        stream: handle of the stream to record on; nothing runs while recording.

    Raises:
        EngineFailed: the driver cannot record graphs, or this work cannot be recorded.
    """

    def __init__(self, stream: int, enqueue: Callable[[], None]) -> None:
        self._executable = ctypes.c_void_p()
        graph = ctypes.c_void_p()
        handle = ctypes.c_void_p(stream)
        _call("cuStreamBeginCapture_v2", handle, ctypes.c_int(_CAPTURE_MODE_THREAD_LOCAL))
        try:
            enqueue()
        except BaseException:
            # The stream must stop recording; errors of this call do not matter.
            _call("cuStreamEndCapture", handle, ctypes.byref(graph), check=False)
            _destroy_graph(graph)
            raise
        try:
            _call("cuStreamEndCapture", handle, ctypes.byref(graph))
            _call("cuGraphInstantiateWithFlags", ctypes.byref(self._executable), graph, ctypes.c_ulonglong(0))
        finally:
            _destroy_graph(graph)

    def launch(self, stream: int) -> None:
        _call("cuGraphLaunch", self._executable, ctypes.c_void_p(stream))

    def close(self) -> None:
        """Free the recording; it may not be running."""
        if self._executable:
            _call("cuGraphExecDestroy", self._executable, check=False)
            self._executable = ctypes.c_void_p()


def _destroy_graph(graph: ctypes.c_void_p) -> None:
    if graph:
        _call("cuGraphDestroy", graph, check=False)


def _call(name: str, *arguments: Any, check: bool = True) -> None:
    try:
        result = getattr(driver_library(), name)(*arguments)
    except (OSError, AttributeError) as error:
        raise EngineFailed(f"this CUDA driver has no {name} ({error})") from error
    if check and result != 0:
        raise EngineFailed(f"{name} returned CUDA error {result}")


@cache
def driver_library() -> ctypes.CDLL:
    """NVIDIA's CUDA driver.

    Raises:
        OSError: it is not installed.
    """
    return ctypes.CDLL(DRIVER_LIBRARY)

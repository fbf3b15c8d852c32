"""Runs a TensorRT plan of the bundle natively, without needless copies, allocations or kernel launches.

Buffers for the largest batch are made once, on the GPU and page-locked on the host, and their addresses are set in
TensorRT once. Each engine has its own stream. From the second run of a batch size on, inference and the copies back are
one CUDA graph; if it cannot be recorded, they are launched one by one. With a stopwatch the graph ends before the
copies, so that events can time both parts.

The engine may be made in one thread and run in another: every method makes the CUDA context current while it works
(see cuda.py). Like all engines it is for one thread at a time.

The library's object is held in a variable named after its class (``context``), see tensorrt_plan.py.

Sources: NVIDIA's documentation of the TensorRT Python API (10.3, 10.16, 11) and of TensorRT-RTX 1.7.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from traceback import clear_frames
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.manifest import Manifest, Plan
from uflow_edge.runtime.engines import EngineFailed, Outputs
from uflow_edge.runtime.engines.batches import run_in_batches
from uflow_edge.runtime.engines.cuda import CudaGraph, StreamTimer, TwinBuffer, primary_context
from uflow_edge.runtime.engines.plans import precision_of
from uflow_edge.runtime.engines.stopwatch import Stopwatch, Transfers
from uflow_edge.runtime.engines.tensorrt_library import TITLES, load_library
from uflow_edge.runtime.engines.tensorrt_plan import LoadedPlan, records_graphs_itself
from uflow_edge.runtime.errors import UsageError
from uflow_edge.runtime.numeric import FloatMap


@dataclass(frozen=True, slots=True)
class DeviceInput:
    """Memory into which a preprocessor on the GPU writes the model's first input.

    Attributes:
        pointer: address on the GPU of a contiguous array; uint8 RGB for a U-Flow.
        shape: (N, …) of the array; (N, S, S, 3) for a U-Flow.
        stream: ``pycuda.driver.Stream`` for the kernels (its ``handle`` is the CUstream); do not wait for it.
    """

    pointer: int
    shape: tuple[int, ...]
    stream: Any


@dataclass(frozen=True, slots=True)
class _TimedTransfers:
    """Passes the times of transfers, measured on the GPU, to a stopwatch."""

    stopwatch: Stopwatch
    to_device: StreamTimer
    to_host: StreamTimer

    def record(self) -> None:
        """Record the transfers of a run whose stream is synchronised."""
        self.stopwatch.add(Transfers(self.to_device.milliseconds(), self.to_host.milliseconds()))


class TensorRtEngine:
    """A plan in TensorRT or TensorRT-RTX, on CUDA's first GPU.

    Args:
        stopwatch: records the transfers of each run, timed by CUDA events; None times nothing.

    Attributes:
        cuda: the context, for other work on this GPU: ``with engine.cuda.current():``.

    Raises:
        MissingDependency: pycuda, a GPU or the library is missing.
        BadInput: the plan's file differs from the manifest, or is no engine of this bundle.
        EngineFailed: the library refuses the plan, or the GPU has too little memory for it; the message says why.
    """

    def __init__(self, bundle: Bundle[Manifest], chosen: Plan, stopwatch: Stopwatch | None = None) -> None:
        trt = load_library(chosen.library)
        self.cuda = primary_context()
        self._inputs, self._outputs = bundle.manifest.signature.inputs, bundle.manifest.signature.outputs
        self._batch = chosen.batch
        self._closed = False
        self._stream: Any = None
        self._buffers: dict[str, TwinBuffer] = {}
        self._timed: _TimedTransfers | None = None
        self._graph: CudaGraph | None = None
        self._records = not records_graphs_itself(trt)
        self._count = 0
        self.precision = precision_of(bundle, chosen)
        self.name = f"{TITLES[chosen.library]} {trt.__version__}, {self.cuda.gpu}, {self.precision}"
        cannot_hold = f"{chosen.file}: the GPU cannot load this plan"
        with self._at_work(cannot_hold):
            self._plan = LoadedPlan(trt, bundle, chosen)
        try:
            with self._at_work(cannot_hold):
                self._allocate(stopwatch)
        except BaseException:
            self.close()
            raise

    def run(self, *inputs: NDArray[Any]) -> Outputs:
        return run_in_batches(inputs, self._batch, self._run)

    @property
    def largest_batch(self) -> int:
        """The most samples that `run_on_device` takes at once."""
        return self._batch.maximum

    def run_on_device(self, write: Callable[[DeviceInput], None], count: int = 1) -> Outputs:
        """Run samples that are made on the GPU, so that only the outputs are copied to the host.

        Args:
            write: puts the kernels that write the input on the given stream; called in this thread, with the CUDA
                context current.
            count: N, the number of samples.

        Raises:
            UsageError: there are more samples than the plan takes at once.
        """
        if not 1 <= count <= self.largest_batch:
            raise UsageError(f"{self.name}: expected 1 to {self.largest_batch} samples at once, got {count}")
        first = self._inputs[0]
        target = DeviceInput(self._buffers[first.name].pointer, (count, *first.shape), self._stream)
        outputs = self._execute(max(count, self._batch.minimum), lambda: write(target))
        return tuple(output[:count] for output in outputs)

    def close(self) -> None:
        """Wait for the stream, then free all memory on the GPU."""
        if not self._closed:
            self._closed = True
            with self.cuda.current():
                self._release()

    def _run(self, inputs: Sequence[NDArray[Any]]) -> list[FloatMap]:
        count = len(inputs[0])

        def upload() -> None:
            for tensor, values in zip(self._inputs, inputs, strict=True):
                buffer = self._buffers[tensor.name]
                buffer.host[:count] = values
                buffer.upload(count, self._stream)

        return self._execute(count, upload)

    def _execute(self, count: int, write_input: Callable[[], None]) -> list[FloatMap]:
        with self._at_work(f"{self.name}: the run failed"):
            if self._timed is None:
                write_input()
                self._launch(count)
            else:
                with self._timed.to_device.timing(self._stream):
                    write_input()
                self._launch(count)
                with self._timed.to_host.timing(self._stream):
                    self._download(count)
            self._stream.synchronize()
            if self._timed is not None:
                self._timed.record()
            # Copied: the next run writes the same buffers.
            return [np.array(self._buffers[tensor.name].host[:count]) for tensor in self._outputs]

    @contextmanager
    def _at_work(self, failure: str) -> Iterator[None]:
        """Keep the CUDA context current, and raise errors of CUDA as EngineFailed with this text."""
        with self.cuda.current():
            try:
                yield
            except BaseException as error:
                # Otherwise the objects in its stack frames would stay on the GPU for as long as the error is kept.
                clear_frames(error.__traceback__)
                if isinstance(error, self.cuda.driver.Error):
                    raise EngineFailed(f"{failure} ({error})") from error
                raise

    def _launch(self, count: int) -> None:
        """Put inference onto the stream, and the copies back too unless they are timed."""
        if count != self._count:
            self._set_count(count)  # TensorRT does postponed work in the next run, so that run is not recorded
        elif self._graph is None and self._records:
            with suppress(EngineFailed, self.cuda.driver.Error):
                self._graph = CudaGraph(self._stream.handle, lambda: self._enqueue(count))
            self._records = self._graph is not None  # a failed recording is not tried again
        if self._graph is not None:
            self._graph.launch(self._stream.handle)
        else:
            self._enqueue(count)

    def _set_count(self, count: int) -> None:
        # A graph holds for one input size, and must be freed before its context changes.
        self._forget_graph()
        self._count = 0
        context = self._plan.context
        for tensor in self._inputs:
            if not context.set_input_shape(tensor.name, (count, *tensor.shape)):
                raise EngineFailed(f"{self.name} refuses a batch of {count} samples; its plan is for {self._batch}")
        self._count = count

    def _enqueue(self, count: int) -> None:
        context = self._plan.context
        if not context.execute_async_v3(self._stream.handle):
            raise EngineFailed(f"{self.name}: the run failed ({self._plan.recent_errors()})")
        if self._timed is None:
            self._download(count)

    def _download(self, count: int) -> None:
        for tensor in self._outputs:
            self._buffers[tensor.name].download(count, self._stream)

    def _allocate(self, stopwatch: Stopwatch | None) -> None:
        driver, context, largest = self.cuda.driver, self._plan.context, self._batch.maximum
        self._stream = driver.Stream()
        if stopwatch is not None:
            self._timed = _TimedTransfers(stopwatch, StreamTimer(driver), StreamTimer(driver))
        for tensor in (*self._inputs, *self._outputs):
            self._buffers[tensor.name] = TwinBuffer(driver, (largest, *tensor.shape), tensor.dtype)
            if not context.set_tensor_address(tensor.name, self._buffers[tensor.name].pointer):
                raise EngineFailed(f"{self.name} refuses the buffer for {tensor.name!r}")

    def _forget_graph(self) -> None:
        if self._graph is not None:
            self._graph.close()
            self._graph = None

    def _release(self) -> None:
        """Free each object before the ones that it uses. The context must be current."""
        if self._stream is not None:
            with suppress(self.cuda.driver.Error):  # a failed run has already raised it
                self._stream.synchronize()
        self._forget_graph()
        self._plan.release()
        for buffer in self._buffers.values():
            with suppress(self.cuda.driver.Error):
                buffer.free()
        self._buffers = {}
        self._timed = None
        self._stream = None

"""Resize raw camera frames on an NVIDIA GPU, straight into an engine's input buffer.

This module checks frames, keeps the filters in device memory, and launches the kernel of `gpu_resize.cu`.
Only `CudaPreprocessor` needs pycuda and a GPU. With the native TensorRT engine:

    preprocessor = CudaPreprocessor(engine.cuda, side)
    engine.run_on_device(lambda target: preprocessor.run(frame_bgr, target.pointer, target.stream))
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

import numpy as np

from uflow_edge.runtime.engines.raw_frames import PIXEL_FORMATS, PixelFormat, RawFrame, check_box, picture_size
from uflow_edge.runtime.errors import MissingDependency, require
from uflow_edge.runtime.numeric import Image, Size
from uflow_edge.runtime.resize.cpu import Box, Fit, inspected_box
from uflow_edge.runtime.resize.pillow_filter import Axis, axis_filter, filtered_axes

if TYPE_CHECKING:
    from uflow_edge.runtime.engines.cuda import CudaContext

AXES: Final[tuple[Axis, ...]] = get_args(Axis)
"""The order must match the numbers in gpu_resize.cu."""

KERNEL: Final = "resample"
PARAMETERS: Final = "PiiiiiiPPPPii"
"""Types of its parameters, named as in the struct module: P, a pointer; i, an int."""

BLOCK: Final = (32, 8, 1)
"""Threads per block; neighbours lie along a row, so that they read and write neighbouring bytes."""

SOURCE: Final = Path(__file__).with_name("gpu_resize.cu")
_MOST_FILTERS: Final = 32


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch of the kernel: the grid, in blocks of `BLOCK` threads, and the arguments, as in `PARAMETERS`."""

    grid: tuple[int, int, int]
    arguments: tuple[int, ...]


def packed_filter(length: int, side: int) -> Image:
    """An `AxisFilter` as one array: the bytes of first, count and weights, one after the other."""
    chosen = axis_filter(length, side)
    return np.vstack([chosen.first, chosen.count, chosen.weights]).view(np.uint8).ravel()


def launches(
    frame: RawFrame, box: Box, side: int, across: int, down: int, between: int, picture: int
) -> tuple[Launch, ...]:
    """The launches that make one picture: two, or one if the box already has the picture's width or height.

    Args:
        box: the part of the frame to resize; inside it, with at least one pixel.
        side: S in pixels.
        across: address of the `packed_filter` from the box's width to S.
        down: address of the `packed_filter` from its height to S.
        between: address of scratch memory, `scratch_bytes` long.
        picture: address of the result, (S, S, 3) uint8 RGB.
    """
    left, top, right, bottom = box
    height, width = bottom - top, right - left
    axes = filtered_axes((height, width), side) or ("rows",)  # one identity filter, which converts the pixels
    made = []
    for axis in axes:
        height, width = (height, side) if axis == "rows" else (side, width)
        target = RawFrame(picture if axis == axes[-1] else between, 3 * width, (height, width), "rgb")
        made.append(_launch(frame, (left, top), axis, across if axis == "rows" else down, side, target))
        frame, left, top = target, 0, 0
    return tuple(made)


def scratch_bytes(box: Box, side: int) -> int:
    """Bytes of scratch memory that `launches` needs, whichever axis comes first."""
    left, top, right, bottom = box
    return max(right - left, bottom - top) * side * 3


def _launch(frame: RawFrame, corner: tuple[int, int], axis: Axis, packed: int, side: int, target: RawFrame) -> Launch:
    height, width = target.size
    array = side * np.dtype(np.int32).itemsize
    source = (frame.pointer, frame.pitch, frame.size[0], PIXEL_FORMATS.index(frame.pixel_format), *corner)
    weights = (AXES.index(axis), packed, packed + array, packed + 2 * array)
    grid = (-(-width // BLOCK[0]), -(-height // BLOCK[1]), 1)
    return Launch(grid, (*source, *weights, target.pointer, width, height))


class CudaPreprocessor:
    """Resizes raw frames on the GPU. Two threads may not use it at once; frames may differ in size.

    Args:
        cuda: the context; every method makes it current while it works.
        side: S in pixels.
        fit: the part of a frame that is inspected if a call gives no boxes.
        compiled: gpu_resize.cu as a cubin or PTX file; by default it is compiled here, and pycuda caches the result.

    Raises:
        MissingDependency: there is no CUDA compiler, or it cannot compile for this GPU.
    """

    def __init__(
        self,
        cuda: "CudaContext",
        side: int,
        pixel_format: PixelFormat = "bgr",
        fit: Fit = "squash",
        *,
        compiled: Path | None = None,
    ) -> None:
        self._cuda = cuda
        self._side = side
        self._format: PixelFormat = pixel_format
        self._fit: Fit = fit
        self._filters: OrderedDict[int, Any] = OrderedDict()  # packed, on the device, by input length
        self._staged = np.empty(0, np.uint8)  # page-locked: a copy from other memory would block this thread
        self._frame = _Scratch(cuda.driver)
        self._between = _Scratch(cuda.driver)
        with cuda.current():
            module = _module(cuda.driver, compiled)
            self._kernel = module.get_function(KERNEL)
            self._kernel.prepare(PARAMETERS)
            self._copied = cuda.driver.Event(cuda.driver.event_flags.DISABLE_TIMING)

    def run(self, frame: Image, output_pointer: int, stream: Any, boxes: Sequence[Box] | None = None) -> None:
        """Put the upload of a frame and its resize onto a stream, without waiting for them.

        Args:
            frame: as for `picture_size`; the caller may change it afterwards.
            output_pointer: device address of (N, S, S, 3) uint8 RGB, one picture per box.
            stream: ``pycuda.driver.Stream``; use the same one until its work is done.
            boxes: the parts of the frame to resize; by default, the one that ``fit`` chooses.

        Raises:
            BadInput: the frame has the wrong shape or type, or a box is not inside it.
        """
        size = picture_size(frame, self._format)
        chosen = self._chosen(boxes, size)
        rows = frame.reshape(frame.shape[0], -1)
        with self._cuda.current():
            raw = RawFrame(self._upload(rows, stream), rows.shape[1], size, self._format)
            self._resize(raw, chosen, output_pointer, stream)

    def run_on_device(
        self, frame: RawFrame, output_pointer: int, stream: Any, boxes: Sequence[Box] | None = None
    ) -> None:
        """Like `run`, for a frame that is already in device memory, such as that of a hardware decoder."""
        chosen = self._chosen(boxes, frame.size)
        with self._cuda.current():
            self._resize(frame, chosen, output_pointer, stream)

    def close(self) -> None:
        """Wait for the GPU, then free its memory."""
        with self._cuda.current():
            self._cuda.driver.Context.synchronize()
            while self._filters:
                self._filters.popitem()[1].free()
            self._frame.free()
            self._between.free()
            self._staged = np.empty(0, np.uint8)

    def _chosen(self, boxes: Sequence[Box] | None, size: Size) -> tuple[Box, ...]:
        chosen = (inspected_box(size, self._fit),) if boxes is None else tuple(boxes)
        for box in chosen:
            check_box(box, size)
        return chosen

    def _upload(self, rows: Image, stream: Any) -> int:
        """Start to copy a frame; returns its address on the device."""
        self._copied.synchronize()  # the last copy may still read the staged bytes
        if rows.size > self._staged.size:
            self._staged = self._cuda.driver.pagelocked_empty(rows.size, np.uint8)
        staged = self._staged[: rows.size]
        np.copyto(staged.reshape(rows.shape), rows)
        pointer = self._frame.at_least(rows.size)
        self._cuda.driver.memcpy_htod_async(pointer, staged, stream)
        self._copied.record(stream)
        return pointer

    def _resize(self, frame: RawFrame, boxes: tuple[Box, ...], output_pointer: int, stream: Any) -> None:
        side = self._side
        for number, box in enumerate(boxes):
            left, top, right, bottom = box
            across, down = self._filter(right - left), self._filter(bottom - top)
            between = self._between.at_least(scratch_bytes(box, side))
            picture = output_pointer + number * side * side * 3
            for launch in launches(frame, box, side, across, down, between, picture):
                self._kernel.prepared_async_call(launch.grid, BLOCK, stream, *launch.arguments)

    def _filter(self, length: int) -> int:
        """Address of a packed filter on the device. Their number is bounded, whatever the sizes of frames."""
        driver = self._cuda.driver
        if length not in self._filters:
            driver.Context.synchronize()
            while len(self._filters) >= _MOST_FILTERS:
                self._filters.popitem(last=False)[1].free()
            packed = packed_filter(length, self._side)
            allocation = driver.mem_alloc(packed.nbytes)
            driver.memcpy_htod(allocation, packed)
            driver.Context.synchronize()  # a copy from pageable memory may return before it is complete
            self._filters[length] = allocation
        self._filters.move_to_end(length)
        return int(self._filters[length])


class _Scratch:
    """Device memory that grows to the largest requested size."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._allocation: Any = None
        self._size = 0

    def at_least(self, size: int) -> int:
        """Address of at least ``size`` bytes; growing loses their content."""
        if size > self._size:
            self._driver.Context.synchronize()
            self.free()
            self._allocation, self._size = self._driver.mem_alloc(size), size
        return int(self._allocation)

    def free(self) -> None:
        """Free the memory; no work may still use it."""
        if self._allocation is not None:
            self._allocation.free()
        self._allocation, self._size = None, 0


def _module(driver: Any, compiled: Path | None) -> Any:
    if compiled is not None:
        return driver.module_from_file(str(compiled))
    compiler = require("pycuda.compiler", "trt")
    try:
        return compiler.SourceModule(SOURCE.read_text(encoding="utf-8"), no_extern_c=True)
    except (OSError, driver.CompileError) as error:
        raise MissingDependency(
            f"{SOURCE.name} cannot be compiled for this GPU ({error}). Put a CUDA compiler (nvcc) that supports it "
            "on the PATH, or let the CPU resize"
        ) from error

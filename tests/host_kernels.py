"""gpu_resize.cu compiled for the host, frames to try it on, and a stand-in for the device that runs it."""

import ctypes
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace

import cv2
import numpy as np
from PIL import Image
from skimage import data

from uflow_edge.runtime.engines.gpu_resize import (
    KERNEL,
    PARAMETERS,
)

PHOTOGRAPHS = [data.astronaut, data.cat, data.brick, data.gravel]
STRICT = ["-std=c++14", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
TYPES = {"P": ctypes.c_void_p, "i": ctypes.c_int}


def by_pillow(rgb, side, box=None) -> np.ndarray:
    left, top, right, bottom = box or (0, 0, rgb.shape[1], rgb.shape[0])
    part = Image.fromarray(np.ascontiguousarray(rgb[top:bottom, left:right]))
    return np.asarray(part.resize((side, side), Image.Resampling.BILINEAR))


def as_rgb(photograph: np.ndarray) -> np.ndarray:
    return photograph if photograph.ndim == 3 else np.repeat(photograph[:, :, np.newaxis], 3, axis=2)


def in_format(rgb: np.ndarray, pixel_format: str) -> tuple[np.ndarray, np.ndarray]:
    """A raw frame made from a picture, and the RGB that Pillow or OpenCV reads from it."""
    if pixel_format == "rgb":
        return np.ascontiguousarray(rgb), rgb
    if pixel_format == "bgr":
        return np.ascontiguousarray(rgb[:, :, ::-1]), rgb
    if pixel_format == "gray":
        return np.ascontiguousarray(rgb[:, :, 1]), np.repeat(rgb[:, :, 1:2], 3, axis=2)
    height, width = rgb.shape[0] // 2 * 2, rgb.shape[1] // 2 * 2
    planes = cv2.cvtColor(np.ascontiguousarray(rgb[:height, :width]), cv2.COLOR_RGB2YUV_I420)
    luma, chroma = planes[:height], planes[height:].reshape(2, height // 2, width // 2)
    if pixel_format == "nv12":
        frame = np.vstack([luma, chroma.transpose(1, 2, 0).reshape(height // 2, width)])
        return frame, cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_NV12)
    frame = np.empty((height, width, 2), np.uint8)
    frame[:, :, 0] = luma
    frame[:, :, 1] = np.repeat(chroma.transpose(1, 2, 0).reshape(height // 2, width), 2, axis=0)
    return frame, cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_YUYV)


def assert_same(found: np.ndarray, expected: np.ndarray, pixel_format: str) -> None:
    """Equal; for YUV within the grey level by which a vectorised conversion may differ."""
    if pixel_format in ("yuyv", "nv12"):
        assert np.abs(found.astype(int) - expected).max() <= 1
    else:
        np.testing.assert_array_equal(found, expected)


class Memory:
    """An allocation of the stand-in's device."""

    def __init__(self, device: "Device", size: int) -> None:
        self.array = np.full(size, 0xAA, np.uint8)
        self.device = device
        device.memory.append(self)

    def __int__(self) -> int:
        return self.array.ctypes.data

    def free(self) -> None:
        assert not self.device.stream.work, "freed while in use"
        self.device.memory.remove(self)


class Stream:
    """Does nothing before somebody waits, as late as a real one may."""

    def __init__(self) -> None:
        self.work: deque[Callable[[], None]] = deque()

    def synchronize(self) -> None:
        while self.work:
            self.work.popleft()()


class Event:
    """Waiting for one does what the stream was given before it, and no more."""

    def __init__(self, flags: int) -> None:
        self.reached = True

    def record(self, stream: Stream) -> None:
        self.reached, self.stream = False, stream
        stream.work.append(lambda: setattr(self, "reached", True))

    def synchronize(self) -> None:
        while not self.reached:
            self.stream.work.popleft()()


class Device:
    """pycuda on a machine without a GPU: memory of the host, and the kernels compiled for it."""

    def __init__(self, host: Callable[..., None]) -> None:
        self.host, self.stream = host, Stream()
        self.memory: list[Memory] = []
        self.launched = 0
        self.driver = SimpleNamespace(
            Context=SimpleNamespace(synchronize=self.stream.synchronize),
            CompileError=ZeroDivisionError,
            Event=Event,
            event_flags=SimpleNamespace(DISABLE_TIMING=2),
            mem_alloc=lambda size: Memory(self, size),
            memcpy_htod=self.copy,
            memcpy_htod_async=self.copy_later,
            module_from_file=lambda path: SimpleNamespace(get_function=self.function),
            pagelocked_empty=self.page_locked,
        )
        self.locked: list[int] = []

    def current(self):
        return nullcontext()

    def page_locked(self, size: int, dtype: type) -> np.ndarray:
        array = np.empty(size, dtype)
        self.locked.append(array.ctypes.data)
        return array

    def copy(self, target, source: np.ndarray) -> None:
        ctypes.memmove(int(target), source.ctypes.data, source.nbytes)

    def copy_later(self, target, source: np.ndarray, stream: Stream) -> None:
        assert stream is self.stream
        assert source.ctypes.data in self.locked, "only page-locked memory can be copied later"
        stream.work.append(lambda: self.copy(target, source))

    def function(self, name: str) -> SimpleNamespace:
        assert name == KERNEL

        def call(grid, block, stream, *arguments) -> None:
            pointers = [value for value, kind in zip(arguments, PARAMETERS, strict=True) if kind == "P"]

            def work() -> None:
                for pointer in pointers:
                    assert any(0 <= pointer - int(memory) < memory.array.size for memory in self.memory)
                self.host(*arguments)

            self.launched += 1
            stream.work.append(work)

        return SimpleNamespace(prepare=lambda parameters: None, prepared_async_call=call)

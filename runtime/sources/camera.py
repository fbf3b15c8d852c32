"""A camera of any kind: opens the device, keeps its newest frame, numbers the frames, and notices when it is lost."""

import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from uflow_edge.runtime.errors import Unavailable
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.sources.source import Frame, SourceLost, numbered

_STOP_CHECK_S: Final = 0.1
_RELEASE_S: Final = 2.0


class Device(Protocol):
    """An open camera."""

    def read(self) -> tuple[Image, float] | None:
        """Wait for the next frame.

        Returns:
            An array of its own, (H, W, 3) uint8, BGR, and its capture time in seconds since the epoch; None if the
            device is gone or has ended.

        Raises:
            TimeoutError: no frame came in time; call again.
        """

    def release(self) -> None:
        """Close the device."""


class Camera:
    """A source that opens a device, again if it was lost.

    A thread reads every frame from the device and keeps the newest. So frames never queue up in drivers and network
    buffers, and a slow reader never gets an old frame.
    """

    live: Final = True

    def __init__(
        self, name: str, connect: Callable[[], Device], *, silence_s: float = 10.0, drained: bool = True
    ) -> None:
        """Prepare the camera without opening it.

        Args:
            name: name for people, and the frames' source.
            connect: opens the device, or raises Unavailable.
            silence_s: the camera counts as lost after so many seconds without a frame.
            drained: whether to keep only the newest frame; False delivers every frame, each read on request.
        """
        self.name: Final = name
        self._connect = connect
        self._silence_s = silence_s
        self._drained = drained
        self._seen = False

    def frames(self, stop: threading.Event, first: int = 0) -> Iterator[Frame]:
        """Frames until ``stop``; a gap in their numbers stands for frames that a newer one replaced.

        Raises:
            SourceLost: the camera delivered frames once, but no longer does.
            Unavailable: the camera has never delivered a frame: it is not plugged in, or its name has a typo.
        """
        self._seen = self._seen or first > 0
        captures, index = self._captures(stop), first - 1
        try:
            for capture in captures:
                self._seen, index = True, first + capture.number
                yield Frame(capture.image_bgr, index, self.name, numbered(index), capture.captured)
        finally:
            captures.close()
        if stop.is_set():
            return
        if index < first:
            raise (SourceLost if self._seen else Unavailable)(f"{self.name} can be opened, but delivers no frames")
        raise SourceLost(f"{self.name} stopped delivering after {index + 1 - first} frames")

    def _captures(self, stop: threading.Event) -> "Generator[_CapturedImage, None, None]":
        try:
            device = self._connect()
        except Unavailable as error:
            if not self._seen:
                raise
            raise SourceLost(str(error)) from error
        return _newest(device, stop, self._silence_s) if self._drained else _every(device, stop)


@dataclass(frozen=True, slots=True)
class _CapturedImage:
    image_bgr: Image
    number: int
    captured: float


def _every(device: Device, stop: threading.Event) -> Generator[_CapturedImage, None, None]:
    try:
        number = 0
        while not stop.is_set() and (read := device.read()) is not None:
            yield _CapturedImage(read[0], number, read[1])
            number += 1
    finally:
        device.release()


def _newest(device: Device, stop: threading.Event, silence_s: float) -> Generator[_CapturedImage, None, None]:
    drain = _Drain(device)
    try:
        while (capture := drain.take(stop, silence_s)) is not None:
            yield capture
    finally:
        drain.close()


class _Drain:
    """The thread that reads a device and keeps its newest frame; it releases the device, never during a read."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._changed = threading.Condition()
        self._newest: _CapturedImage | None = None
        self._over = False
        self._error: BaseException | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)
        self._thread.start()

    def take(self, stop: threading.Event, silence_s: float) -> _CapturedImage | None:
        """Wait for a new frame; None on ``stop``, at the end, and after ``silence_s`` seconds without a frame."""
        deadline = time.monotonic() + silence_s
        with self._changed:
            while self._newest is None and not self._over and not stop.is_set():
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(min(left, _STOP_CHECK_S))
            if self._newest is None and self._error is not None:
                raise self._error
            capture, self._newest = self._newest, None
            return None if stop.is_set() else capture

    def close(self) -> None:
        """End the thread; if it hangs in the driver, it is abandoned and releases the device when it returns."""
        self._closing.set()
        self._thread.join(_RELEASE_S)

    def _run(self) -> None:
        try:
            try:
                self._read_all()
            finally:
                self._device.release()
        except BaseException as error:  # raised again by take()
            self._error = error
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _read_all(self) -> None:
        number = 0
        while not self._closing.is_set():
            try:
                read = self._device.read()
            except TimeoutError:
                continue
            if read is None:
                return
            with self._changed:
                self._newest = _CapturedImage(read[0], number, read[1])
                self._changed.notify_all()
            number += 1

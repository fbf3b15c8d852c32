"""A camera of any kind: opened, drained by a thread of its own, numbered, and missed when it goes away."""

import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from uflow_edge.runtime.errors import MissingDependency
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.sources.source import Frame, SourceLost, numbered

_STOP_CHECK_S: Final = 0.1
_RELEASE_S: Final = 2.0


class Device(Protocol):
    """An open camera."""

    def read(self) -> tuple[Image, float] | None:
        """Wait for the next frame.

        Returns:
            (H, W, 3) uint8, BGR, nobody else's; and when it was captured, seconds since the epoch. None when the
            device is gone or has ended.

        Raises:
            TimeoutError: nothing came for a while; ask again.
        """

    def release(self) -> None:
        """Give the device back."""


class Camera:
    """A source over a device that can be opened again and again.

    A thread reads every frame the device has and keeps the newest, so frames cannot queue up in drivers and network
    buffers, however slow the reader is: what it takes is never older than one frame.
    """

    live: Final = True

    def __init__(
        self, name: str, connect: Callable[[], Device], *, silence_s: float = 10.0, drained: bool = True
    ) -> None:
        """Nothing is opened yet.

        Args:
            name: for people, and as the frames' source.
            connect: opens the device, or raises MissingDependency.
            silence_s: seconds without a frame after which the camera counts as lost.
            drained: False hands out every frame, and reads the next one only when it is asked for.
        """
        self.name: Final = name
        self._connect = connect
        self._silence_s = silence_s
        self._drained = drained
        self._seen = False

    def frames(self, stop: threading.Event, first: int = 0) -> Iterator[Frame]:
        """Frames until ``stop``; gaps in their numbers are frames that were overtaken.

        Raises:
            SourceLost: it delivered once, and does not any more.
            MissingDependency: it never did: a camera that nobody plugged in, or a slip of the pen.
        """
        self._seen = self._seen or first > 0
        shots, index = self._shots(stop), first - 1
        try:
            for shot in shots:
                self._seen, index = True, first + shot.number
                yield Frame(shot.image_bgr, index, self.name, numbered(index), shot.captured)
        finally:
            shots.close()
        if stop.is_set():
            return
        if index < first:
            raise self._missing(f"{self.name} can be opened, but delivers no frames")
        raise SourceLost(f"{self.name} stopped delivering after {index + 1 - first} frames")

    def _shots(self, stop: threading.Event) -> "Generator[_Shot, None, None]":
        try:
            device = self._connect()
        except MissingDependency as error:
            raise self._missing(str(error)) from error
        return _newest_shots(device, stop, self._silence_s) if self._drained else _every_shot(device, stop)

    def _missing(self, message: str) -> SourceLost | MissingDependency:
        return SourceLost(message) if self._seen else MissingDependency(message)


@dataclass(frozen=True, slots=True)
class _Shot:
    image_bgr: Image
    number: int
    captured: float


def _every_shot(device: Device, stop: threading.Event) -> Generator[_Shot, None, None]:
    try:
        number = 0
        while not stop.is_set() and (read := device.read()) is not None:
            yield _Shot(read[0], number, read[1])
            number += 1
    finally:
        device.release()


def _newest_shots(device: Device, stop: threading.Event, silence_s: float) -> Generator[_Shot, None, None]:
    drain = _Drain(device)
    try:
        while (shot := drain.take(stop, silence_s)) is not None:
            yield shot
    finally:
        drain.close()


class _Drain:
    """The thread that reads a device and keeps its newest frame; it also releases the device, never during a read."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._changed = threading.Condition()
        self._newest: _Shot | None = None
        self._over = False
        self._error: BaseException | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)
        self._thread.start()

    def take(self, stop: threading.Event, silence_s: float) -> _Shot | None:
        """The newest frame not taken yet; None on ``stop``, at the end, and after ``silence_s`` without one."""
        deadline = time.monotonic() + silence_s
        with self._changed:
            while self._newest is None and not self._over and not stop.is_set():
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(min(left, _STOP_CHECK_S))
            if self._newest is None and self._error is not None:
                raise self._error
            shot, self._newest = self._newest, None
            return None if stop.is_set() else shot

    def close(self) -> None:
        """End the thread; one that hangs in its driver is left behind and releases the device when it returns."""
        self._closing.set()
        self._thread.join(_RELEASE_S)

    def _run(self) -> None:
        try:
            try:
                self._read_all()
            finally:
                self._device.release()
        except BaseException as error:  # raised again by whoever waits for frames
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
                self._newest = _Shot(read[0], number, read[1])
                self._changed.notify_all()
            number += 1

"""Devices that hang, fail or pause."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from factories import failing
from uflow_edge.runtime.errors import Unavailable
from uflow_edge.runtime.sources import SourceLost, camera
from uflow_edge.runtime.sources.camera import Camera
from waiting import DEADLINE, NEVER


class Stubborn:
    """A device whose every read does what the test says."""

    def __init__(self, *reads: Callable[[], object]) -> None:
        self.reads, self.released = iter(reads), threading.Event()

    def read(self):
        return next(self.reads, lambda: None)()

    def release(self) -> None:
        self.released.set()


def shot() -> tuple[np.ndarray, float]:
    return np.zeros((2, 2, 3), np.uint8), 1.0


def test_a_device_that_hangs_does_not_hang_us_and_is_released_when_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "_RELEASE_S", 0.01)
    back, stop = threading.Event(), threading.Event()
    device = Stubborn(shot, lambda: back.wait(DEADLINE) and None)
    frames = Camera("camera 0", lambda: device).frames(stop)
    next(frames)
    stop.set()
    assert list(frames) == []
    assert not device.released.is_set(), "releasing a device in the midst of a read would crash"
    back.set()
    assert device.released.wait(DEADLINE)


def test_a_device_that_hangs_counts_as_lost_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "_RELEASE_S", 0.01)
    back = threading.Event()
    for reads, error, message in (
        ([shot, back.wait], SourceLost, "stopped delivering after 1 frames"),
        ([back.wait], Unavailable, "can be opened, but delivers no frames"),
    ):
        with pytest.raises(error, match=message):
            list(Camera("camera 0", lambda reads=reads: Stubborn(*reads), silence_s=0.05).frames(NEVER))
    back.set()


def test_an_error_in_the_reading_thread_is_raised_where_frames_are_awaited() -> None:
    device = Stubborn(shot, failing(ValueError("unheard of")))
    seen = []
    with pytest.raises(ValueError, match="unheard of"):
        seen.extend(Camera("camera 0", lambda: device).frames(NEVER))
    assert device.released.is_set()


def test_a_pause_is_not_the_end() -> None:
    device = Stubborn(failing(TimeoutError()), shot)
    frames = Camera("camera 0", lambda: device).frames(NEVER)
    assert next(frames).index == 0
    frames.close()
    assert device.released.is_set()

"""Things that tests of several modules need, made in one line."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from uflow_edge.runtime.drift import DriftState
from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.nfa import Region
from uflow_edge.runtime.numeric import Image, Size
from uflow_edge.runtime.operating_point import LOG_NFA_0, OperatingPoint
from uflow_edge.runtime.sources import Frame, SourceLost
from uflow_edge.runtime.verdict import Timestamps, Verdict


def result(
    index: int = 0,
    score: float = -3.25,
    *,
    size: Size = (40, 400),
    image_bgr: Image | None = None,
    box: tuple[int, int, int, int] = (30, 10, 30, 10),
    point: OperatingPoint = LOG_NFA_0,
    camera: str = "belt",
    name: str | None = None,
    times: Timestamps | None = None,
    drift: DriftState | None = None,
) -> tuple[Frame, Inspection]:
    """A frame and what was found in it: one region, where the score exceeds the threshold.

    Args:
        index: of the frame.
        score: of the frame.
        size: (height, width) of the frame.
        image_bgr: (height, width, 3) uint8; default: noise of its own for every index.
        box: x, y, width and height of the region.
        point: with the threshold.
        camera: the source of the frame.
        name: of the frame; default: made from its index.
        times: default: all of them now.
        drift: of the camera.
    """
    times = times or Timestamps(*[time.time()] * 5)
    anomalous = score > point.threshold
    x, y, width, height = box
    mask = np.zeros(size, np.bool_)
    mask[y : y + height, x : x + width] = anomalous
    regions = (Region(*box, width * height, -score),) if anomalous else ()
    verdict = Verdict(index, camera, size, anomalous, score, point, regions, mask, times, drift=drift)
    energies = (np.where(mask[::10, ::10], np.float32(80), np.float32(4)),)
    blank = np.zeros((8, 8), np.float32)
    inspection = Inspection(verdict, energies, energies, blank, (0, 0, size[1], size[0]), lambda: blank)
    if image_bgr is None:
        image_bgr = np.random.default_rng(index).integers(0, 256, (*size, 3), np.uint8)
    return Frame(image_bgr, index, camera, Path(name or f"frame-{index:06d}"), times.captured), inspection


def failing(error: BaseException) -> Callable[[], object]:
    """A function that raises this."""

    def read() -> object:
        raise error

    return read


class Numbers:
    """A source of small frames whose brightness is their number."""

    def __init__(
        self, count: int = 10, *, live: bool = False, name: str = "numbers", loses: tuple[int, ...] = ()
    ) -> None:
        self.count, self.live, self.name, self.loses = count, live, name, list(loses)
        self.opened: list[int] = []
        self.released = 0

    def frames(self, stop: threading.Event, first: int = 0) -> Iterator[Frame]:
        self.opened.append(first)
        try:
            for i in range(first, self.count):
                if stop.is_set():
                    return
                if self.loses and i == self.loses[0]:
                    self.loses.pop(0)
                    raise SourceLost(f"{self.name} is gone")
                yield Frame(np.full((8, 8, 3), i % 256, np.uint8), i, self.name, Path(f"{i}"), i / 128)
        finally:
            self.released += 1


class Kept:
    """A sink that keeps what it gets."""

    name = "kept"

    def __init__(self, on_put: Callable[[Frame], object] = lambda frame: None) -> None:
        self.frames: list[tuple[str, int]] = []
        self.on_put = on_put

    def put(self, frame: Frame, inspection: Inspection) -> None:
        assert inspection.verdict.frame == frame.index
        assert inspection.verdict.source == frame.source
        self.frames.append((frame.source, frame.index))
        self.on_put(frame)

    def close(self) -> None:
        pass

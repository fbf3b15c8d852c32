"""Things that tests of several modules need, made in one line."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from uflow_edge.runtime.drift import DriftState
from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.nfa import Region
from uflow_edge.runtime.numeric import Image, Size
from uflow_edge.runtime.operating_point import LOG_NFA_0, OperatingPoint
from uflow_edge.runtime.sources import Frame
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
    inspection = Inspection(verdict, energies, energies, np.zeros((8, 8), np.float32), (0, 0, size[1], size[0]))
    if image_bgr is None:
        image_bgr = np.random.default_rng(index).integers(0, 256, (*size, 3), np.uint8)
    return Frame(image_bgr, index, camera, Path(name or f"frame-{index:06d}"), times.captured), inspection


def failing(error: BaseException) -> Callable[[], object]:
    """A function that raises this."""

    def read() -> object:
        raise error

    return read

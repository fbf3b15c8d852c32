"""Detected regions of a score map."""

from dataclasses import dataclass

import cv2
import numpy as np

from uflow_edge.runtime.numeric import FloatMap


@dataclass(frozen=True, slots=True)
class Region:
    """A connected set of pixels whose score exceeds the threshold.

    Attributes:
        x, y: left and top edge of its bounding box in pixels.
        width, height: of the box in pixels.
        area: pixels in the region itself.
        log_nfa: the lowest log10 NFA inside; the lower, the more certain.
    """

    x: int
    y: int
    width: int
    height: int
    area: int
    log_nfa: float


def regions_above(score: FloatMap, threshold: float) -> tuple[Region, ...]:
    """8-connected regions of ``score > threshold``, the most significant first.

    Args:
        score: (H, W) float32, −log10 NFA.
        threshold: in the same unit.
    """
    mask = np.asarray(score > threshold, np.uint8)
    if not mask.any():
        return ()
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    regions = []
    for i in range(1, count):
        x, y, width, height, area = (int(value) for value in boxes[i])
        inside = np.s_[y : y + height, x : x + width]
        peak = float(score[inside][labels[inside] == i].max())
        regions.append(Region(x, y, width, height, area, log_nfa=-peak))
    return tuple(sorted(regions, key=lambda region: region.log_nfa))

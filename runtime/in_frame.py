"""From a score map back to the frame: boxes and masks in pixels of the frame."""

import cv2
import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.nfa import Region
from uflow_edge.runtime.numeric import FloatMap, Size
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.resize.cpu import Box


def region_in_frame(region: Region, map_size: Size, box: Box) -> Region:
    """From a map to the frame, rounded outwards so that the box still covers the region."""
    left, top, right, bottom = box
    across, down = (right - left) / map_size[1], (bottom - top) / map_size[0]
    x, y = int(region.x * across), int(region.y * down)
    return Region(
        x=left + x,
        y=top + y,
        width=int(np.ceil((region.x + region.width) * across)) - x,
        height=int(np.ceil((region.y + region.height) * down)) - y,
        area=max(round(region.area * across * down), 1),
        log_nfa=region.log_nfa,
    )


def mask_in_frame(score: FloatMap, point: OperatingPoint, size: Size, box: Box) -> NDArray[np.bool_]:
    """(height, width) bool: where the score is above the threshold, in all of the frame."""
    left, top, right, bottom = box
    mask = np.zeros(size, np.bool_)
    detected = np.asarray(score > point.threshold, np.uint8)
    if detected.any():
        resized = cv2.resize(detected, (right - left, bottom - top), interpolation=cv2.INTER_NEAREST_EXACT)
        mask[top:bottom, left:right] = resized.astype(np.bool_)
    return mask

"""Pictures inside a report."""

from base64 import b64encode
from dataclasses import dataclass

import cv2
import numpy as np

from uflow_edge.runtime.heat import HeatMap
from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.overlay import draw_maps

_LONGER_SIDE = 320


@dataclass(frozen=True, slots=True)
class Figure:
    """One picture of a gallery.

    Attributes:
        uri: see `jpeg_uri`.
        verdict: in a word; empty for none.
        kind: CSS class of the word.
    """

    uri: str
    name: str
    score: float
    verdict: str = ""
    kind: str = ""


def small_overlay(
    frame_bgr: Image, inspection: Inspection, channels: tuple[int, ...], heat_map: HeatMap = "nfa"
) -> Image:
    """The frame with heat map and outlines, its longer side 320 pixels; see `overlay.draw_maps`."""
    longer = max(frame_bgr.shape[:2])
    height, width = (max(round(side * _LONGER_SIDE / longer), 1) for side in frame_bgr.shape[:2])
    return draw_maps(frame_bgr, inspection, channels, (height, width), heat_map)


def jpeg_uri(picture_bgr: Image, quality: int = 82) -> str:
    """The (H, W, 3) uint8 BGR picture as a JPEG inside a data URI."""
    encoded, data = cv2.imencode(".jpg", np.ascontiguousarray(picture_bgr), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert encoded, "OpenCV always encodes 8-bit JPEG"
    return f"data:image/jpeg;base64,{b64encode(data.tobytes()).decode()}"

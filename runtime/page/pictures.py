"""Pictures for the live page: the frame with heat map and outlines, as JPEG, full size and thumbnail."""

from dataclasses import dataclass

import cv2
import numpy as np

from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.numeric import Image, Size
from uflow_edge.runtime.overlay import draw_maps
from uflow_edge.runtime.sources import Frame

SMALLEST_SIDE, LARGEST_SIDE = 640, 1280
_THUMBNAIL_SIDE = 240
_QUALITY = 85


@dataclass(frozen=True, slots=True)
class AnomalyPictures:
    """One anomalous frame with heat map and outlines, full size and thumbnail, both JPEG."""

    large: bytes
    small: bytes


def render_picture(frame: Frame, inspection: Inspection, channels: tuple[int, ...]) -> bytes:
    """The frame with heat map and outlines, between 640 and 1280 pixels on its longer side, JPEG."""
    return jpeg(_drawn(frame, inspection, channels))


def render_anomaly(frame: Frame, inspection: Inspection, channels: tuple[int, ...]) -> AnomalyPictures:
    """The picture of `render_picture`, and a thumbnail with a longer side of 240 pixels."""
    drawn = _drawn(frame, inspection, channels)
    height, width = scaled(drawn.shape[:2], _THUMBNAIL_SIDE, _THUMBNAIL_SIDE)
    small = cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA)
    return AnomalyPictures(jpeg(drawn), jpeg(np.asarray(small, np.uint8)))


def scaled(size: Size, smallest: int, largest: int) -> Size:
    """Scale a size so that its longer side is within two bounds; each side has at least one pixel."""
    longer = max(size)
    factor = min(max(longer, smallest), largest) / longer
    return max(round(size[0] * factor), 1), max(round(size[1] * factor), 1)


def jpeg(picture_bgr: Image) -> bytes:
    """Encode (H, W, 3) uint8 BGR."""
    encoded, data = cv2.imencode(".jpg", picture_bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert encoded, "OpenCV always encodes 8-bit JPEG"
    return data.tobytes()


def _drawn(frame: Frame, inspection: Inspection, channels: tuple[int, ...]) -> Image:
    height, width = frame.image_bgr.shape[:2]
    return draw_maps(frame.image_bgr, inspection, channels, scaled((height, width), SMALLEST_SIDE, LARGEST_SIDE))

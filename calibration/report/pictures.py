"""The pictures of the calibration report: good images that look least and most like anomalies, with what was found."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from uflow_edge.calibration.calibrate import Calibration, Judged
from uflow_edge.runtime.images.files import read_image
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.overlay import draw_maps

SHOWN = 6
_LONGER_SIDE = 320
_QUALITY = 82


@dataclass(frozen=True, slots=True)
class Picture:
    """An image with heat map and outlines at the new threshold.

    Attributes:
        judged: whose picture it is.
        jpeg: base64.
    """

    judged: Judged
    jpeg: str


@dataclass(frozen=True, slots=True)
class Pictures:
    """Of held-out images the highest and the lowest scores, and all that look anomalous; the worst first each."""

    highest: tuple[Picture, ...]
    lowest: tuple[Picture, ...]
    suspicious: tuple[Picture, ...]


def draw_pictures(calibration: Calibration, inspector: Inspector) -> Pictures:
    """Inspect the images again that the report shows.

    Args:
        calibration: whose images.
        inspector: with the new null model and threshold.
    """
    ranked = sorted(calibration.held_out, key=lambda judged: -judged.score)
    suspicious = (*calibration.suspicious_held_out, *calibration.suspicious_fitted)[: 2 * SHOWN]

    def draw(chosen: Sequence[Judged]) -> tuple[Picture, ...]:
        return tuple(Picture(judged, _drawn(judged, inspector)) for judged in chosen)

    return Pictures(draw(ranked[:SHOWN]), draw(ranked[: -SHOWN - 1 : -1]), draw(suspicious))


def _drawn(judged: Judged, inspector: Inspector) -> str:
    image = read_image(judged.image.path)
    longer = max(image.shape[:2])
    height, width = (max(round(side * _LONGER_SIDE / longer), 1) for side in image.shape[:2])
    picture = draw_maps(image, inspector.examine(image), inspector.manifest.channels, (height, width))
    encoded, data = cv2.imencode(".jpg", np.asarray(picture), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert encoded, "OpenCV always encodes 8-bit JPEG"
    return b64encode(data.tobytes()).decode()

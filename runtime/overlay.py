"""The picture a person looks at: the frame, where it is unlikely, what was detected, and the score."""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from uflow_edge.runtime.heat import colour_bar, heat_colours, heat_of, step_labels
from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.nfa import likelihood_map
from uflow_edge.runtime.numeric import FloatMap, Image, Size

_SMALLEST_WIDTH = 360
_HIGHEST_ZOOMED = 1280
_LONGEST_SIDE = 32_767
HEADER = 44
_CLEAREST, _DENSEST = 0.3, 0.8
_RED, _GREEN, _WHITE, _BLACK = (60, 60, 235), (90, 170, 60), (255, 255, 255), (0, 0, 0)


def draw_overlay(frame_bgr: Image, inspection: Inspection, channels: tuple[int, ...]) -> Image:
    """Colour and outline the detected regions on the frame; write the verdict and the colour scale above.

    The heat map's colours mean the same on every picture, see `heat`. What is not above the threshold has none.

    Args:
        frame_bgr: (H, W, 3) uint8, the frame that was inspected.
        inspection: what came of it.
        channels: of the latents, per scale.

    Returns:
        (H', W', 3) uint8 BGR. Small frames are enlarged so that the text can be read; high, narrow ones get a margin
        instead, and a side beyond 32,767 pixels is reduced to that.
    """
    height, width = frame_bgr.shape[:2]
    zoom = max(1, min(math.ceil(_SMALLEST_WIDTH / width), _HIGHEST_ZOOMED // height))
    factor = min(zoom, _LONGEST_SIDE / max(height, width))
    picture = draw_maps(
        frame_bgr, inspection, channels, (max(1, round(height * factor)), max(1, round(width * factor)))
    )
    margin = max(0, _SMALLEST_WIDTH - picture.shape[1])
    picture = np.pad(picture, ((0, 0), (0, margin), (0, 0))) if margin else picture
    return np.concatenate([_header(inspection, picture.shape[1]), picture])


def draw_maps(frame_bgr: Image, inspection: Inspection, channels: tuple[int, ...], size: Size) -> Image:
    """The frame with heat map and outlines alone, like `draw_overlay`, as large as one likes.

    Args:
        frame_bgr: (H, W, 3) uint8, the frame that was inspected.
        inspection: what came of it.
        channels: of the latents, per scale.
        size: (height, width) of the result, of the frame's proportions.

    Returns:
        (height, width, 3) uint8 BGR, a copy.
    """
    height, width = size
    smaller = width < frame_bgr.shape[1]
    resized = cv2.resize(frame_bgr, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_NEAREST)
    picture = np.array(resized, np.uint8)
    if not inspection.verdict.mask.any():
        return picture
    mask = cv2.resize(inspection.verdict.mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    found = mask > 0
    heat, opacity = (
        np.asarray(cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)[found]
        for one in _heat_in_frame(frame_bgr, inspection, channels)
    )
    colours, opacity = heat_colours(heat[np.newaxis])[0], opacity[:, np.newaxis]
    picture[found] = (picture[found] * (1 - opacity) + colours * opacity).astype(np.uint8)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    thickness = max(2, width // 250)
    cv2.drawContours(picture, outlines, -1, _BLACK, thickness + 2, cv2.LINE_AA)  # seen on white parts, too
    cv2.drawContours(picture, outlines, -1, _WHITE, thickness, cv2.LINE_AA)
    return picture


def _heat_in_frame(frame_bgr: Image, inspection: Inspection, channels: tuple[int, ...]) -> tuple[FloatMap, FloatMap]:
    """Two maps of (H, W) float32 in [0, 1]: the score on the colour scale, and how unlikely each pixel is itself."""
    height, width = frame_bgr.shape[:2]
    left, top, right, bottom = inspection.box
    part = (right - left, bottom - top)
    heat, opacity = np.zeros((2, height, width), np.float32)
    score = heat_of(inspection.score, inspection.verdict.operating_point.threshold)
    heat[top:bottom, left:right] = cv2.resize(score, part, interpolation=cv2.INTER_LINEAR)
    likelihood = likelihood_map(inspection.energies, channels, part[::-1])
    opacity[top:bottom, left:right] = _CLEAREST + (_DENSEST - _CLEAREST) * likelihood
    return heat, opacity


def _header(inspection: Inspection, width: int) -> Image:
    verdict = inspection.verdict
    strip = np.empty((HEADER, width, 3), np.uint8)
    strip[:] = _RED if verdict.anomalous else _GREEN
    word, relation = ("ANOMALY", ">") if verdict.anomalous else ("GOOD", "<=")
    text = f"{word}  score {verdict.score:.1f} {relation} {verdict.operating_point.threshold:.1f}"
    largest, baseline = (0.6, 18) if verdict.anomalous else (0.8, 30)
    scale = min(largest, largest * (width - 24) / cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, largest, 2)[0][0])
    cv2.putText(strip, text, (12, baseline), cv2.FONT_HERSHEY_SIMPLEX, scale, _WHITE, 2, cv2.LINE_AA)
    if verdict.anomalous:
        _draw_scale(strip[24:], step_labels(verdict.operating_point.threshold))
    return strip


def _draw_scale(strip: Image, labels: Sequence[str]) -> None:
    """The colours from the threshold upwards, evenly labelled, on 20 rows of a picture."""
    strip[:] = _BLACK
    left, right = 12, strip.shape[1] - 12
    strip[3:8, left:right] = colour_bar(right - left, 5)
    for i, label in enumerate(labels):
        length = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, 0.33, 1)[0][0]
        x = round(left + (right - left - length) * i / (len(labels) - 1))
        cv2.putText(strip, label, (x, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.33, _WHITE, 1, cv2.LINE_AA)

"""The picture a person looks at: the frame, where it is unlikely, what was detected, and the score."""

import math

import cv2
import numpy as np

from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.nfa import likelihood_map
from uflow_edge.runtime.numeric import FloatMap, Image, Size

_SMALLEST_WIDTH = 360
_HIGHEST_ZOOMED = 1280
_LONGEST_SIDE = 32_767
_HEADER = 44
_RED, _GREEN, _WHITE, _BLACK = (60, 60, 235), (90, 170, 60), (255, 255, 255), (0, 0, 0)
_EXPECTED = 1 - math.exp(-0.5)
"""Anomaly map where latents follow the null model: E = C."""


def draw_overlay(frame_bgr: Image, inspection: Inspection, channels: tuple[int, ...]) -> Image:
    """Blend the heat map over the frame, draw the detected regions' outlines, and put the verdict above.

    The heat map's colours mean the same on every picture: clear where latents are as the null model expects, opaque
    where they are next to impossible.

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
    heat = cv2.resize(_heat_in_frame(frame_bgr, inspection, channels), (width, height), interpolation=cv2.INTER_LINEAR)
    resized = cv2.resize(frame_bgr, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_NEAREST)
    picture = _blend(np.asarray(resized, np.uint8), np.asarray(heat, np.float32))
    mask = cv2.resize(inspection.verdict.mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    thickness = max(2, width // 250)
    cv2.drawContours(picture, outlines, -1, _BLACK, thickness + 2, cv2.LINE_AA)  # seen on white parts, too
    cv2.drawContours(picture, outlines, -1, _WHITE, thickness, cv2.LINE_AA)
    return picture


def _heat_in_frame(frame_bgr: Image, inspection: Inspection, channels: tuple[int, ...]) -> FloatMap:
    """(H, W) float32 in [0, 1], 0 where the model does not look."""
    height, width = frame_bgr.shape[:2]
    left, top, right, bottom = inspection.box
    likelihood = likelihood_map(inspection.energies, channels, (bottom - top, right - left))
    heat = np.zeros((height, width), np.float32)
    heat[top:bottom, left:right] = np.clip((likelihood - _EXPECTED) / (1 - _EXPECTED), 0, 1)
    return heat


def _blend(picture: Image, heat: FloatMap) -> Image:
    colours = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    opacity = 0.75 * heat[:, :, np.newaxis]
    return (picture * (1 - opacity) + colours * opacity).astype(np.uint8)


def _header(inspection: Inspection, width: int) -> Image:
    verdict = inspection.verdict
    strip = np.empty((_HEADER, width, 3), np.uint8)
    strip[:] = _RED if verdict.anomalous else _GREEN
    word, relation = ("ANOMALY", ">") if verdict.anomalous else ("GOOD", "<=")
    text = f"{word}  score {verdict.score:.1f} {relation} {verdict.operating_point.threshold:.1f}"
    scale = min(0.8, 0.8 * (width - 24) / cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.8, 2)[0][0])
    cv2.putText(strip, text, (12, 30), cv2.FONT_HERSHEY_SIMPLEX, scale, _WHITE, 2, cv2.LINE_AA)
    return strip

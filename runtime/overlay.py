"""The picture of a result: the frame with heat map, outlines of what was detected, and the score."""

import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from uflow_edge.runtime.heat import EVIDENCE_STEPS, HeatMap, colour_bar, heat_colours, heat_of, step_labels
from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.nfa import likelihood_map
from uflow_edge.runtime.numeric import FloatMap, Image, Size
from uflow_edge.runtime.resize.cpu import Box

_SMALLEST_WIDTH = 360
_HIGHEST_ZOOMED = 1280
_LONGEST_SIDE = 32_767
_MOST_PIXELS = 16_000_000
_ROWS = 256  # that are coloured at a time, which bounds the memory
HEADER = 44
_CLEAREST, _DENSEST = 0.3, 0.8
_EVERYWHERE = 0.5  # of maps of all that was inspected, below which the frame must be seen
_RED, _GREEN, _WHITE, _BLACK = (60, 60, 235), (90, 170, 60), (255, 255, 255), (0, 0, 0)


def draw_overlay(
    frame_bgr: Image, inspection: Inspection, channels: tuple[int, ...], heat_map: HeatMap = "nfa"
) -> Image:
    """Draw heat map and outlines on the frame, and the verdict and the colour scale above it.

    Args:
        frame_bgr: (H, W, 3) uint8, the frame that was inspected.
        channels: of the latents, per scale.

    Returns:
        (H', W', 3) uint8 BGR. Small frames are enlarged so that the text can be read; high, narrow ones get a margin
        instead. Frames of more than 16 million pixels, or with a side beyond 32,767 pixels, are reduced to that; the
        verdict's regions and mask keep the coordinates of the frame.
    """
    height, width = frame_bgr.shape[:2]
    zoom = max(1, min(math.ceil(_SMALLEST_WIDTH / width), _HIGHEST_ZOOMED // height))
    factor = min(zoom, _LONGEST_SIDE / max(height, width), math.sqrt(_MOST_PIXELS / (height * width)))
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    picture = draw_maps(frame_bgr, inspection, channels, size, heat_map)
    margin = max(0, _SMALLEST_WIDTH - picture.shape[1])
    picture = np.pad(picture, ((0, 0), (0, margin), (0, 0))) if margin else picture
    return np.concatenate([_header(inspection, picture.shape[1], heat_map), picture])


def draw_maps(
    frame_bgr: Image, inspection: Inspection, channels: tuple[int, ...], size: Size, heat_map: HeatMap = "nfa"
) -> Image:
    """Draw heat map and outlines alone, at any size.

    Colours mean the same on every picture, see `heat`.

    Args:
        frame_bgr: (H, W, 3) uint8, the frame that was inspected.
        channels: of the latents, per scale.
        size: (height, width) of the result, in the proportions of the frame.
        heat_map: ``nfa`` colours detected regions by their score, the denser the less likely a pixel is itself;
            ``evidence`` and ``likelihood`` colour all that was inspected, by `Inspection.evidence` and the likelihood
            map. Detected regions are outlined in all of them.

    Returns:
        (height, width, 3) uint8 BGR, a copy.
    """
    height, width = size
    smaller = width < frame_bgr.shape[1]
    resized = cv2.resize(frame_bgr, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_NEAREST)
    picture = np.array(resized, np.uint8)
    detected = np.ascontiguousarray(inspection.verdict.mask).view(np.uint8)
    if not detected.any() and heat_map == "nfa":
        return picture
    mask = cv2.resize(detected, (width, height), interpolation=cv2.INTER_NEAREST)
    # Maps grow to the frame at most: what is larger is interpolated from there.
    fine = (min(height, frame_bgr.shape[0]), min(width, frame_bgr.shape[1]))
    heat, opacity = (
        np.asarray(cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
        for one in _heat_and_opacity(inspection, channels, fine, heat_map)
    )
    for rows in _bands(height):
        found = mask[rows] > 0 if heat_map == "nfa" else opacity[rows] > 0
        if not found.any():  # OpenCV would divide by zero
            continue
        colours, share = heat_colours(heat[rows][found][np.newaxis])[0], opacity[rows][found][:, np.newaxis]
        picture[rows][found] = (picture[rows][found] * (1 - share) + colours * share).astype(np.uint8)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    thickness = max(2, width // 250)
    cv2.drawContours(picture, outlines, -1, _BLACK, thickness + 2, cv2.LINE_AA)  # seen on white parts, too
    cv2.drawContours(picture, outlines, -1, _WHITE, thickness, cv2.LINE_AA)
    return picture


def _bands(height: int) -> Iterator[slice]:
    return (slice(top, top + _ROWS) for top in range(0, height, _ROWS))


def _heat_and_opacity(
    inspection: Inspection, channels: tuple[int, ...], size: Size, heat_map: HeatMap
) -> tuple[FloatMap, FloatMap]:
    """Position on the colour scale and opacity of each pixel, (height, width) float32 in [0, 1]; 0 outside the box."""
    verdict = inspection.verdict
    left, top, right, bottom = _scaled(inspection.box, verdict.size, size)
    part = (bottom - top, right - left)
    heat, opacity = np.zeros((2, *size), np.float32)
    likelihood = likelihood_map(inspection.energies, channels, part)
    if heat_map == "likelihood":
        heat[top:bottom, left:right] = likelihood
    else:
        if heat_map == "nfa":
            shown = heat_of(inspection.score, verdict.operating_point.threshold)
        else:
            shown = heat_of(inspection.evidence(), 0, EVIDENCE_STEPS)
        heat[top:bottom, left:right] = cv2.resize(shown, part[::-1], interpolation=cv2.INTER_LINEAR)
    dense = _CLEAREST + (_DENSEST - _CLEAREST) * likelihood if heat_map == "nfa" else _EVERYWHERE
    opacity[top:bottom, left:right] = dense
    return heat, opacity


def _scaled(box: Box, frame: Size, size: Size) -> Box:
    """The box of a frame in a smaller picture of it, of one pixel at least."""
    down, across = size[0] / frame[0], size[1] / frame[1]
    left, top = min(round(box[0] * across), size[1] - 1), min(round(box[1] * down), size[0] - 1)
    return left, top, max(round(box[2] * across), left + 1), max(round(box[3] * down), top + 1)


def _header(inspection: Inspection, width: int, heat_map: HeatMap) -> Image:
    verdict = inspection.verdict
    strip = np.empty((HEADER, width, 3), np.uint8)
    strip[:] = _RED if verdict.anomalous else _GREEN
    word, relation = ("ANOMALY", ">") if verdict.anomalous else ("GOOD", "<=")
    text = f"{word}  score {verdict.score:.1f} {relation} {verdict.operating_point.threshold:.1f}"
    with_scale = verdict.anomalous or heat_map != "nfa"
    largest, baseline = (0.6, 18) if with_scale else (0.8, 30)
    scale = min(largest, largest * (width - 24) / cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, largest, 2)[0][0])
    cv2.putText(strip, text, (12, baseline), cv2.FONT_HERSHEY_SIMPLEX, scale, _WHITE, 2, cv2.LINE_AA)
    if with_scale:
        _draw_scale(strip[24:], step_labels(verdict.operating_point.threshold, heat_map))
    return strip


def _draw_scale(strip: Image, labels: Sequence[str]) -> None:
    """The colours, evenly labelled, on 20 rows of a picture."""
    strip[:] = _BLACK
    left, right = 12, strip.shape[1] - 12
    strip[3:8, left:right] = colour_bar(right - left, 5)
    for i, label in enumerate(labels):
        length = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, 0.33, 1)[0][0]
        x = round(left + (right - left - length) * i / (len(labels) - 1))
        cv2.putText(strip, label, (x, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.33, _WHITE, 1, cv2.LINE_AA)

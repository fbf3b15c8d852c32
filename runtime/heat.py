"""The colour scale: on overlays, on the live page and in reports one colour means one score."""

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias, get_args

import cv2
import numpy as np

from uflow_edge.runtime.numeric import FloatMap, Image

HeatMap: TypeAlias = Literal["nfa", "evidence", "likelihood"]
"""What colours show: scores where they exceed the threshold, the map that ranks pixels, or the likelihood map."""
HEAT_MAPS: tuple[HeatMap, ...] = get_args(HeatMap)
STEPS: Final = (0.0, 1.0, 10.0, 100.0, 1000.0)
"""Decades of the number of false alarms above the threshold, evenly spaced on the scale."""
EVIDENCE_STEPS: Final = (0.0, 1.0, 4.0, 8.0, 16.0)
"""Likewise, of `Inspection.evidence`: up to 1 where nothing was detected."""
_DARKEST: Final = 0.35
"""Where our scale begins on OpenCV's inferno: what lies below can hardly be told from dark parts of a picture."""


def heat_of(score: FloatMap, threshold: float, steps: Sequence[float] = STEPS) -> FloatMap:
    """The position of scores on the scale, float32 in [0, 1]: 0 up to the threshold, 1 from the last step above it.

    Args:
        score: −log10 NFA, of any shape; −inf where nothing was inspected.
        threshold: on the score.
    """
    return np.asarray(np.interp(score - threshold, steps, np.linspace(0, 1, len(steps))), np.float32)


def heat_colours(heat: FloatMap) -> Image:
    """The colours of (H, W) values in [0, 1], as (H, W, 3) uint8 BGR, from purple to pale yellow."""
    levels = np.rint((_DARKEST + (1 - _DARKEST) * heat) * 255).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), np.uint8)


def colour_bar(width: int, height: int) -> Image:
    """The whole scale from left to right, (height, width, 3) uint8 BGR."""
    return heat_colours(np.broadcast_to(np.linspace(0, 1, width, dtype=np.float32), (height, width)).copy())


def step_labels(threshold: float, heat_map: HeatMap = "nfa") -> list[str]:
    """Five labels, evenly spaced along the scale: the threshold and the `STEPS` above it, evidence, or likelihoods."""
    if heat_map == "likelihood":
        return ["0", "0.25", "0.5", "0.75", "1"]
    if heat_map == "evidence":
        return [f"{step:.0f}" for step in EVIDENCE_STEPS]
    return [f"{threshold:.1f}", *(f"+{step:.0f}" for step in STEPS[1:])]


def colour_bar_png() -> bytes:
    """The scale as PNG, one pixel high."""
    encoded, data = cv2.imencode(".png", colour_bar(256, 1))
    assert encoded, "OpenCV always encodes 8-bit PNG"
    return data.tobytes()

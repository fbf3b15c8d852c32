"""Which parts of a frame the model sees: all of it, regions of interest, or tiles where it is larger than the input.

Each part is resized to the model's input and scored on its own. `stitch` then joins the maps into one, with the larger
value where parts overlap.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import cv2
import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.errors import BadInput, UsageError
from uflow_edge.runtime.nfa.regions import Region
from uflow_edge.runtime.numeric import FloatMap, Image, Size, even_starts
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.resize.cpu import Box, Fit, inspected_box, model_input

DEFAULT_OVERLAP = 0.25
MOST_PARTS = 1024


@dataclass(frozen=True, slots=True)
class ViewOptions:
    """Options for what is inspected.

    Attributes:
        regions: of interest, in pixels of the frame; if empty, the whole frame.
        tile: side, in pixels of the frame, of the squares that a region is cut into; None: not cut.
        overlap: smallest overlap of neighbouring tiles, as a fraction of their side; a defect smaller than the overlap
            is whole in one of them.

    Raises:
        UsageError: on construction, for an empty region or an overlap outside [0, 1).
    """

    regions: tuple[Box, ...] = ()
    tile: int | None = None
    overlap: float = DEFAULT_OVERLAP

    def __post_init__(self) -> None:
        for left, top, right, bottom in self.regions:
            if not (0 <= left < right and 0 <= top < bottom):
                raise UsageError(f"region of interest {left},{top},{right - left},{bottom - top}: it is empty")
        if not 0 <= self.overlap < 1:
            raise UsageError(f"overlap {self.overlap}: expected a fraction, 0 or more and below 1")
        if self.tile is not None and self.tile < 1:
            raise UsageError(f"tile {self.tile}: expected a number of pixels")

    def __str__(self) -> str:
        """A description for messages: ``whole frames``, or the regions and tiles."""
        regions = (f"{x},{y},{right - x},{bottom - y}" for x, y, right, bottom in self.regions)
        parts = [f"regions of interest {'; '.join(regions)}"] if self.regions else []
        parts += [f"tiles of {self.tile} that overlap by {self.overlap:g}"] if self.tile else []
        return " in ".join(parts) or "whole frames"

    def boxes(self, size: Size, fit: Fit) -> tuple[Box, ...]:
        """The parts of a frame of this (height, width).

        Raises:
            BadInput: a region reaches beyond the frame, or there are more than `MOST_PARTS` parts.
        """
        height, width = size
        found: list[Box] = []
        for region in self.regions or ((0, 0, width, height),):
            left, top, right, bottom = region
            if right > width or bottom > height:
                raise BadInput(
                    f"region of interest {left},{top},{right - left},{bottom - top} reaches beyond the frame of "
                    f"{width} x {height} pixels"
                )
            if self.tile is None:
                x, y, x_end, y_end = inspected_box((bottom - top, right - left), fit)
                found.append((left + x, top + y, left + x_end, top + y_end))
            else:
                across, down = (_spans(extent, self.tile, self.overlap) for extent in (right - left, bottom - top))
                found += [(left + x, top + y, left + x_end, top + y_end) for y, y_end in down for x, x_end in across]
        if len(found) > MOST_PARTS:
            raise BadInput(f"tile {self.tile} cuts the frame into {len(found)} parts, more than {MOST_PARTS}")
        return tuple(found)


def parse_region(text: str) -> Box:
    """Read ``X,Y,WIDTH,HEIGHT``.

    Raises:
        UsageError: anything else.
    """
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"region of interest {text!r}: expected X,Y,WIDTH,HEIGHT in pixels") from error
    return x, y, x + width, y + height


def _spans(extent: int, tile: int, overlap: float) -> list[tuple[int, int]]:
    starts = even_starts(extent, tile, tile * (1 - overlap))
    return [(start, min(start + tile, extent)) for start in starts]


def model_inputs(frame_bgr: Image, boxes: Sequence[Box], side: int) -> Image:
    """Cut the parts out of a frame and resize each, (N, side, side, 3) uint8 RGB."""
    pictures = [model_input(frame_bgr[top:bottom, left:right], side) for left, top, right, bottom in boxes]
    return pictures[0][np.newaxis] if len(pictures) == 1 else np.stack(pictures)


def stitch(maps: Iterable[FloatMap], boxes: Sequence[Box], outside: float) -> tuple[FloatMap, Box]:
    """Join the maps of parts of a frame, with the larger value where they overlap.

    Args:
        maps: (h, w) float32, one per box, all of one shape; only one at a time is kept in memory.
        outside: value between the parts.

    Returns:
        One map, as fine as the finest of them, and the box that it covers. A single map is returned unchanged.
    """
    maps = iter(maps)
    first = next(maps)
    if len(boxes) == 1:
        return first, boxes[0]
    whole = hull(boxes)
    height, width = first.shape
    down = min(bottom - top for _, top, _, bottom in boxes) / height
    across = min(right - left for left, _, right, _ in boxes) / width
    canvas_size = (max(round((whole[3] - whole[1]) / down), 1), max(round((whole[2] - whole[0]) / across), 1))
    canvas = np.full(canvas_size, outside, np.float32)
    for one, (left, top, right, bottom) in zip(chain([first], maps), boxes, strict=True):
        y, y_end = (min(round((edge - whole[1]) / down), canvas_size[0]) for edge in (top, bottom))
        x, x_end = (min(round((edge - whole[0]) / across), canvas_size[1]) for edge in (left, right))
        target = canvas[y:y_end, x:x_end]
        if target.size:
            np.maximum(target, cv2.resize(one, target.shape[::-1], interpolation=cv2.INTER_LINEAR), out=target)
    return canvas, whole


def hull(boxes: Sequence[Box]) -> Box:
    """The smallest box around all of them."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def region_in_frame(region: Region, map_size: Size, box: Box) -> Region:
    """Convert a region from pixels of a map to those of the frame, rounded outwards so that its box still covers it."""
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
    """Pixels of the frame whose score is above the threshold, (height, width) bool."""
    left, top, right, bottom = box
    mask = np.zeros(size, np.bool_)
    detected = np.asarray(score > point.threshold, np.uint8)
    if detected.any():
        resized = cv2.resize(detected, (right - left, bottom - top), interpolation=cv2.INTER_NEAREST_EXACT)
        mask[top:bottom, left:right] = resized.astype(np.bool_)
    return mask

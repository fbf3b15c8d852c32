"""Resizes a frame of any size to the model's input, with the resize that the weights were trained with.

This is Pillow's antialiased bilinear resize, uint8 to uint8, bit for bit. Any other resize, such as OpenCV's, changes
the energies. It is implemented here because resizing takes most of the CPU time outside the network, and Pillow adds
one number at a time; vector registers need a third of that time, on one thread as well.

For this, pixels are 32-bit words, three channels and one unused byte, and the filter along the rows works on bands of
`_BAND` rows, transposed so that neighbouring lanes of a register belong to neighbouring rows.
"""

from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.compiled import compiled
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.numeric import Frame, Image, IndexMap, Size
from uflow_edge.runtime.resize.pillow_filter import FRACTION_BITS, HALF, axis_filter, filtered_axes

Fit: TypeAlias = Literal["squash", "crop"]
"""How a frame is made square: ``squash`` scales the whole frame, ``crop`` takes its central square."""

Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""

_Words = NDArray[np.uint32]
_BAND = 32
_BYTE = np.uint32(255)
_EIGHT, _SIXTEEN = np.uint32(8), np.uint32(16)


def inspected_box(size: Size, fit: Fit) -> Box:
    """The part of a frame that the model sees: all of it (``squash``) or the central square (``crop``)."""
    height, width = size
    if fit == "squash":
        return 0, 0, width, height
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def model_input(frame_bgr: Image, side: int, fit: Fit = "squash") -> Image:
    """Convert a frame, (H, W, 3) uint8 BGR, to the graph's input, (S, S, 3) uint8 RGB.

    Raises:
        BadInput: the frame is not uint8, or not (H, W, 3) with at least one pixel.
    """
    image = checked_frame(frame_bgr)
    # Crop first: with Pillow's box argument the filter would reach beyond the box.
    left, top, right, bottom = inspected_box((image.shape[0], image.shape[1]), fit)
    return _resample(image[top:bottom, left:right], side)


def checked_frame(frame_bgr: Frame) -> Image:
    """Check that a frame is (H, W, 3) uint8 with at least one pixel, and return it.

    Raises:
        BadInput: the frame is something else.
    """
    if not isinstance(frame_bgr, np.ndarray) or frame_bgr.dtype != np.uint8:
        found = getattr(frame_bgr, "dtype", type(frame_bgr).__name__)
        raise BadInput(f"a frame must be a uint8 array [H, W, 3] in BGR order; got {found}")
    if frame_bgr.ndim != 3 or frame_bgr.shape[2] != 3 or frame_bgr.size == 0:
        raise BadInput(f"a frame must be a uint8 array [H, W, 3] in BGR order; got shape {frame_bgr.shape}")
    return frame_bgr


def _resample(image_bgr: Image, side: int) -> Image:
    """(H, W, 3) BGR to (S, S, 3) RGB, C-contiguous."""
    words = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGBA).view(np.uint32)[:, :, 0]
    for axis in filtered_axes((image_bgr.shape[0], image_bgr.shape[1]), side):
        words = _along_rows(words, side) if axis == "rows" else _along_columns(words, side)
    return np.asarray(cv2.cvtColor(words.view(np.uint8).reshape(side, side, 4), cv2.COLOR_RGBA2RGB), np.uint8)


def _along_rows(words: _Words, side: int) -> _Words:
    """(H, W) to (H, S)."""
    height, width = words.shape
    chosen = axis_filter(width, side)
    whole_bands = -(-height // _BAND) * _BAND
    filtered = np.empty((whole_bands, side), np.uint32)
    _filter_rows(words, chosen.first, chosen.count, chosen.weights, filtered)
    return filtered[:height]


def _along_columns(words: _Words, side: int) -> _Words:
    """(H, W) to (S, W)."""
    height, width = words.shape
    chosen = axis_filter(height, side)
    filtered = np.empty((side, width), np.uint32)
    _filter_columns(words.view(np.uint8), chosen.first, chosen.count, chosen.weights, filtered.view(np.uint8))
    return filtered


@compiled
def _filter_rows(words: _Words, first: IndexMap, count: IndexMap, weights: IndexMap, filtered: _Words) -> None:
    """(H, W) to ``filtered`` (H rounded up to whole bands, S)."""
    height, width = words.shape
    turned = np.empty((width, _BAND), np.uint32)
    turned_filtered = np.empty((first.size, _BAND), np.uint32)
    for top in range(0, height, _BAND):
        for lane in range(0, _BAND, 4):  # four rows at a time, as the band does not fit into the L1 cache
            for x in range(width):
                for row in range(lane, lane + 4):
                    turned[x, row] = words[min(top + row, height - 1), x]
        _filter_band(turned, first, count, weights, turned_filtered)
        for lane in range(_BAND):
            for x in range(first.size):
                filtered[top + lane, x] = turned_filtered[x, lane]


@compiled
def _filter_band(turned: _Words, first: IndexMap, count: IndexMap, weights: IndexMap, filtered: _Words) -> None:
    """(W, _BAND) to ``filtered`` (S, _BAND). The loop over lanes takes most of the time."""
    sum_0, sum_1, sum_2 = np.empty(_BAND, np.int32), np.empty(_BAND, np.int32), np.empty(_BAND, np.int32)
    for x in range(first.size):
        sum_0[:], sum_1[:], sum_2[:] = HALF, HALF, HALF
        for tap in range(count[x]):
            weight = weights[tap, x]
            column = turned[first[x] + tap]
            for lane in range(_BAND):
                word = column[lane]
                sum_0[lane] += np.int32(word & _BYTE) * weight
                sum_1[lane] += np.int32((word >> _EIGHT) & _BYTE) * weight
                sum_2[lane] += np.int32((word >> _SIXTEEN) & _BYTE) * weight
        for lane in range(_BAND):
            channel_0 = np.uint32(min(sum_0[lane] >> FRACTION_BITS, 255))
            channel_1 = np.uint32(min(sum_1[lane] >> FRACTION_BITS, 255))
            channel_2 = np.uint32(min(sum_2[lane] >> FRACTION_BITS, 255))
            filtered[x, lane] = channel_0 | (channel_1 << _EIGHT) | (channel_2 << _SIXTEEN)


@compiled
def _filter_columns(rows: Image, first: IndexMap, count: IndexMap, weights: IndexMap, filtered: Image) -> None:
    """(H, 4 W) to ``filtered`` (S, 4 W), byte by byte."""
    length = rows.shape[1]
    sums = np.empty(length, np.int32)
    for y in range(first.size):
        sums[:] = HALF
        for tap in range(count[y]):
            weight = weights[tap, y]
            row = rows[first[y] + tap]
            for i in range(length):
                sums[i] += np.int32(row[i]) * weight
        for i in range(length):
            filtered[y, i] = min(sums[i] >> FRACTION_BITS, 255)

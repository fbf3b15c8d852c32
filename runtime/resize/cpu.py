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
_EIGHT, _SIXTEEN, _TWENTY_FOUR = np.uint32(8), np.uint32(16), np.uint32(24)


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
    for axis in filtered_axes((image_bgr.shape[0], image_bgr.shape[1]), side):
        image_bgr = _along_rows(image_bgr, side) if axis == "rows" else _along_columns(image_bgr, side)
    return np.asarray(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB), np.uint8)


def _along_rows(image: Image, side: int) -> Image:
    """(H, W, 3) to (H, S, 3)."""
    height, width, channels = image.shape
    chosen = axis_filter(width, side)
    filtered = np.empty((height, side, channels), np.uint8)
    _filter_rows(_rows_of_bytes(image), chosen.first, chosen.count, chosen.weights, filtered.reshape(height, -1))
    return filtered


def _along_columns(image: Image, side: int) -> Image:
    """(H, W, 3) to (S, W, 3)."""
    height, width, channels = image.shape
    chosen = axis_filter(height, side)
    filtered = np.empty((side, width, channels), np.uint8)
    _filter_columns(_rows_of_bytes(image), chosen.first, chosen.count, chosen.weights, filtered.reshape(side, -1))
    return filtered


def _rows_of_bytes(image: Image) -> Image:
    """(H, W, 3) as (H, 3 W), read-only, since numba compiles once for each kind of array."""
    rows = np.ascontiguousarray(image).reshape(len(image), -1).view()
    rows.flags.writeable = False
    return rows


@compiled
def _filter_rows(rows: Image, first: IndexMap, count: IndexMap, weights: IndexMap, filtered: Image) -> None:
    """(H, 3 W) to ``filtered`` (H, 3 S)."""
    height, width = rows.shape[0], rows.shape[1] // 3
    turned = np.empty((width, _BAND), np.uint32)
    turned_filtered = np.empty((first.size, _BAND), np.uint32)
    for top in range(0, height, _BAND):
        _turn_band(rows, top, turned)
        _filter_band(turned, first, count, weights, turned_filtered)
        for lane in range(min(_BAND, height - top)):
            row = filtered[top + lane]
            for x in range(first.size):
                word = turned_filtered[x, lane]
                row[3 * x] = word & _BYTE
                row[3 * x + 1] = (word >> _EIGHT) & _BYTE
                row[3 * x + 2] = word >> _SIXTEEN


@compiled
def _turn_band(rows: Image, top: int, turned: _Words) -> None:
    """Rows from ``top`` on, the last one repeated, to ``turned`` (W, _BAND); the fourth byte of a word is arbitrary."""
    height, last = rows.shape[0], turned.shape[0] - 1
    for lane in range(0, _BAND, 8):  # eight rows at a time, as the band does not fit into the L1 cache
        for x in range(last):
            for i in range(lane, lane + 8):
                row = rows[min(top + i, height - 1)]  # four bytes are read at once, the fourth one in vain
                low = np.uint32(row[3 * x]) | np.uint32(row[3 * x + 1]) << _EIGHT
                turned[x, i] = low | np.uint32(row[3 * x + 2]) << _SIXTEEN | np.uint32(row[3 * x + 3]) << _TWENTY_FOUR
        for i in range(lane, lane + 8):
            row = rows[min(top + i, height - 1)]
            low = np.uint32(row[3 * last]) | np.uint32(row[3 * last + 1]) << _EIGHT
            turned[last, i] = low | np.uint32(row[3 * last + 2]) << _SIXTEEN


@compiled
def _filter_band(turned: _Words, first: IndexMap, count: IndexMap, weights: IndexMap, filtered: _Words) -> None:
    """(W, _BAND) to ``filtered`` (S, _BAND). The loop over lanes takes most of the time; it takes two taps at once."""
    sum_0, sum_1, sum_2 = np.empty(_BAND, np.int32), np.empty(_BAND, np.int32), np.empty(_BAND, np.int32)
    for x in range(first.size):
        sum_0[:], sum_1[:], sum_2[:] = HALF, HALF, HALF
        for tap in range(0, count[x] - 1, 2):
            weight, next_weight = weights[tap, x], weights[tap + 1, x]
            column, next_column = turned[first[x] + tap], turned[first[x] + tap + 1]
            for lane in range(_BAND):
                word, next_word = column[lane], next_column[lane]
                sum_0[lane] += _byte(word, 0) * weight + _byte(next_word, 0) * next_weight
                sum_1[lane] += _byte(word, 8) * weight + _byte(next_word, 8) * next_weight
                sum_2[lane] += _byte(word, 16) * weight + _byte(next_word, 16) * next_weight
        if count[x] % 2:
            weight, column = weights[count[x] - 1, x], turned[first[x] + count[x] - 1]
            for lane in range(_BAND):
                sum_0[lane] += _byte(column[lane], 0) * weight
                sum_1[lane] += _byte(column[lane], 8) * weight
                sum_2[lane] += _byte(column[lane], 16) * weight
        for lane in range(_BAND):
            channel_0 = np.uint32(min(sum_0[lane] >> FRACTION_BITS, 255))
            channel_1 = np.uint32(min(sum_1[lane] >> FRACTION_BITS, 255))
            channel_2 = np.uint32(min(sum_2[lane] >> FRACTION_BITS, 255))
            filtered[x, lane] = channel_0 | (channel_1 << _EIGHT) | (channel_2 << _SIXTEEN)


@compiled
def _byte(word: np.uint32, shift: int) -> np.int32:
    return np.int32((word >> np.uint32(shift)) & _BYTE)


@compiled
def _filter_columns(rows: Image, first: IndexMap, count: IndexMap, weights: IndexMap, filtered: Image) -> None:
    """(H, 3 W) to ``filtered`` (S, 3 W), byte by byte."""
    length = rows.shape[1]
    sums = np.empty(length, np.int32)
    for y in range(first.size):
        sums[:] = HALF
        for tap in range(0, count[y] - 1, 2):
            weight, next_weight = weights[tap, y], weights[tap + 1, y]
            row, next_row = rows[first[y] + tap], rows[first[y] + tap + 1]
            for i in range(length):
                sums[i] += np.int32(row[i]) * weight + np.int32(next_row[i]) * next_weight
        if count[y] % 2:
            weight, row = weights[count[y] - 1, y], rows[first[y] + count[y] - 1]
            for i in range(length):
                sums[i] += np.int32(row[i]) * weight
        for i in range(length):
            filtered[y, i] = min(sums[i] >> FRACTION_BITS, 255)

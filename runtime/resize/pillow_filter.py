"""Pillow's antialiased bilinear filter along one axis, in Pillow's own fixed-point numbers.

A resize is this filter along the rows and along the columns, rounded to uint8 after each (Pillow's ``Resample.c``:
``precompute_coeffs`` and ``normalize_coeffs_8bpc``). An output pixel is

    (HALF + sum over taps of pixel * weight) >> FRACTION_BITS

in 32-bit integers, which cannot overflow: no weight is negative, and their sum is 1 << FRACTION_BITS.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import numpy as np
from PIL import __version__ as pillow_version

from uflow_edge.runtime.numeric import IndexMap, Size

Axis = Literal["rows", "columns"]

FRACTION_BITS: Final = 32 - 8 - 2
HALF: Final = 1 << (FRACTION_BITS - 1)

_COLUMNS_MAY_COME_FIRST: Final = int(pillow_version.split(".")[0]) >= 13


def filtered_axes(size: Size, side: int) -> tuple[Axis, ...]:
    """The axes along which the installed Pillow filters to make an image square, in Pillow's order.

    An axis that has the right length already is left out. Of two axes, rows come first up to release 12. Since release
    13 (pull request 9549) columns come first if that saves work, so some pixels of portrait images differ by one level.
    """
    height, width = size
    axes: list[Axis] = ["rows", "columns"]
    if _COLUMNS_MAY_COME_FIRST and height - side > max(2 * (width - side), 0):
        axes.reverse()
    lengths = {"rows": width, "columns": height}
    return tuple(axis for axis in axes if lengths[axis] != side)


@dataclass(frozen=True, slots=True, eq=False)
class AxisFilter:
    """The input pixels and weights of each output pixel along an axis. All arrays are read-only.

    Attributes:
        first: (side,) int32, the first input pixel.
        count: (side,) int32, number of consecutive input pixels.
        weights: (taps, side) int32, their weights; 0 beyond ``count``.
    """

    first: IndexMap
    count: IndexMap
    weights: IndexMap


@lru_cache(maxsize=64)
def axis_filter(length: int, side: int) -> AxisFilter:
    """The filter from ``length`` to ``side`` pixels; for equal lengths it changes nothing.

    Raises:
        ValueError: a length is below one pixel.
    """
    if length < 1 or side < 1:
        raise ValueError(f"cannot resize {length} pixels to {side}: both must be at least 1")
    scale = length / side
    support = max(scale, 1.0)
    centre = (np.arange(side) + 0.5) * scale
    # Casts to int truncate, as in C. Every operation is in Pillow's order.
    first = np.maximum((centre - support + 0.5).astype(np.int32), 0)
    count = np.minimum((centre + support + 0.5).astype(np.int32), length) - first

    tap = np.arange(count.max(), dtype=np.int32)[:, np.newaxis]
    distance = np.abs((tap + first - centre + 0.5) * (1.0 / support))
    weights = np.where((tap < count) & (distance < 1.0), 1.0 - distance, 0.0)
    total = np.zeros(side)
    for row in weights:  # numpy's sum adds pairwise and rounds differently
        total += row
    fixed = (0.5 + weights / total * (1 << FRACTION_BITS)).astype(np.int32)
    for array in (first, count, fixed):
        array.setflags(write=False)
    return AxisFilter(first, count, fixed)

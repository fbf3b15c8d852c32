"""Cuts an image of any size into square patches, and joins patches to an image.

There are two ways. ``blend``: patches overlap, are evenly spaced within the image, and are joined with smooth weights
that sum to 1, so cutting and joining does not change an image. An image smaller than a patch is padded by reflection.
``upstream`` repeats Diff-CF: zeros at the right and at the bottom, a whole row and column of them if the size is a
multiple of the patch, and hard seams.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.errors import UsageError
from uflow_edge.runtime.numeric import FloatMap, Size, even_starts

Patching: TypeAlias = Literal["blend", "upstream"]
PATCHINGS: tuple[Patching, ...] = get_args(Patching)
DEFAULT_OVERLAP = 0.25
MOST_OVERLAP = 0.75

Planes: TypeAlias = NDArray[np.float32]
"""(C, H, W)."""
Corner: TypeAlias = tuple[int, int]
"""Top and left of a patch, in pixels of the image."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The positions of the patches in an image.

    Attributes:
        size: (height, width) of the image.
        patch: S, side of a patch.
        padding: how the image is padded at the right and at the bottom.
        tops: top of each row of patches, ascending.
        lefts: left of each column of patches, ascending.
    """

    size: Size
    patch: int
    padding: Literal["reflect", "constant"]
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    @classmethod
    def of(cls, size: Size, patch: int, patching: Patching, overlap: float = DEFAULT_OVERLAP) -> "Layout":
        """Lay out the patches of an image.

        Args:
            size: (height, width) of the image.
            patch: side of a patch.
            overlap: least overlap of neighbours with ``blend``, as a share of the side of a patch; even spacing may
                give more.

        Raises:
            UsageError: the overlap is not between 0 and 0.75.
        """
        if not 0 <= overlap <= MOST_OVERLAP:
            raise UsageError(f"overlap {overlap}: expected a share of a patch from 0 to {MOST_OVERLAP}")
        if patching == "upstream":
            tops, lefts = (tuple(range(0, extent + 1, patch)) for extent in size)
            return cls(size, patch, "constant", tops, lefts)
        tops, lefts = (even_starts(extent, patch, math.floor(patch * (1 - overlap))) for extent in size)
        return cls(size, patch, "reflect", tops, lefts)

    @property
    def corners(self) -> tuple[Corner, ...]:
        """(top, left) of each patch, row by row, in pixels of the padded image."""
        return tuple((top, left) for top in self.tops for left in self.lefts)

    def padded(self, image: Planes) -> Planes:
        """Pad an image to the end of the last patches."""
        down, right = (max(starts[-1] + self.patch - extent, 0) for starts, extent in self._axes)
        return np.pad(image, ((0, 0), (0, down), (0, right)), mode=self.padding)

    def stitched(self, patches: Iterable[tuple[Corner, Planes]], channels: int) -> Planes:
        """Join patches to an image, each with its weights.

        Args:
            patches: all patches with their corners, in any order, (C, S, S) each.
            channels: C.

        Returns:
            (C, H, W) float32.
        """
        (height, width), side = self.size, self.patch
        canvas = np.zeros((channels, self.tops[-1] + side, self.lefts[-1] + side), np.float32)
        rows, columns = (dict(zip(starts, _weights(starts, side), strict=True)) for starts, _ in self._axes)
        for (top, left), patch in patches:
            canvas[:, top : top + side, left : left + side] += patch * rows[top][:, np.newaxis] * columns[left]
        return canvas[:, :height, :width]

    @property
    def _axes(self) -> tuple[tuple[tuple[int, ...], int], tuple[tuple[int, ...], int]]:
        return (self.tops, self.size[0]), (self.lefts, self.size[1])


def cut(padded: Planes, corners: Iterable[Corner], side: int) -> NDArray[np.float32]:
    """Cut patches out of a padded image: (N, C, S, S)."""
    return np.stack([padded[:, top : top + side, left : left + side] for top, left in corners])


def _weights(starts: tuple[int, ...], side: int) -> list[FloatMap]:
    """(S,) per start, never zero; at each pixel, the weights of all patches sum to 1."""
    gaps = [after - before for before, after in pairwise(starts)]
    ramps = [0, *(max(side - gap, 0) for gap in gaps), 0]
    windows = [_rising(side, before) * _rising(side, after)[::-1] for before, after in pairwise(ramps)]
    total = np.zeros(starts[-1] + side)
    for start, window in zip(starts, windows, strict=True):
        total[start : start + side] += window
    return [
        (window / total[start : start + side]).astype(np.float32) for start, window in zip(starts, windows, strict=True)
    ]


def _rising(side: int, ramp: int) -> NDArray[np.float64]:
    """(S,) from nearly 0 to 1 within ``ramp`` pixels, as a squared sine; the sum with its mirror image is 1."""
    distance = np.minimum((np.arange(side) + 0.5) / max(ramp, 0.5), 1)
    return np.asarray(np.sin(0.5 * np.pi * distance) ** 2)

"""Normal draws that depend on where in a picture they are needed, and on nothing else.

Overlapping patches see the same noise at the same pixel, so where they are blended, nothing is averaged away that one
patch alone would have. And neither the order of patches nor how many are worked on at a time can change a result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.diffusion.patches import Corner

_TILE = 64
"""Pixels a side of what is drawn at once. Small tiles waste less on patches that cut through them."""


class NoiseSource(Protocol):
    """Where random numbers come from."""

    def __call__(self, draw: int, corners: Sequence[Corner], channels: int, side: int) -> NDArray[np.float32]:
        """Noise for a batch of patches.

        Args:
            draw: which one of those that a patch needs, in the order of `purifier.Draws`.
            corners: of the patches in their picture.
            channels: C.
            side: S.

        Returns:
            (N, C, S, S) float32.
        """


@dataclass(frozen=True, slots=True)
class NoiseField:
    """A field of white noise without end for every draw.

    Attributes:
        seed: of the whole, 0 or more.
    """

    seed: int

    def __call__(self, draw: int, corners: Sequence[Corner], channels: int, side: int) -> NDArray[np.float32]:
        """Cut patches from the field: (N, C, S, S) float32."""
        return np.stack([self._patch(draw, corner, channels, side) for corner in corners])

    def _patch(self, draw: int, corner: Corner, channels: int, side: int) -> NDArray[np.float32]:
        rows, columns = (range(start // _TILE, -(-(start + side) // _TILE)) for start in corner)
        tiles = np.empty((channels, len(rows) * _TILE, len(columns) * _TILE), np.float32)
        for y, row in enumerate(rows):
            for x, column in enumerate(columns):
                tile = tiles[:, y * _TILE : (y + 1) * _TILE, x * _TILE : (x + 1) * _TILE]
                tile[:] = self._tile(draw, row, column, channels)
        top, left = corner[0] % _TILE, corner[1] % _TILE
        return tiles[:, top : top + side, left : left + side]

    def _tile(self, draw: int, row: int, column: int, channels: int) -> NDArray[np.float32]:
        generator = np.random.default_rng((self.seed, draw, row, column))
        return generator.standard_normal((channels, _TILE, _TILE), np.float32)

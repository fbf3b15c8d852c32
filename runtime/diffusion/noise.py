"""Normal draws that depend only on the position in the image, besides the seed.

Overlapping patches get the same noise at the same pixel, so blending them does not average the noise away. Neither the
order of the patches nor the batch size changes a result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.diffusion.patches import Corner

_TILE = 64
"""Side in pixels of a tile drawn at once. Small tiles waste less at the borders of patches."""


class NoiseSource(Protocol):
    """A source of random numbers."""

    def __call__(self, draw: int, corners: Sequence[Corner], channels: int, side: int) -> NDArray[np.float32]:
        """Noise for a batch of patches.

        Args:
            draw: number of the draw, see `purifier.Draws`.
            channels: C, channels of a patch.
            side: S, side of a patch.

        Returns:
            (N, C, S, S) float32.
        """


@dataclass(frozen=True, slots=True)
class NoiseField:
    """An infinite field of white noise per draw.

    Attributes:
        seed: 0 or more.
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

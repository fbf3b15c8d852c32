"""The number of tests, that is of candidate regions, in the number of false alarms (paper, section 4.2).

A connected region of r pixels on the square grid is a polyomino; their number grows like α βʳ / r (Jensen and
Guttmann, "Statistics of lattice animals (polyominoes) and polygons", J. Phys. A 33, 2000).
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

POLYOMINO_ALPHA = 0.316915
POLYOMINO_BETA = 4.062570


@lru_cache(maxsize=64)
def log10_regions_by_size(pixels: int) -> NDArray[np.float64]:
    """log10 of the number of regions of r pixels anywhere in a map of S pixels, ``S·α·βʳ/r``.

    Args:
        pixels: S, pixels of the map.

    Returns:
        (S + 1,) float64, read-only; entry r belongs to regions of r pixels, entry 0 is 0.
    """
    sizes = np.arange(pixels + 1, dtype=np.float64)
    sizes[0] = 1.0
    log_regions: NDArray[np.float64] = np.log10(pixels * POLYOMINO_ALPHA / sizes) + np.arange(pixels + 1) * np.log10(
        POLYOMINO_BETA
    )
    log_regions[0] = 0.0
    log_regions.flags.writeable = False
    return log_regions


@lru_cache(maxsize=64)
def log10_tests(pixels_by_scale: tuple[int, ...]) -> float:
    """log10 of the number of regions of any size at any scale, summed in the log domain, where it cannot overflow."""
    natural = np.concatenate([log10_regions_by_size(pixels)[1:] for pixels in pixels_by_scale]) * np.log(10)
    return float(np.logaddexp.reduce(natural) / np.log(10))


@lru_cache(maxsize=64)
def log10_tests_by_size(pixels: int, scales: int) -> NDArray[np.float64]:
    """log10 of the number of tests for a region of n pixels, if each of S sizes and k scales may raise 1/(kS) alarms.

    Args:
        pixels: S, pixels of the map.
        scales: k, number of maps.

    Returns:
        (S + 1,) float64, read-only: ``log10 k + log10 S + log10(S·α·βⁿ/n)`` at n.
    """
    by_size: NDArray[np.float64] = log10_regions_by_size(pixels) + np.log10(scales) + np.log10(pixels)
    by_size.flags.writeable = False
    return by_size


def pixels_of(maps: Sequence[NDArray[np.generic]]) -> tuple[int, ...]:
    """Number of pixels of each map."""
    return tuple(one.size for one in maps)

"""Counts how many regions good images show by chance, per size class, and fits a line in log10 p to the counts.

Each of the disjoint regions of at least s pixels above a level x contains a regional maximum, at or above x, of the
map's area opening of size s (Vincent, "Morphological area openings and closings for grey-scale images", 1994). So for
every x the mean number of those maxima bounds the mean number of false regions.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.nfa.component_tree import opening_maxima
from uflow_edge.runtime.nfa.null_model import TailLaw
from uflow_edge.runtime.numeric import FloatMap

_LARGEST_SHARE = 1 / 16  # of a map; larger regions count as regions of this size
_POINTS = 12
_FIRST_RANK = 2  # the highest level is left out because it scatters most
_GROWTHS = np.linspace(0, 1, 101)


def size_classes(pixels: int) -> int:
    """K, the number of size classes 1, 2, 4, … for a map of so many pixels."""
    return max(int(pixels * _LARGEST_SHARE), 1).bit_length()


def maxima_by_class(levels: FloatMap, width: int) -> list[NDArray[np.float64]]:
    """Levels of the regional maxima of all area openings, pooled over images, falling.

    Args:
        levels: (N, H*W) float32.
        width: W.

    Returns:
        K arrays, one for each opening of 1, 2, 4, … pixels.
    """
    classes = size_classes(levels.shape[1])
    found = [opening_maxima(one, width, classes) for one in levels]
    level, of_class = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return [np.sort(level[of_class == j])[::-1].astype(np.float64) for j in range(classes)]


def fit_regions(
    maxima: Sequence[NDArray[np.float64]], tail: TailLaw, images: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``repeats`` and ``counts`` of a `NullScale`, by least squares over the rarer half of the maxima.

    repeats = r · sᵃ for regions of s pixels, with 0 < r ≤ 1 and 0 ≤ a ≤ 1 common to all classes: a = 1 on independent
    pixels, near 0 where whole neighbourhoods rise together. Each class has a count of its own.

    Args:
        maxima: per class, falling, pooled over images.
        tail: of single pixels.
        images: N.
    """
    points = [_points(levels, tail, images) for levels in maxima]
    sizes = 2.0 ** np.arange(len(points))
    means = [(log_tail.mean(), log_mean.mean()) for log_tail, log_mean in points]
    centred = [(x - mx, y - my) for (x, y), (mx, my) in zip(points, means, strict=True)]
    products = np.array([x @ y for x, y in centred])
    squares = np.array([x @ x for x, _ in centred])
    best_gain, repeats = -np.inf, np.ones(len(points))
    for growth in _GROWTHS:
        power = sizes**growth
        rate = min(max(products @ power / max(squares @ power**2, 1e-12), 0.1), 1.0)
        gain = 2 * rate * products @ power - rate**2 * squares @ power**2
        if gain > best_gain:
            best_gain, repeats = gain, rate * power
    counts = np.array([my - r * mx for r, (mx, my) in zip(repeats, means, strict=True)])
    return repeats, counts


def _points(levels: NDArray[np.float64], tail: TailLaw, images: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """log10 p, and log10 of the mean number of maxima per image at or above it, at log-spaced ranks."""
    last = min(max(images // 2, 4 * _FIRST_RANK), levels.size)
    ranks = np.unique(np.geomspace(min(_FIRST_RANK, last), last, _POINTS).round().astype(np.intp))
    return tail.log10_tail(levels[ranks - 1]), np.log10(ranks / images)

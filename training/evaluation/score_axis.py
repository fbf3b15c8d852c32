"""Sorts the scores of pixels into fixed bins, so that memory does not depend on the number of images.

A bin holds the scores from its lower edge up to the next one, so a threshold at an edge is exact; only the order of
scores within a bin is lost (see `Ranking.auroc_uncertainty`).
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 1 << 16


class ScoreAxis(Protocol):
    """A rising map from scores to the bins 0 … `BINS` − 1; scores beyond its ends fall into the first or last bin."""

    def bins(self, scores: ArrayLike) -> NDArray[np.int32]:
        """The bin of each score, in the shape of ``scores``; infinities are allowed, NaN is not."""

    def lower_edge(self, chosen: int) -> float:
        """The lowest score in a bin, up to rounding."""


@dataclass(frozen=True, slots=True)
class EvenAxis:
    """Bins of equal width, for scores with known limits such as the likelihood map's [0, 1].

    Attributes:
        low, high: limits; each bin is (high − low) / `BINS` wide.
    """

    low: float = 0.0
    high: float = 1.0

    def bins(self, scores: ArrayLike) -> NDArray[np.int32]:
        """The bin of each score; scores beyond the limits fall into the outermost bins."""
        return _floor((np.asarray(scores, np.float64) - self.low) * (BINS / (self.high - self.low)))

    def lower_edge(self, chosen: int) -> float:
        return self.low + chosen * (self.high - self.low) / BINS


@dataclass(frozen=True, slots=True)
class SignedLogAxis:
    """Bins of equal width near 0 and of equal ratio far from it, for scores without limits such as −log10 NFA.

    Bins have equal width in the inverse hyperbolic sine of the score. With limits ±10⁹ a bin is 0.00065 wide at 0, and
    0.065 % of the score far from 0. 0 is an edge.

    Attributes:
        reach: the limits are ±reach.
    """

    reach: float = 1e9

    def bins(self, scores: ArrayLike) -> NDArray[np.int32]:
        half = BINS // 2
        return _floor(np.arcsinh(np.asarray(scores, np.float64)) * (half / np.arcsinh(self.reach)) + half)

    def lower_edge(self, chosen: int) -> float:
        half = BINS // 2
        return float(np.sinh((chosen - half) / half * np.arcsinh(self.reach)))


def _floor(positions: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.floor(np.clip(positions, 0, BINS - 1)).astype(np.int32)

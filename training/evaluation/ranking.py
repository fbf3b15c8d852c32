"""Metrics of how well a score separates defective items from good ones: ROC, average precision, per-region overlap.

Sources: Fawcett, "An introduction to ROC analysis", 2006; Bergmann et al., "The MVTec Anomaly Detection Dataset",
IJCV 2021, section 6.2 (per-region overlap, PRO).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

PRO_LIMIT = 0.3
"""False-positive rate up to which the overlap of regions is integrated (Bergmann et al.)."""


@dataclass(frozen=True)
class Ranking:
    """Counts of defective and good items at each score. It has no slots, as cached properties need a ``__dict__``.

    Attributes:
        defective: (K,) counts of defective items at K rising scores; not all 0.
        good: (K,) likewise; not all 0.
    """

    defective: NDArray[np.int64]
    good: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.defective.shape != self.good.shape or not (self.defective.any() and self.good.any()):
            raise ValueError("a ranking needs defective and good items, counted at the same scores")

    @classmethod
    def of(cls, scores: ArrayLike, is_defective: ArrayLike) -> "Ranking":
        """Rank single items exactly: every distinct score is kept.

        Args:
            scores: (N,).
            is_defective: (N,) bool, not all the same.
        """
        labels = np.asarray(is_defective, np.bool_)
        distinct, places = np.unique(np.asarray(scores), return_inverse=True)
        counts = (np.bincount(places[chosen], minlength=len(distinct)) for chosen in (labels, ~labels))
        return cls(*counts)

    @cached_property
    def false_positive_rate(self) -> NDArray[np.float64]:
        """(K + 1,) share of good items at or above a falling threshold, from 0 to 1."""
        return _rising_share(self.good)

    @cached_property
    def true_positive_rate(self) -> NDArray[np.float64]:
        """(K + 1,) share of defective items at or above a falling threshold, from 0 to 1."""
        return _rising_share(self.defective)

    @property
    def auroc(self) -> float:
        """Probability that a defective item scores above a good one; ties count half."""
        return _area(self.false_positive_rate, self.true_positive_rate)

    @property
    def auroc_uncertainty(self) -> float:
        """Largest change of the AUROC, up or down, if ties were ordered: half the share of tied pairs."""
        shared = np.dot(self.defective / self.defective.sum(), self.good / self.good.sum())
        return float(shared / 2)

    @property
    def average_precision(self) -> float:
        """Mean of the precision at each threshold, weighted with the added recall (no interpolation)."""
        found = np.cumsum(self.defective[::-1])
        flagged = found + np.cumsum(self.good[::-1])
        precision = np.divide(found, flagged, out=np.ones(len(found)), where=flagged > 0)
        return float(np.dot(self.defective[::-1], precision) / found[-1])


def aupro(false_positive_rate: NDArray[np.float64], overlap: NDArray[np.float64], limit: float = PRO_LIMIT) -> float:
    """Area under the per-region overlap up to a false-positive rate, divided by that rate: 1 is perfect.

    Args:
        false_positive_rate: (K,) rising from 0 to 1.
        overlap: (K,) mean detected part of each defect, rising from 0 to 1.
        limit: the false-positive rate, in (0, 1]; the curve is interpolated linearly.
    """
    inside = int(np.searchsorted(false_positive_rate, limit, side="right"))
    end = float(np.interp(limit, false_positive_rate, overlap)) if inside < len(overlap) else float(overlap[-1])
    x = np.append(false_positive_rate[:inside], limit)
    y = np.append(overlap[:inside], end)
    return _area(x, y) / limit


def rising_overlap(weights: NDArray[np.float64], regions: int) -> NDArray[np.float64]:
    """Mean part of each region at or above a falling threshold, (K + 1,) from 0 to 1.

    Args:
        weights: (K,) at rising scores: sum over pixels of 1 / area of the pixel's region.
    """
    return np.concatenate([[0.0], np.cumsum(weights[::-1]) / regions])


def thinned(x: NDArray[np.float64], y: NDArray[np.float64], points: int = 256) -> list[list[float]]:
    """Points of a curve at about equal distances along it, including its ends."""
    along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    chosen = np.unique(np.searchsorted(along, np.linspace(0.0, along[-1], points)))
    chosen = np.unique(np.append(np.minimum(chosen, len(x) - 1), len(x) - 1))
    return [[round(float(x[i]), 6), round(float(y[i]), 6)] for i in chosen]


def _rising_share(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(np.concatenate([[0], np.cumsum(counts[::-1])]) / counts.sum(), np.float64)


def _area(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    return float(np.dot(np.diff(x), (y[1:] + y[:-1]) / 2))

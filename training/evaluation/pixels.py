"""Accumulators of pixel metrics: images are added one by one, and memory depends on the number of bins only.

All sums are integers, with fractions in units of 2⁻⁴⁰. So neither the order of the images nor their split among
accumulators that are merged later changes a bit; the sums hold eight million images.

Sources: U-Flow (arXiv 2211.12353), section 5.3: the mean of each image's intersection over union, at log-NFA 0 and at
the best threshold; Bergmann et al., IJCV 2021: the per-region overlap.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.numeric import FloatMap
from uflow_edge.training.evaluation.ranking import Ranking, aupro, rising_overlap, thinned
from uflow_edge.training.evaluation.score_axis import BINS, ScoreAxis

EPSILON = 1e-10
"""Makes the overlap of two empty masks 1, and has no visible effect on others."""
_ONE = 1 << 40


def intersection_over_union(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """(TP + ε) / (TP + FP + FN + ε): 1 if both masks are empty, nearly 0 if one of them is.

    Args:
        predicted, truth: (H, W) bool.
    """
    both, either = int(np.count_nonzero(predicted & truth)), int(np.count_nonzero(predicted | truth))
    return (both + EPSILON) / (either + EPSILON)


@dataclass(frozen=True, slots=True)
class PixelMetrics:
    """The metrics of one kind of score map, over all images.

    Attributes:
        auroc_uncertainty: largest possible error of the AUROC, from ties within bins.
        aupro: per-region overlap, integrated to a false-positive rate of 30 % and normalised.
        oracle_iou: mean intersection over union at its best single threshold.
        oracle_threshold: that threshold; a pixel at or above it is detected.
        roc: points [false-positive rate, true-positive rate] of the curve.
        pro: points [false-positive rate, overlap] of the curve.
    """

    auroc: float
    auroc_uncertainty: float
    aupro: float
    oracle_iou: float
    oracle_threshold: float
    roc: list[list[float]]
    pro: list[list[float]]


class PixelScores:
    """Counts scores of pixels inside and outside defects.

    Memory: four arrays of at most `BINS` + 1 numbers, 2 MB, for any number and size of images. Thresholds are the edges
    of the axis's bins.

    Attributes:
        arrays: all counts, for `of_arrays`.
    """

    def __init__(self, axis: ScoreAxis) -> None:
        self._axis = axis
        self.arrays: dict[str, NDArray[np.int64]] = {
            **{name: np.zeros(BINS, np.int64) for name in ("defective", "good", "overlap")},
            "iou": np.zeros(BINS + 1, np.int64),  # the last threshold is above all scores
            "counts": np.zeros(2, np.int64),  # of regions and images
        }

    def add(self, scores: FloatMap, truth: NDArray[np.bool_]) -> None:
        """Add one image.

        Args:
            scores: (H, W), higher is more anomalous.
            truth: (H, W) bool mask of the defects; 8-connected pixels are one region.
        """
        bins = self._axis.bins(scores)
        inside = bins[truth]
        defective = np.bincount(inside, minlength=BINS)
        good = np.bincount(bins[~truth], minlength=BINS)
        self.arrays["defective"] += defective
        self.arrays["good"] += good
        self.arrays["iou"] += _fixed(_iou_at_every_threshold(defective, good))
        self.arrays["counts"] += (0, 1)
        if inside.size:
            regions, labels = cv2.connectedComponents(truth.astype(np.uint8), connectivity=8)
            of_pixel = labels[truth]
            areas = np.bincount(of_pixel, minlength=regions)
            shares = np.bincount(inside, weights=1 / areas[of_pixel], minlength=BINS)
            self.arrays["overlap"] += _fixed(np.asarray(shares, np.float64))
            self.arrays["counts"] += (regions - 1, 0)

    def merge(self, other: "PixelScores") -> None:
        assert self._axis == other._axis, "histograms of different bins cannot be added"
        for name, values in other.arrays.items():
            self.arrays[name] += values

    @classmethod
    def of_arrays(cls, axis: ScoreAxis, arrays: Mapping[str, NDArray[np.int64]]) -> "PixelScores":
        """An accumulator on this axis that continues from the `arrays` of another."""
        found = cls(axis)
        found.arrays = {name: arrays[name] for name in found.arrays}
        return found

    def metrics(self) -> PixelMetrics:
        """The metrics of all images so far.

        Raises:
            ValueError: there are no defective or no good pixels.
        """
        ranking = Ranking(self.arrays["defective"], self.arrays["good"])
        regions, images = self.arrays["counts"].tolist()
        overlap = rising_overlap(self.arrays["overlap"] / _ONE, regions)
        rate = ranking.false_positive_rate
        mean_iou = self.arrays["iou"] / (_ONE * images)
        best = int(mean_iou.argmax())
        return PixelMetrics(
            auroc=ranking.auroc,
            auroc_uncertainty=ranking.auroc_uncertainty,
            aupro=aupro(rate, overlap),
            oracle_iou=float(mean_iou[best]),
            oracle_threshold=self._axis.lower_edge(best) if best < BINS else math.inf,
            roc=thinned(rate, ranking.true_positive_rate),
            pro=thinned(rate, overlap),
        )


def _iou_at_every_threshold(defective: NDArray[np.int64], good: NDArray[np.int64]) -> NDArray[np.float64]:
    """(BINS + 1,): intersection over union of one image if pixels in bin k and above are detected."""
    found = np.append(np.cumsum(defective[::-1])[::-1], 0)
    false_alarms = np.append(np.cumsum(good[::-1])[::-1], 0)
    return np.asarray((found + EPSILON) / (defective.sum() + false_alarms + EPSILON), np.float64)


def _fixed(fractions: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.rint(fractions * _ONE).astype(np.int64)


@dataclass(frozen=True, slots=True)
class DecisionMetrics:
    """The metrics of the decisions at a fixed threshold.

    Attributes:
        threshold: on the score, −log10 NFA; pixels above it are detected.
        mean_iou: mean over all images of the intersection over union of detected and true mask; None without masks.
        false_alarms_per_good_image: regions found in good images, per good image.
        good_flagged: share of good images with at least one region.
        defective_found: share of defective images with at least one region.
    """

    threshold: float
    mean_iou: float | None
    false_alarms_per_good_image: float
    good_flagged: float
    defective_found: float


class Decisions:
    """Counts the decisions at one threshold."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._iou = 0
        self._compared = 0  # images with masks
        self._false_alarms = 0
        self._images = Counter[bool]()  # by whether they are good
        self._flagged = Counter[bool]()

    def add(
        self, predicted: NDArray[np.bool_], truth: NDArray[np.bool_] | None, regions: int, *, is_good: bool
    ) -> None:
        """Add one image.

        Args:
            predicted, truth: (H, W) bool masks of detected pixels and of defects; truth is None without masks.
        """
        if truth is not None:
            self._iou += round(intersection_over_union(predicted, truth) * _ONE)
            self._compared += 1
        self._images[is_good] += 1
        self._flagged[is_good] += regions > 0
        self._false_alarms += regions if is_good else 0

    def merge(self, other: "Decisions") -> None:
        assert self._threshold == other._threshold, "decisions at different thresholds cannot be added"
        self._iou += other._iou
        self._compared += other._compared
        self._false_alarms += other._false_alarms
        self._images.update(other._images)
        self._flagged.update(other._flagged)

    @property
    def flagged(self) -> int:
        """Number of images on which at least one region was found."""
        return self._flagged.total()

    def counts(self) -> NDArray[np.int64]:
        images = [count[is_good] for count in (self._images, self._flagged) for is_good in (True, False)]
        return np.array([self._iou, self._compared, self._false_alarms, *images], np.int64)

    @classmethod
    def of_counts(cls, threshold: float, counts: NDArray[np.int64]) -> "Decisions":
        """An accumulator at this threshold that continues from `counts`."""
        found = cls(threshold)
        found._iou, found._compared, found._false_alarms, *images = counts.tolist()
        found._images.update({True: images[0], False: images[1]})
        found._flagged.update({True: images[2], False: images[3]})
        return found

    def metrics(self) -> DecisionMetrics:
        """The metrics of all images so far; there must be good and defective ones."""
        good, defective = self._images[True], self._images[False]
        return DecisionMetrics(
            threshold=self._threshold,
            mean_iou=self._iou / (_ONE * self._compared) if self._compared else None,
            false_alarms_per_good_image=self._false_alarms / good,
            good_flagged=self._flagged[True] / good,
            defective_found=self._flagged[False] / defective,
        )

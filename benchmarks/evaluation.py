"""How well image scores separate good from defective images, with an interval."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uflow_edge.training.evaluation.ranking import Ranking

_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Labelled:
    """Images to test with.

    Attributes:
        defective: (N,) bool.
    """

    paths: list[Path]
    defective: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Detector:
    """One way to score an image; higher is more anomalous.

    Attributes:
        scores: of the test images, in their order.
        natural_threshold: the threshold that the method itself defines, such as log-NFA 0; None: it defines none.
    """

    name: str
    scores: list[float]
    natural_threshold: float | None = None

    def auroc(self, test: Labelled) -> float:
        return Ranking.of(self.scores, test.defective).auroc

    def auroc_interval(self, test: Labelled, seed: int = 0) -> tuple[float, float]:
        """95 % bootstrap interval of the AUROC over the test images."""
        random = np.random.default_rng(seed)
        scores = np.asarray(self.scores)
        bad, good = np.flatnonzero(test.defective), np.flatnonzero(~test.defective)
        values = []
        for _ in range(_RESAMPLES):
            chosen = np.concatenate([random.choice(bad, len(bad)), random.choice(good, len(good))])
            values.append(Ranking.of(scores[chosen], test.defective[chosen]).auroc)
        low, high = np.quantile(values, [0.025, 0.975])
        return float(low), float(high)

    def found_at(self, test: Labelled, false_alarm_rate: float) -> float:
        """Share of defective images above the threshold that this share of the good test images exceeds."""
        scores = np.asarray(self.scores)
        threshold = np.quantile(scores[~test.defective], 1 - false_alarm_rate, method="higher")
        return float((scores[test.defective] > threshold).mean())

    def at_threshold(self, test: Labelled, threshold: float) -> tuple[float, float]:
        """Shares of defective and of good images above a threshold: found, and false alarms."""
        above = np.asarray(self.scores) > threshold
        return float(above[test.defective].mean()), float(above[~test.defective].mean())

    def summary(self, test: Labelled) -> str:
        low, high = self.auroc_interval(test)
        found = f"{self.found_at(test, 0.05):.1%} found at 5 % false alarms"
        return f"AUROC {self.auroc(test):.4f} ({low:.3f} to {high:.3f}), {found}"

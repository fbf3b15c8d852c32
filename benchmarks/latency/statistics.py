"""What repeated timings say."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

FEWEST_SAMPLES = 5


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of some samples, in their unit."""

    p50: float
    p90: float
    p99: float
    maximum: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Percentiles":
        """Linearly interpolated between samples; at least one of them."""
        p50, p90, p99 = np.percentile(samples, [50, 90, 99])
        return cls(float(p50), float(p90), float(p99), float(max(samples)))


def paired_ratio(samples: Sequence[float], others: Sequence[float]) -> float:
    """Median over the rounds of ``samples / others``, both positive and of the same rounds.

    What slows a round down slows both samples of it, so it cancels in their ratio.
    """
    return median(sample / other for sample, other in zip(samples, others, strict=True))

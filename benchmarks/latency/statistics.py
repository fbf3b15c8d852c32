"""Statistics of repeated timings."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

FEWEST_SAMPLES = 5


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Percentiles of samples, in the unit of the samples."""

    p50: float
    p90: float
    p99: float
    maximum: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Percentiles":
        """Interpolate linearly between the samples, of which there must be at least one."""
        p50, p90, p99 = np.percentile(samples, [50, 90, 99])
        return cls(float(p50), float(p90), float(p99), float(max(samples)))


def paired_ratio(samples: Sequence[float], others: Sequence[float]) -> float:
    """Median over the rounds of ``samples / others``; both are positive and of the same rounds.

    A disturbance of a round slows both of its samples, so it cancels in their ratio.
    """
    return median(sample / other for sample, other in zip(samples, others, strict=True))

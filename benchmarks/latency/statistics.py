"""What repeated timings say, and what noise alone could have said.

Neighbouring rounds share whatever the machine was busy with, so samples are not independent: intervals come from the
circular block bootstrap (Politis and Romano, 1992), which draws runs of neighbours instead of single samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Verdict: TypeAlias = Literal[
    "faster",
    "slower",
    "no difference that noise does not explain",
    "no more than the machine itself changed",
    "too few samples",
]

CONFIDENCE = 0.99
"""Of an interval: a comparison has dozens of rows, and each is a chance to be fooled."""
LEAST_DIFFERENCE = 0.03
"""Ratios nearer to 1 than this are not called: two processes of one program differ a little, by the layout of their
memory for one, and no number of rounds within a process shows that."""
FEWEST_SAMPLES = 5
_RESAMPLES = 4000


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


@dataclass(frozen=True, slots=True)
class Change:
    """From one run to a later one.

    Attributes:
        ratio: of the medians, later over earlier; below 1, it got faster.
        low: lower end of its bootstrap interval.
        high: upper end.
        verdict: in words.
    """

    ratio: float
    low: float
    high: float
    verdict: Verdict


def change(
    before: Sequence[float],
    after: Sequence[float],
    machine: tuple[float, float] = (1.0, 1.0),
    least: float = LEAST_DIFFERENCE,
) -> Change:
    """Compare durations, all of them positive.

    Args:
        before: samples of the earlier run, in order.
        after: of the later one.
        machine: interval of the ratio by which the machine itself changed, as its yardsticks tell; it holds 1.
        least: smallest difference of the ratio from 1 that is called one; where either run drifted by more, that.
    """
    ratio = float(np.median(after) / np.median(before))
    if min(len(before), len(after)) < FEWEST_SAMPLES:
        return Change(ratio, 0.0, float("inf"), "too few samples")
    low, high = ratio_interval(before, after)
    least = max(least, drift(before), drift(after))
    slowest, fastest = 1 + least, 1 / (1 + least)
    verdict: Verdict = "no difference that noise does not explain"
    if low > slowest:
        verdict = "slower" if low > slowest * machine[1] else "no more than the machine itself changed"
    elif high < fastest:
        verdict = "faster" if high < fastest * machine[0] else "no more than the machine itself changed"
    return Change(ratio, low, high, verdict)


def drift(samples: Sequence[float]) -> float:
    """By how much the medians of a run's thirds differ, as a fraction: what moves so within a run does so between runs.

    Fewer than 30 samples have thirds too short to tell drift from noise: 0.
    """
    if len(samples) < 30:
        return 0.0
    medians = [float(np.median(third)) for third in np.array_split(np.asarray(samples), 3)]
    return max(medians) / min(medians) - 1


def ratio_interval(
    before: Sequence[float], after: Sequence[float], confidence: float = CONFIDENCE, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval of median(after) / median(before), for positive samples in the order they were taken."""
    random = np.random.default_rng(seed)
    ratios = _resampled_medians(after, random) / _resampled_medians(before, random)
    low, high = np.percentile(ratios, [50 * (1 - confidence), 50 * (1 + confidence)])
    return float(low), float(high)


def _resampled_medians(samples: Sequence[float], random: np.random.Generator) -> NDArray[np.float64]:
    """(_RESAMPLES,) medians of as many samples, drawn in blocks of n^(1/3) neighbours."""
    values = np.asarray(samples, np.float64)
    count = values.size
    block = max(1, round(count ** (1 / 3)))
    starts = random.integers(count, size=(_RESAMPLES, -(-count // block), 1))
    indices = ((starts + np.arange(block)) % count).reshape(_RESAMPLES, -1)[:, :count]
    medians: NDArray[np.float64] = np.median(values[indices], axis=1)
    return medians

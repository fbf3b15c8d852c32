"""Block NFA: how many channels exceed a fixed quantile in a window around each pixel (arXiv 2211.12353v1).

The older of U-Flow's two detection rules. Under the null model each latent exceeds the quantile with probability
1 − p, so the number of exceedances in a window follows a binomial law. The scales' tails are multiplied, and windows
may be anywhere on any scale: Σ H_i·W_i tests. So a score above 0 means NFA < 1 as the authors count; it is no bound if
channels or scales depend on each other.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from uflow_edge.runtime.nfa.counts import pixels_of
from uflow_edge.runtime.nfa.maps import checked_maps, upsample_bicubic
from uflow_edge.runtime.numeric import FloatMap, Size

DEFAULT_WINDOW = 5
DEFAULT_PROBABILITY = 0.9


def exceedance_threshold(probability: float = DEFAULT_PROBABILITY) -> float:
    """τ, the quantile of z² at the given probability when z is standard normal: χ²₁⁻¹(p) = (Φ⁻¹((1 + p)/2))²."""
    return NormalDist().inv_cdf((1 + probability) / 2) ** 2


def block_score(
    exceedances: Sequence[ArrayLike],
    channels: Sequence[int],
    size: Size,
    *,
    window: int = DEFAULT_WINDOW,
    probability: float = DEFAULT_PROBABILITY,
) -> FloatMap:
    """Map of −log10 NFA from exceedance counts.

    Where upstream returns infinity (every latent of a window exceeds: its strict tail is empty), the probability of
    the full window itself is used, so the result is always finite.

    Args:
        exceedances: per scale, finest first, (H_i, W_i): how many of the C_i latents have z² ≥ τ, a count.
        channels: per scale, C_i.
        size: (height, width) of the result.
        window: side of the window at the finest scale in pixels; scale i has side 2·max(⌊window/2ⁱ/2⌋, 1) + 1.
        probability: p, at which τ was taken (see `exceedance_threshold`).

    Returns:
        (height, width) float32, higher is more anomalous.

    Raises:
        ValueError: maps that cannot be counts of exceedances, or parameters out of range.
    """
    if window < 1 or not 0 < probability < 1:
        raise ValueError(f"expected window >= 1 and 0 < probability < 1, got {window} and {probability}")
    maps = checked_maps("exceedance", exceedances, channels, size)
    log_nfa = np.full(size, np.log10(sum(pixels_of(maps))))
    for scale, (counts, count) in enumerate(zip(maps, channels, strict=True)):
        if counts.max() > count:
            raise ValueError(f"exceedance map {scale}: counts up to {counts.max():g}, but only {count} channels")
        half = max(int((window / 2**scale) // 2), 1)
        log_nfa += upsample_bicubic(_log10_probability(counts, count, half, 1 - probability), *size)
    return np.asarray(-log_nfa, np.float32)


def _log10_probability(counts: FloatMap, channels: int, half: int, exceeding: float) -> NDArray[np.float64]:
    side = 2 * half + 1
    total = cv2.boxFilter(counts, cv2.CV_64F, (side, side), normalize=False, borderType=cv2.BORDER_REFLECT_101)
    mean_count = np.asarray(total // channels, np.intp)  # of the window's pixels, per channel, rounded down
    return _log10_binomial_tail(side * side, exceeding)[mean_count]


def binomial_log_mass(n: int, p: float) -> NDArray[np.float64]:
    """ln P(X = k) for k = 0..n, X binomial(n, p), (n + 1,)."""
    k = np.arange(n)
    steps = np.log((n - k) / (k + 1)) + math.log(p) - math.log1p(-p)
    return np.asarray(np.concatenate([[0.0], np.cumsum(steps)]) + n * math.log1p(-p), np.float64)


@lru_cache(maxsize=16)
def _log10_binomial_tail(n: int, p: float) -> NDArray[np.float64]:
    """log10 P(X > x) for x = 0..n−1 and P(X = n) at n, X binomial(n, p)."""
    log_mass = binomial_log_mass(n, p)
    at_least = np.logaddexp.accumulate(log_mass[::-1])[::-1]
    return np.asarray(np.append(at_least[1:], log_mass[n]) / np.log(10), np.float64)

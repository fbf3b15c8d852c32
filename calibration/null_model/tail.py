"""Fits the tail law of good levels: a gamma body, and above a threshold a generalised Pareto law.

The body goes through the 10 % quantile, the median and the threshold, so it joins the tail without a step. The tail's
parameters come from probability-weighted moments (Hosking and Wallis, Technometrics 29, 1987), which need no search
and cope with few exceedances better than maximum likelihood.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uflow_edge.runtime.nfa.chi_square import chi_square_log10_tail
from uflow_edge.runtime.nfa.null_model import TailLaw

EXCEEDANCE = 0.05
_LOW = 0.9  # tail probability at the lowest quantile
_DEGREES = (0.5, 1e5)
_LARGEST_SHAPE = 0.9
_BISECTIONS = 60


def fit_tail(levels: ArrayLike) -> TailLaw:
    """Fit the law to pooled levels of good pixels, positive, of any shape."""
    ordered = np.sort(np.asarray(levels, np.float64).ravel())
    low, median, threshold = (float(q) for q in np.quantile(ordered, [1 - _LOW, 0.5, 1 - EXCEEDANCE]))
    smallest = max(1e-6 * threshold, float(np.finfo(np.float32).tiny))  # constant levels have no deviation
    threshold, low = max(threshold, median + smallest), min(low, median - smallest)
    above = ordered[np.searchsorted(ordered, threshold, side="right") :] - threshold
    shape, spread = _pareto(above) if above.size > 1 else (0.0, threshold - median)
    degrees = _degrees((threshold - median) / (median - low))
    middle, top = _quantile(0.5, degrees), _quantile(EXCEEDANCE, degrees)
    scale = (threshold - median) / (top - middle)
    return TailLaw(degrees, scale, threshold - scale * top, threshold, EXCEEDANCE, shape, max(spread, smallest))


def _pareto(excesses: NDArray[np.float64]) -> tuple[float, float]:
    """Shape ξ, at least 0, and scale β."""
    n = excesses.size
    mean = float(excesses.mean())
    weighted = float(((1 - (np.arange(1, n + 1) - 0.35) / n) * excesses).mean())
    if mean <= 2 * weighted:  # lighter than any Pareto law
        return 0.0, mean
    shape = min(max(2 - mean / (mean - 2 * weighted), 0.0), _LARGEST_SHAPE)
    return shape, mean * (1 - shape)


def _degrees(ratio: float) -> float:
    """ν of the χ² law with this ratio of the distances (threshold − median) / (median − low); it falls as ν grows."""
    low, high = _DEGREES
    for _ in range(_BISECTIONS):
        degrees = math.sqrt(low * high)
        bottom, middle, top = (_quantile(tail, degrees) for tail in (_LOW, 0.5, EXCEEDANCE))
        if top - middle > ratio * (middle - bottom):
            low = degrees
        else:
            high = degrees
    return math.sqrt(low * high)


def _quantile(tail: float, degrees: float) -> float:
    """E with P(χ²_ν ≥ E) = tail."""
    low, high, log_tail = 0.0, degrees + 60 + 20 * math.sqrt(degrees), math.log10(tail)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if chi_square_log10_tail(middle, degrees) > log_tail:
            low = middle
        else:
            high = middle
    return (low + high) / 2

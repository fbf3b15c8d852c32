"""The law of normalised levels of good pixels: a gamma body, and a generalised Pareto tail above a high quantile.

Peaks over threshold: Pickands, Ann. Statist. 3, 1975; Coles, "An Introduction to Statistical Modeling of Extreme
Values", 2001, section 4.3.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uflow_edge.runtime.compiled import compiled
from uflow_edge.runtime.nfa.chi_square import chi_square_log10_tail
from uflow_edge.runtime.numeric import FloatMap

_KNOTS = 1024
_FEWEST_DEGREES = 1e-3  # far below, the tail is lost to rounding
_LARGEST, _LARGEST_BODY = 1e6, 1e9


@dataclass(frozen=True, slots=True)
class TailLaw:
    """Distribution of normalised levels of good pixels.

    Attributes:
        degrees: ν of the body, a χ²_ν law (a gamma law of shape ν/2) times ``scale`` plus ``shift``.
        scale: of the body.
        shift: of the body, less than u.
        threshold: u, level where the generalised Pareto law takes over.
        exceedance: P(level ≥ u); the body has the same tail there, so the two join.
        shape: ξ ≥ 0 of the generalised Pareto law; 0 is exponential.
        spread: β > 0, its scale.
    """

    degrees: float
    scale: float
    shift: float
    threshold: float
    exceedance: float
    shape: float
    spread: float

    def __post_init__(self) -> None:
        """Levels are near 1, so these wide bounds admit every real law, and none that takes long to compute."""
        positive = (self.degrees, self.scale, self.threshold, self.spread)
        within = all(0 < value <= _LARGEST for value in positive) and -_LARGEST <= self.shift < self.threshold
        within = within and self.degrees >= _FEWEST_DEGREES
        if not (within and 1e-300 <= self.exceedance <= 1 and 0 <= self.shape < 10):
            raise ValueError(f"expected a distribution of levels near 1, got {self}")
        if self.threshold - self.shift > _LARGEST_BODY * self.scale:
            raise ValueError(f"expected a distribution of levels with a wider body, got {self}")

    def log10_tail(self, levels: ArrayLike) -> NDArray[np.float64]:
        """log10 P(level ≥ x) of a good pixel, element by element; the body to 1e-4 or better.

        Args:
            levels: x ≥ 0, any shape.
        """
        values = np.ascontiguousarray(levels, np.float32)
        return _log10_tail(values.ravel(), _body_table(self), *self._pareto()).reshape(np.shape(levels))

    def _pareto(self) -> tuple[float, float, float, float]:
        return self.threshold, math.log10(self.exceedance), self.shape, self.spread


@lru_cache(maxsize=64)
def _body_table(law: TailLaw) -> NDArray[np.float64]:
    knots = np.linspace(0, law.threshold, _KNOTS + 1)
    return chi_square_log10_tail((knots - law.shift) / law.scale, law.degrees)


@compiled
def _log10_tail(
    levels: FloatMap, body: NDArray[np.float64], threshold: float, log_exceedance: float, shape: float, spread: float
) -> NDArray[np.float64]:
    """The body from straight lines between exact values, the tail in closed form; (n,) float64."""
    out = np.empty(levels.size)
    steps = body.size - 1
    for i in range(levels.size):
        excess = (levels[i] - threshold) / spread
        if excess < 0:
            position = levels[i] / threshold * steps
            knot = min(int(position), steps - 1)
            out[i] = body[knot] + (position - knot) * (body[knot + 1] - body[knot])
        else:
            decay = math.log1p(shape * excess) / shape if shape > 1e-9 else excess
            out[i] = log_exceedance - decay / math.log(10.0)
    return out

"""A threshold with a promise: at most a share α of good images lies above it, with confidence 1 − δ.

Take as threshold, of n exchangeable scores of good images, the score that r others exceed. Whatever their distribution,
the share of good images above it exceeds α only if at most r of n trials with success probability α succeed:

    P(share > α) ≤ P(Binomial(n, α) ≤ r)

(distribution-free tolerance limits: Wilks, Ann. Math. Statist. 12, 1941; as a property of conformal prediction: Vovk,
"Conditional validity of inductive conformal predictors", 2012). So r is the largest number for which the right side is
at most δ. "Above" is strict, so ties only lower the share. Without a confidence, the promise holds on average over
draws of the n images, and fewer images suffice (`runtime.operating_point.conformal_operating_point`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.errors import BadInput, UsageError
from uflow_edge.runtime.nfa.block import binomial_log_mass
from uflow_edge.runtime.operating_point import OperatingPoint, conformal_operating_point

_ROUNDING = 1e-9
_BISECTIONS = 60


class TooFewImages(BadInput):
    """So few images cannot support the promise; the message says what they can promise."""


@dataclass(frozen=True, slots=True)
class Promise:
    """The promise of a threshold.

    Attributes:
        false_alarm_rate: α, the largest share of good images that may be called anomalous.
        confidence: 1 − δ, the probability over draws of the held-out images that the promise holds; None: on average.

    Raises:
        UsageError: on construction, unless both lie between 0 and 1.
    """

    false_alarm_rate: float = 0.01
    confidence: float | None = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.false_alarm_rate < 1:
            raise UsageError(f"false-alarm rate {self.false_alarm_rate}: expected a number between 0 and 1")
        if self.confidence is not None and not 0 < self.confidence < 1:
            raise UsageError(f"confidence {self.confidence}: expected a number between 0 and 1")

    @property
    def images_needed(self) -> int:
        """The fewest held-out images that allow this promise."""
        if self.confidence is None:
            return math.ceil(1 / self.false_alarm_rate - _ROUNDING) - 1
        return math.ceil(math.log(1 - self.confidence) / math.log1p(-self.false_alarm_rate) - _ROUNDING)

    def require(self, images: int) -> None:
        """Check that so many held-out images suffice.

        Raises:
            TooFewImages: the message says what they can promise.
        """
        if images < self.images_needed:
            raise TooFewImages(
                f"{images} held-out good images cannot promise {self}: {self.images_needed} are needed"
                + (f". With {images}: {alternatives(images, self)}" if images else "")
            )

    def __str__(self) -> str:
        trust = "on average" if self.confidence is None else f"with {self.confidence * 100:.4g} % confidence"
        return f"at most {self.false_alarm_rate * 100:.4g} % false alarms {trust}"


def operating_point(good_scores: Sequence[float], promise: Promise = Promise()) -> OperatingPoint:
    """The lowest threshold that keeps a promise.

    Args:
        good_scores: of held-out good images, which neither training nor the null model has seen.

    Raises:
        TooFewImages: see `Promise.require`.
    """
    promise.require(len(good_scores))
    if promise.confidence is None:
        return conformal_operating_point(good_scores, promise.false_alarm_rate)
    n = len(good_scores)
    above = exceedances_allowed(n, promise.false_alarm_rate, promise.confidence)
    threshold = sorted(good_scores)[n - 1 - above]
    return OperatingPoint(threshold, "conformal", promise.false_alarm_rate, n, promise.confidence)


def exceedances_allowed(images: int, false_alarm_rate: float, confidence: float) -> int:
    """r, the number of held-out images that may lie above the threshold; −1 if there are too few images."""
    cumulative = np.cumsum(_binomial(images, false_alarm_rate))
    return int(np.searchsorted(cumulative, 1 - confidence + 1e-12, side="right")) - 1


def alternatives(images: int, promise: Promise) -> str:
    """What so many images can promise, with the options of ``uflow-calibrate`` for it."""
    average = Promise(_rounded_up(1 / (images + 1)), None)
    found = [f"{average} (--max-false-alarms {average.false_alarm_rate:g} --confidence average)"]
    if promise.confidence is not None:
        weaker = Promise(_rounded_up(-math.expm1(math.log(1 - promise.confidence) / images)), promise.confidence)
        found.insert(0, f"{weaker} (--max-false-alarms {weaker.false_alarm_rate:g})")
        confidence = math.floor(-math.expm1(images * math.log1p(-promise.false_alarm_rate)) * 1000) / 1000
        if confidence > 0:
            found.insert(1, f"{Promise(promise.false_alarm_rate, confidence)} (--confidence {confidence:g})")
    return "; or ".join(found)


def clopper_pearson(count: int, images: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval of a share, observed as ``count`` of ``images`` (Biometrika 26, 1934)."""
    if not 0 <= count <= images or images < 1:
        raise ValueError(f"expected a count among at least one image, got {count} of {images}")
    side = (1 - confidence) / 2
    low = 0.0 if count == 0 else _share_where(lambda p: 1 - float(_binomial(images, p)[:count].sum()), side)
    high = 1.0 if count == images else _share_where(lambda p: -float(_binomial(images, p)[: count + 1].sum()), -side)
    return low, high


def threshold_band(good_scores: Sequence[float], false_alarm_rate: float, confidence: float) -> tuple[float, float]:
    """The interval of scores that holds the true 1 − α quantile of good images, each end with this confidence.

    The upper end is the threshold of `operating_point`. With few images the ends may be −∞ and ∞.
    """
    ordered, n = sorted(good_scores), len(good_scores)
    above = exceedances_allowed(n, false_alarm_rate, confidence)
    cumulative = np.cumsum(_binomial(n, false_alarm_rate))
    # The quantile is at least the score that r others reach, if Binomial(n, α) rarely exceeds r.
    at_most = int(np.searchsorted(cumulative, confidence, side="left"))
    low = ordered[n - 1 - at_most] if at_most < n else -math.inf
    return low, ordered[n - 1 - above] if above >= 0 else math.inf


def _binomial(tosses: int, share: float) -> NDArray[np.float64]:
    """P(Binomial = k) for k = 0 … tosses, (tosses + 1,)."""
    return np.exp(binomial_log_mass(tosses, share))


def _share_where(rising: Callable[[float], float], value: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < value else (low, middle)
    return (low + high) / 2


def _rounded_up(share: float) -> float:
    """Rounded up to three digits, so that the suggested value can be met."""
    unit = 10.0 ** (math.floor(math.log10(share)) - 2)
    return min(math.ceil(share / unit) * unit, 0.999)

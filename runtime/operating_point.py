"""The threshold between good and anomalous parts, and what it promises."""

import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Literal, get_args

from uflow_edge.runtime.errors import BadInput

Origin = Literal["log_nfa_0", "conformal", "manual"]
LARGEST_THRESHOLD = 1e30
"""Largest absolute value: a threshold that no score reaches would switch detection off."""


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A threshold on the image score, and its origin.

    Attributes:
        threshold: an image is anomalous when its score, −log10 NFA, is above.
        origin: ``log_nfa_0``, the a contrario threshold: fewer than one false detection per image is expected if
            latents follow the null model; ``conformal``, taken from good images of the line itself; or ``manual``, set
            by a person, without a promise.
        false_alarm_rate: with ``conformal``, the bound on the probability that a new good image is called anomalous.
        good_images: with ``conformal``, how many images it rests on.
        confidence: with ``conformal``, the confidence in that bound; None: the bound holds on average.
        suspicious: how many of these images look anomalous, if the threshold depends on them.
        doubt: why the promise of these numbers does not hold; None if it does.

    Raises:
        BadInput: on construction, unless the threshold is a finite number, the origin is known, and a conformal
            threshold has a false-alarm rate and good images.
    """

    threshold: float
    origin: Origin
    false_alarm_rate: float | None = None
    good_images: int | None = None
    confidence: float | None = None
    suspicious: int = 0
    doubt: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", _number("threshold", self.threshold, LARGEST_THRESHOLD))
        if self.origin not in get_args(Origin):
            raise BadInput(f"origin {self.origin!r}: expected one of {', '.join(get_args(Origin))}")
        for name, share in (("false-alarm rate", self.false_alarm_rate), ("confidence", self.confidence)):
            if share is not None and not 0 < _number(name, share, 1) < 1:
                raise BadInput(f"{name} {share}: expected a number between 0 and 1")
        if self.good_images is not None and (type(self.good_images) is not int or self.good_images < 1):
            raise BadInput(f"good images {self.good_images!r}: expected a number of 1 or more")
        if self.origin == "conformal" and None in (self.false_alarm_rate, self.good_images):
            raise BadInput("an operating point cannot be conformal without a false-alarm rate and good images")

    @property
    def promise(self) -> str:
        """The promise as a phrase for messages."""
        if self.origin == "manual":
            return "set by hand: no promise"
        if self.doubt is not None:
            return f"{self.doubt}: no promise"
        if self.false_alarm_rate is None:
            return "a contrario: fewer than one false detection an image, if latents follow the null model"
        trust = "on average" if self.confidence is None else f"with {self.confidence * 100:.4g} % confidence"
        return (
            f"at most {self.false_alarm_rate * 100:.4g} % of good images called anomalous, {trust} "
            f"(from {self.good_images} held-out images"
            f"{self.condition})"
        )

    @property
    def condition(self) -> str:
        """The condition of the promise, as the end of a sentence; empty if there is none."""
        if not self.suspicious:
            return ""
        one = self.suspicious == 1
        return (
            ", if the one that looks anomalous is good"
            if one
            else f", if the {self.suspicious} that look anomalous are good"
        )

    def doubted(self, reason: str | None) -> "OperatingPoint":
        """The same threshold without its promise; unchanged if there is no reason, or no promise to lose."""
        if reason is None or self.doubt is not None or self.origin != "conformal":
            return self
        return replace(self, doubt=reason)


def _number(name: str, value: Any, largest: float) -> float:
    """A finite float, from any real number of Python or NumPy, but not from a bool or text."""
    real = isinstance(value, Real) and not isinstance(value, bool)
    if not (real and -largest <= value <= largest):
        raise BadInput(f"{name} {reprlib.repr(value)}: expected a finite number of at most {largest:g} in size")
    return float(value)


LOG_NFA_0 = OperatingPoint(threshold=0.0, origin="log_nfa_0")


def conformal_operating_point(good_scores: Sequence[float], false_alarm_rate: float) -> OperatingPoint:
    """The (1 − α) split-conformal quantile: the ⌈(n + 1)(1 − α)⌉-th smallest of n held-out good scores.

    If new good images are exchangeable with these, at most a fraction α of them scores above, on average over draws
    of the held-out images (Vovk et al., "Algorithmic Learning in a Random World", 2005).

    Raises:
        BadInput: α is not in (0, 1), or there are too few images for it; the message says what they can promise.
    """
    if not 0 < false_alarm_rate < 1:
        raise BadInput(f"false-alarm rate {false_alarm_rate}: expected a number between 0 and 1")
    n = len(good_scores)
    rank = math.ceil((n + 1) * (1 - false_alarm_rate) - 1e-9)  # 20 * (1 - 0.05) is 19.000000000000004 in floats
    if rank > n:
        needed = math.ceil(1 / false_alarm_rate - 1e-9) - 1
        raise BadInput(
            f"{n} good images cannot promise a false-alarm rate of {false_alarm_rate:g}: {needed} are needed, "
            f"or ask for at least {1 / (n + 1):.3g}"
        )
    return OperatingPoint(sorted(good_scores)[rank - 1], "conformal", false_alarm_rate, n)

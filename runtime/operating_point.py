"""Where the line is drawn between a good part and an anomalous one, and what that line promises."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from uflow_edge.runtime.errors import BadInput

Origin = Literal["log_nfa_0", "conformal", "manual"]
DEFAULT_FALSE_ALARM_RATE = 0.05


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A threshold on the image score, and where it comes from.

    Attributes:
        threshold: an image is anomalous when its score, −log10 NFA, is above.
        origin: ``log_nfa_0``, the a contrario threshold: fewer than one false detection an image expected if latents
            follow the null model; ``conformal``, taken from good images of the line itself; or ``manual``, set by a
            person, which promises nothing.
        false_alarm_rate: with ``conformal``, the bound on the probability that a new good image is called anomalous.
        good_images: with ``conformal``, how many images it rests on.
    """

    threshold: float
    origin: Origin
    false_alarm_rate: float | None = None
    good_images: int | None = None
    confidence: float | None = None

    @property
    def promise(self) -> str:
        """What may be expected of it, for people."""
        if self.origin == "manual":
            return "set by hand: no promise"
        if self.false_alarm_rate is None:
            return "a contrario: fewer than one false detection an image, if latents follow the null model"
        trust = "on average" if self.confidence is None else f"with {self.confidence * 100:.4g} % confidence"
        return (
            f"at most {self.false_alarm_rate * 100:.4g} % of good images called anomalous, {trust} "
            f"(from {self.good_images} held-out images)"
        )


LOG_NFA_0 = OperatingPoint(threshold=0.0, origin="log_nfa_0")


def conformal_operating_point(good_scores: Sequence[float], false_alarm_rate: float) -> OperatingPoint:
    """The (1 − α) split-conformal quantile: the ⌈(n + 1)(1 − α)⌉-th smallest of n held-out good scores.

    If new good images are exchangeable with these, at most a fraction α of them scores above, on average over draws
    of the held-out images (Vovk et al., "Algorithmic Learning in a Random World", 2005).

    Raises:
        BadInput: α out of (0, 1), or too few images for it; the message says what they can promise.
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

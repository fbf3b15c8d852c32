"""How far an engine's outputs are from the expected ones: the same measure at export and at every start."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from uflow_edge.runtime.bundle.manifest import Precision
from uflow_edge.runtime.inspection import LatentStatistics
from uflow_edge.runtime.numeric import FloatMap

Bounded: TypeAlias = Literal["worst", "most", "mean"]
BOUNDED: Mapping[Precision, Bounded] = {"fp32": "worst", "fp16": "most", "bf16": "most", "int8": "mean"}
"""Whether a bound holds for every pixel, for all but one in a thousand, or for the mean. The maximum of rounding noise
grows with the number of pixels, so FP16 and bfloat16 are bounded at the 99.9 % quantile."""
BF16_BOUND = 8e-2
"""Largest relative error of the energies in bfloat16: 8 times that of FP16, whose numbers have 3 bits more."""
_MOST = 0.999
_OUTLIERS = 10
"""Where most pixels are bounded, no pixel may be further off than this many times the bound."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far an engine's outputs are from the expected ones, over some pictures.

    Attributes:
        energy_error: per scale, finest first, the largest |difference| / |value| of the energy of any pixel.
        most_energy_error: likewise, the largest among all but one pixel in a thousand.
        mean_energy_error: likewise, the mean over pixels and pictures.
        exceedance_error: per scale, mean |difference| of the counts as a fraction of the channels, in the worst
            picture; empty if the graph does not count exceedances.
    """

    energy_error: tuple[float, ...]
    most_energy_error: tuple[float, ...]
    mean_energy_error: tuple[float, ...]
    exceedance_error: tuple[float, ...]

    @classmethod
    def between(
        cls, expected: Sequence[LatentStatistics], found: Sequence[LatentStatistics], channels: Sequence[int]
    ) -> "Deviation":
        """Compare the statistics of the same pictures, picture by picture.

        Args:
            found: statistics from the engine; the error of a value that is not finite is infinite.
            channels: C_i of every scale, finest first.
        """
        pairs = list(zip(expected, found, strict=True))
        errors = [[_relative(e.energies[i], f.energies[i]) for e, f in pairs] for i in range(len(channels))]
        counts = [
            [_mean_difference(e.exceedances[i], f.exceedances[i]) / count for e, f in pairs]
            for i, count in enumerate(channels[: len(expected[0].exceedances)])
        ]
        return cls(
            tuple(float(np.max(scale)) for scale in errors),
            tuple(float(np.quantile(scale, _MOST)) for scale in errors),
            tuple(float(np.mean(scale)) for scale in errors),
            tuple(max(scale) for scale in counts),
        )

    def error(self, bounded: Bounded) -> float:
        """The error of the energies that a bound applies to, at the scale where it is largest."""
        errors = {"worst": self.energy_error, "most": self.most_energy_error, "mean": self.mean_energy_error}
        return max(errors[bounded])

    def within(self, bound: float, bounded: Bounded) -> bool:
        """Whether the errors of energies and exceedances are within a bound."""
        outliers = bounded == "most" and max(self.energy_error) > _OUTLIERS * bound
        return not outliers and max((self.error(bounded), *self.exceedance_error)) <= bound


def _relative(expected: FloatMap, found: FloatMap) -> FloatMap:
    if not np.isfinite(found).all():
        return np.full_like(expected, np.inf)
    error: FloatMap = np.abs(found - expected) / np.maximum(np.abs(expected), np.finfo(np.float32).tiny)
    return error


def _mean_difference(expected: FloatMap, found: FloatMap) -> float:
    return float(np.abs(expected - found).mean()) if np.isfinite(found).all() else float("inf")

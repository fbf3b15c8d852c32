"""What the flow makes of a picture, reduced to what every decision needs."""

from collections.abc import Sequence
from dataclasses import dataclass

from uflow_edge.runtime.numeric import FloatMap


@dataclass(frozen=True, slots=True)
class LatentStatistics:
    """Sufficient statistics of the latents, per scale, finest first.

    Attributes:
        energies: (N, H_i, W_i) float32, sum of squared latents over channels.
        exceedances: (N, H_i, W_i) float32, how many latents exceed the quantile.
    """

    energies: tuple[FloatMap, ...]
    exceedances: tuple[FloatMap, ...]

    @classmethod
    def of(cls, outputs: Sequence[FloatMap]) -> "LatentStatistics":
        """From the outputs of a U-Flow graph: energies, then exceedances."""
        scales = len(outputs) // 2
        return cls(tuple(outputs[:scales]), tuple(outputs[scales:]))

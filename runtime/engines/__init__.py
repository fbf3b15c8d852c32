"""What runs a graph. All engines keep one small promise, so that the inspector need not know which it has."""

from dataclasses import dataclass
from typing import Protocol

from uflow_edge.runtime.errors import ExitCode, UflowEdgeError
from uflow_edge.runtime.numeric import FloatMap, Image


@dataclass(frozen=True, slots=True)
class LatentStatistics:
    """What leaves the engine: sufficient statistics of the latents, per scale, finest first.

    Attributes:
        energies: (N, H_i, W_i) float32, sum of squared latents over channels.
        exceedances: (N, H_i, W_i) float32, how many latents exceed the quantile.
    """

    energies: tuple[FloatMap, ...]
    exceedances: tuple[FloatMap, ...]


class Engine(Protocol):
    """Runs one variant of one bundle. Any thread may run it, but only one at a time.

    ``with contextlib.closing(engine):`` releases it whatever happens.
    """

    @property
    def name(self) -> str:
        """What runs, for people: library, device, precision."""

    def run(self, images: Image) -> LatentStatistics:
        """(N, S, S, 3) uint8 RGB to latent statistics.

        Raises:
            EngineFailed: the library or the device gave up.
        """

    def close(self) -> None:
        """Give back memory and device; after this only `close` may be called, any number of times."""


class EngineFailed(UflowEdgeError):
    """An engine that was loaded could not do its work: the device was lost, ran out of memory, or computes nonsense."""

    exit_code = ExitCode.MISSING

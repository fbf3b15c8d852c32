"""Engines run a graph. All of them implement one small protocol."""

from typing import Any, Protocol, TypeAlias

from numpy.typing import NDArray

from uflow_edge.runtime.bundle.manifest import Precision
from uflow_edge.runtime.errors import ExitCode, UflowEdgeError
from uflow_edge.runtime.numeric import FloatMap

Outputs: TypeAlias = tuple[FloatMap, ...]
MOST_FAILURES_IN_A_ROW = 10
"""Frames; an engine that fails on more is taken for dead."""


class Engine(Protocol):
    """Runs one variant of one bundle. Any thread may run it, but only one at a time.

    ``with contextlib.closing(engine):`` releases it whatever happens.
    """

    @property
    def name(self) -> str:
        """What runs, for people: library, device, precision."""

    @property
    def precision(self) -> Precision | None:
        """Precision of the graph; None for a plan whose graph is no longer in the bundle."""

    def run(self, *inputs: NDArray[Any]) -> Outputs:
        """Run the graph on N samples, any number from 1 on.

        Args:
            inputs: as the manifest's signature says, (N, …) each: of a U-Flow one, (N, S, S, 3) uint8 RGB; of a UNet
                two, the noisy patches (N, 3, S, S) and their steps (N,), both float32.

        Returns:
            As the signature says, (N, …) float32 each; new arrays, which no later run touches.

        Raises:
            EngineFailed: the library or the device gave up.
        """

    def close(self) -> None:
        """Give back memory and device; after this only `close` may be called, any number of times."""


class EngineFailed(UflowEdgeError):
    """An engine that was loaded could not do its work: the device was lost, ran out of memory, or computes nonsense."""

    exit_code = ExitCode.MISSING

"""Engines run a graph. All of them implement one small protocol."""

from typing import Any, Protocol, TypeAlias

from numpy.typing import NDArray

from uflow_edge.runtime.bundle.manifest import Precision
from uflow_edge.runtime.errors import ExitCode, UflowEdgeError
from uflow_edge.runtime.numeric import FloatMap

Outputs: TypeAlias = tuple[FloatMap, ...]
MOST_FAILURES_IN_A_ROW = 10
"""Frames in a row that an engine may fail on before the run ends."""


class Engine(Protocol):
    """Runs one variant of one bundle. Any thread may run it, but only one at a time.

    Use ``with contextlib.closing(engine):``, which always releases it.
    """

    @property
    def name(self) -> str:
        """Display name: library, device, precision."""

    @property
    def precision(self) -> Precision | None:
        """Precision of the graph; None for a plan whose graph is no longer in the bundle."""

    def run(self, *inputs: NDArray[Any]) -> Outputs:
        """Run the graph on N ≥ 1 samples.

        Args:
            inputs: (N, …) each, as in the manifest's signature. A U-Flow has one, (N, S, S, 3) uint8 RGB; a UNet has
                two, the noisy patches (N, 3, S, S) and their steps (N,), both float32.

        Returns:
            (N, …) float32 each, as in the signature; new arrays, which no later run changes.

        Raises:
            EngineFailed: the library or the device failed.
        """

    def close(self) -> None:
        """Release memory and device. Afterwards only `close` may be called, any number of times."""


class EngineFailed(UflowEdgeError):
    """A loaded engine failed: the device was lost or ran out of memory, or the outputs are wrong."""

    exit_code = ExitCode.MISSING

"""How long data took to a device and back: what the time of a whole run does not tell."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Transfers:
    """Between the host's memory and the device's.

    Attributes:
        to_device: milliseconds until the inputs were there; where the GPU resizes frames itself, that is among them.
        to_host: milliseconds that the outputs took.
    """

    to_device: float
    to_host: float


class Stopwatch:
    """Pass it to `open_engine` to record the transfers of every run. Use it only in the thread that runs the engine.

    Attributes:
        transfers: of all runs since `restart`; None where there are none, as in engines that compute in host memory.
    """

    def __init__(self) -> None:
        self.transfers: Transfers | None = None

    def restart(self) -> None:
        """Forget all records."""
        self.transfers = None

    def add(self, run: Transfers) -> None:
        """What an engine tells of a run."""
        known = self.transfers or Transfers(0.0, 0.0)
        self.transfers = Transfers(known.to_device + run.to_device, known.to_host + run.to_host)

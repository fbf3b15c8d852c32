"""Times the transfers to a device and back, which are a part of each run."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Transfers:
    """Between the host's memory and the device's.

    Attributes:
        to_device: milliseconds for the inputs, including the resize if the GPU does it.
        to_host: milliseconds for the outputs.
    """

    to_device: float
    to_host: float


class Stopwatch:
    """Pass it to `open_engine` to record the transfers of every run. Use it only in the thread that runs the engine.

    Attributes:
        transfers: sum over all runs since `restart`; None for engines that compute in host memory.
    """

    def __init__(self) -> None:
        self.transfers: Transfers | None = None

    def restart(self) -> None:
        self.transfers = None

    def add(self, run: Transfers) -> None:
        """Record one run; for engines."""
        known = self.transfers or Transfers(0.0, 0.0)
        self.transfers = Transfers(known.to_device + run.to_device, known.to_host + run.to_host)

"""Measurements of the GPU, through NVIDIA's management library.

Source: NVML API Reference. A quantity that a GPU does not report is None: a Jetson's GPU reports hardly any of them
here, and tegrastats (see tegrastats.py) reports the others.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")

_THERMAL = 0x20 | 0x40  # nvmlClocksEventReasonSwThermalSlowdown, nvmlClocksThrottleReasonHwThermalSlowdown


class Nvml:
    """The first GPU that NVML lists; made by `open_nvml`."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._handle = library.nvmlDeviceGetHandleByIndex(0)
        self.name = _text(library.nvmlDeviceGetName(self._handle))
        self.driver = _text(library.nvmlSystemGetDriverVersion())

    def used_bytes(self) -> int | None:
        """Memory of the GPU in use by all processes."""
        return self._ask(lambda: int(self._library.nvmlDeviceGetMemoryInfo(self._handle).used))

    def megahertz(self) -> float | None:
        """Clock of the multiprocessors."""
        kind = self._library.NVML_CLOCK_SM
        return self._ask(lambda: float(self._library.nvmlDeviceGetClockInfo(self._handle, kind)))

    def celsius(self) -> float | None:
        """Temperature of the GPU."""
        kind = self._library.NVML_TEMPERATURE_GPU
        return self._ask(lambda: float(self._library.nvmlDeviceGetTemperature(self._handle, kind)))

    def joules(self) -> float | None:
        """Energy that the board has used since the driver was loaded."""
        return self._ask(lambda: float(self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3)

    def thermally_throttled(self) -> bool | None:
        """Whether heat holds the clocks down at this moment."""
        return self._ask(lambda: bool(self._library.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle) & _THERMAL))

    def _ask(self, question: Callable[[], T]) -> T | None:
        try:
            return question()
        except self._library.NVMLError:
            return None


@contextmanager
def open_nvml() -> Iterator[Nvml | None]:
    """The first GPU, or None without pynvml, a driver or a GPU."""
    try:
        library = import_module("pynvml")
    except ImportError:
        yield None
        return
    try:
        library.nvmlInit()
    except library.NVMLError:
        yield None
        return
    try:
        try:
            found = Nvml(library)
        except library.NVMLError:
            found = None
        yield found
    finally:
        library.nvmlShutdown()


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name

"""Clocks, temperatures and energy during a benchmark; a quantity that the machine does not report is None.

Those of the CPU are read from files: ``cpufreq`` and ``thermal_throttle`` below ``/sys/devices/system/cpu``,
``/sys/class/thermal``, and RAPL in ``/sys/class/powercap`` (Linux kernel, admin-guide and power documentation).
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from uflow_edge.benchmarks.latency.machine import read_text
from uflow_edge.benchmarks.latency.nvml import Nvml, open_nvml
from uflow_edge.benchmarks.latency.tegrastats import Tegrastats, open_tegrastats


@dataclass(frozen=True, slots=True)
class MachineState:
    """The state of the machine at one moment.

    Attributes:
        seconds: since the instruments were opened.
        cpu_mhz: mean clock of all cores.
        celsius: temperature of the hottest thermal zone.
        throttle_events: how often heat has slowed a core down since boot.
    """

    seconds: float
    cpu_mhz: float | None = None
    celsius: float | None = None
    throttle_events: int | None = None
    gpu_mhz: float | None = None
    gpu_celsius: float | None = None
    gpu_throttled: bool | None = None


class Instruments:
    """All sources of measurements; made by `open_instruments`."""

    def __init__(self, nvml: Nvml | None = None, tegrastats: Tegrastats | None = None, root: Path = Path("/")) -> None:
        self.nvml = nvml
        self._tegrastats = tegrastats
        self._root = root
        self._started = time.perf_counter()

    def read(self) -> MachineState:
        """Read everything that can be read now."""
        tegra = self._tegrastats.latest() if self._tegrastats else None
        nvml = self.nvml
        gpu_mhz = nvml.megahertz() if nvml else None
        return MachineState(
            seconds=time.perf_counter() - self._started,
            cpu_mhz=cpu_megahertz(self._root),
            celsius=hottest_zone(self._root),
            throttle_events=throttle_events(self._root),
            gpu_mhz=tegra.gpu_mhz if gpu_mhz is None and tegra else gpu_mhz,
            gpu_celsius=nvml.celsius() if nvml else None,
            gpu_throttled=nvml.thermally_throttled() if nvml else None,
        )

    def joules(self) -> tuple[str, float] | None:
        """What is metered, and its rising energy: a whole Jetson, else the GPU's board, else the CPUs."""
        if self._tegrastats is not None and (module := self._tegrastats.joules()) is not None:
            return "whole module (tegrastats)", module
        if self.nvml is not None and (board := self.nvml.joules()) is not None:
            return "GPU board alone (NVML)", board
        packages = package_joules(self._root)
        return None if packages is None else ("CPU packages alone (RAPL)", packages)


@contextmanager
def open_instruments() -> Iterator[Instruments]:
    """Open every source that this machine has."""
    with open_nvml() as nvml, open_tegrastats() as tegrastats:
        yield Instruments(nvml, tegrastats)


def cpu_megahertz(root: Path) -> float | None:
    """Mean clock of all cores."""
    files = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
    clocks = [kilohertz / 1e3 for kilohertz in _numbers(files)]
    if not clocks:
        text = read_text(root / "proc/cpuinfo") or ""
        clocks = [float(value) for value in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", text, re.MULTILINE)]
    return fmean(clocks) if clocks else None


def hottest_zone(root: Path) -> float | None:
    """Temperature of the hottest thermal zone, in degrees Celsius."""
    return max(
        (value / 1e3 for value in _numbers((root / "sys/class/thermal").glob("thermal_zone*/temp"))), default=None
    )


def throttle_events(root: Path) -> int | None:
    """How often heat has slowed a core down since boot; x86 only."""
    files = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/core_throttle_count")
    counts = list(_numbers(files))
    return sum(counts) if counts else None


def package_joules(root: Path) -> float | None:
    """Energy of all CPU packages; on most systems only root may read it. The counter wraps after hours."""
    found = list(_numbers((root / "sys/class/powercap").glob("intel-rapl:[0-9]/energy_uj")))
    return sum(found) / 1e6 if found else None


def _numbers(files: Iterator[Path]) -> Iterator[int]:
    for file in sorted(files):
        with suppress(OSError, ValueError):  # sensors that are switched off, or that only root may read
            yield int(file.read_text())

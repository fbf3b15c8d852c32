"""Measurements of a Jetson: a thread reads the lines that ``tegrastats`` prints.

Source: NVIDIA Jetson Linux Developer Guide, "tegrastats Utility". Modules name the rail of their whole input
differently; where none of `_INPUT_RAILS` is listed, power is unknown rather than a sum that may count parts twice.
"""

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_INPUT_RAILS = ("VDD_IN", "POM_5V_IN")
_INTERVAL_MS = 100


@dataclass(frozen=True, slots=True)
class TegraReading:
    """One line; a quantity that it does not contain is None.

    Attributes:
        cpu_mhz: mean clock of the active cores.
        celsius: temperature of the hottest part.
        watts: power that the whole module takes in.
    """

    cpu_mhz: float | None
    gpu_mhz: float | None
    celsius: float | None
    watts: float | None


def parse_tegrastats(line: str) -> TegraReading:
    """Read one line, such as ``… CPU [5%@1510,off] GR3D_FREQ 0%@[611] gpu@47.2C VDD_IN 4940mW/4940mW``."""
    cores = re.search(r"\bCPU \[([^\]]*)\]", line)
    clocks = [float(clock) for clock in re.findall(r"%@(\d+)", cores[1])] if cores else []
    gpu = re.search(r"\bGR3D_FREQ \d+%@\[?(\d+)", line)
    degrees = [float(value) for value in re.findall(r"@(-?\d+(?:\.\d+)?)C\b", line)]
    # The first figure is of this moment, the second an average. Sensors that are off report -256 degrees.
    power = re.search(rf"\b(?:{'|'.join(_INPUT_RAILS)}) (\d+)(?:mW)?/\d+", line)
    return TegraReading(
        cpu_mhz=sum(clocks) / len(clocks) if clocks else None,
        gpu_mhz=float(gpu[1]) if gpu else None,
        celsius=max((value for value in degrees if value > -200), default=None),
        watts=float(power[1]) / 1e3 if power else None,
    )


class Tegrastats:
    """The latest reading, and the energy used since the first; made by `open_tegrastats`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the three below
        self._latest: TegraReading | None = None
        self._joules: float | None = None
        self._updated = 0.0

    def latest(self) -> TegraReading | None:
        """The latest reading; None before the first line."""
        with self._lock:
            return self._latest

    def joules(self) -> float | None:
        """Energy that the module has taken in since the first line; None if no line contains its power."""
        with self._lock:
            return self._joules

    def follow(self, lines: Iterable[str]) -> None:
        """Read lines as they arrive, until there are no more."""
        for line in lines:
            reading, now = parse_tegrastats(line), time.perf_counter()
            with self._lock:
                if reading.watts is not None:
                    passed = 0.0 if self._joules is None else now - self._updated
                    self._joules = (self._joules or 0.0) + reading.watts * passed
                    self._updated = now
                self._latest = reading


@contextmanager
def open_tegrastats() -> Iterator[Tegrastats | None]:
    """Start the program and stop it in the end; None where it is not installed."""
    program = shutil.which("tegrastats")
    if program is None:
        yield None
        return
    command = [program, "--interval", str(_INTERVAL_MS)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    found = Tegrastats()
    reader = threading.Thread(target=found.follow, args=(process.stdout,), daemon=True)
    reader.start()
    try:
        yield found
    finally:
        process.terminate()
        process.wait()
        reader.join()
        process.stdout.close()

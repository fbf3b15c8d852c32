"""A Jetson's own instruments: the lines that ``tegrastats`` prints, read in a thread beside the work.

Source: NVIDIA Jetson Linux Developer Guide, "tegrastats Utility". Modules name the rail of their whole input
differently; where none of `_INPUT_RAILS` is told, power is unknown rather than a sum that may count parts twice.
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
    """One line. What it does not say is None.

    Attributes:
        cpu_mhz: mean of the cores that are on.
        gpu_mhz: of the GPU.
        celsius: of the hottest part.
        watts: that the whole module takes in.
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
    # The first figure is of this moment, the second an average. Sensors that are off tell -256 degrees.
    power = re.search(rf"\b(?:{'|'.join(_INPUT_RAILS)}) (\d+)(?:mW)?/\d+", line)
    return TegraReading(
        cpu_mhz=sum(clocks) / len(clocks) if clocks else None,
        gpu_mhz=float(gpu[1]) if gpu else None,
        celsius=max((value for value in degrees if value > -200), default=None),
        watts=float(power[1]) / 1e3 if power else None,
    )


class Tegrastats:
    """The latest reading, and the energy used since the first. Made by `open_tegrastats`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the three below
        self._latest: TegraReading | None = None
        self._joules: float | None = None
        self._told = 0.0

    def latest(self) -> TegraReading | None:
        """None before the first line."""
        with self._lock:
            return self._latest

    def joules(self) -> float | None:
        """That the module has taken in since the first line; None where no line tells its power."""
        with self._lock:
            return self._joules

    def follow(self, lines: Iterable[str]) -> None:
        """Take in lines as they come, until there are no more."""
        for line in lines:
            reading, now = parse_tegrastats(line), time.perf_counter()
            with self._lock:
                if reading.watts is not None:
                    passed = 0.0 if self._joules is None else now - self._told
                    self._joules = (self._joules or 0.0) + reading.watts * passed
                    self._told = now
                self._latest = reading


@contextmanager
def open_tegrastats() -> Iterator[Tegrastats | None]:
    """Start it, and stop it in the end; None where there is no such program."""
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

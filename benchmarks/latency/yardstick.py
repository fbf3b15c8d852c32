"""Fixed pieces of work, timed in every round, that tell how fast the machine itself was at that moment.

Timings of two days cannot take turns as engines do within a run. What has slowed this work down as well, a neighbour or
a lower clock, is no property of the engines. There are two: neighbours take memory bandwidth without taking cores.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields

import numpy as np

from uflow_edge.benchmarks.latency.machine import usable_cores

_HASHED = bytes(2 << 20)
"""Enough for milliseconds, within the cache of a core; hashing it is the same few instructions everywhere."""
_COPIED = 64 << 20
"""Bytes, of all cores together: more than caches hold."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Of the yardsticks in one round.

    Attributes:
        arithmetic_ms: SHA-256 of the same bytes on every core at once.
        memory_ms: a copy of more than caches hold, shared out to all cores.
    """

    arithmetic_ms: float
    memory_ms: float


YARDSTICKS = tuple(field.name for field in fields(Lengths))


class Yardsticks:
    """Made by `open_yardsticks`."""

    def __init__(self, pool: ThreadPoolExecutor, cores: int) -> None:
        self._pool = pool
        self._cores = cores
        # Filled, for untouched pages of zeros are all one page.
        source, target = (np.full(_COPIED, value, np.uint8) for value in (1, 2))
        self._parts = list(zip(np.array_split(source, cores), np.array_split(target, cores), strict=True))

    def measure(self) -> Lengths:
        """Do both once."""
        return Lengths(self._milliseconds(_hash), self._milliseconds(self._copy))

    def _milliseconds(self, work: Callable[[int], None]) -> float:
        started = time.perf_counter()
        list(self._pool.map(work, range(self._cores)))
        return 1e3 * (time.perf_counter() - started)

    def _copy(self, core: int) -> None:
        source, target = self._parts[core]
        np.copyto(target, source)  # lets other threads run meanwhile


@contextmanager
def open_yardsticks() -> Iterator[Yardsticks]:
    """With their threads ready."""
    cores = usable_cores()
    with ThreadPoolExecutor(cores) as pool:
        yardsticks = Yardsticks(pool, cores)
        yardsticks.measure()
        yield yardsticks


def _hash(core: int) -> None:
    hashlib.sha256(_HASHED).digest()  # lets other threads run meanwhile

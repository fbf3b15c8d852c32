"""A fixed piece of work, timed in every round, that tells how fast the machine itself was at that moment.

Timings of two days cannot take turns as engines do within a run. What has slowed this work down as well, a neighbour or
a lower clock, is no property of the engines.
"""

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from uflow_edge.benchmarks.latency.machine import usable_cores

_BYTES = bytes(2 << 20)
"""Enough for milliseconds, within the cache of a core; hashing it is the same few instructions everywhere."""


class Yardstick:
    """SHA-256 of the same bytes on every core at once. Made by `open_yardstick`."""

    def __init__(self, pool: ThreadPoolExecutor, cores: int) -> None:
        self._pool = pool
        self._cores = cores

    def milliseconds(self) -> float:
        """Do it once."""
        started = time.perf_counter()
        for done in [self._pool.submit(_hash) for _ in range(self._cores)]:
            done.result()
        return 1e3 * (time.perf_counter() - started)


@contextmanager
def open_yardstick() -> Iterator[Yardstick]:
    """With its threads ready."""
    cores = usable_cores()
    with ThreadPoolExecutor(cores) as pool:
        yardstick = Yardstick(pool, cores)
        yardstick.milliseconds()
        yield yardstick


def _hash() -> None:
    hashlib.sha256(_BYTES).digest()  # lets other threads run meanwhile

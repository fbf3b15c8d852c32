"""Fair timing on a noisy machine: contenders interleaved in one process, medians."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from uflow_edge.calibration.latency import interleaved_ms


@dataclass(frozen=True, slots=True)
class Took:
    """What a contender gives back that measures itself, say in a process of its own; it counts instead of our clock."""

    seconds: float


def interleaved_medians(
    contenders: Mapping[str, Callable[[], object]], rounds: int, *, settle: bool = False
) -> dict[str, float]:
    """Median milliseconds of each contender; see `interleaved_times`."""
    return {name: statistics.median(times) for name, times in interleaved_times(contenders, rounds, settle).items()}


def interleaved_times(
    contenders: Mapping[str, Callable[[], object]], rounds: int, settle: bool = False
) -> dict[str, list[float]]:
    """Milliseconds of each contender, all called in turn in every round, after one round of warming up.

    Args:
        contenders: by name.
        rounds: of timed calls.
        settle: call each once untimed before every timed call, so that it finds its own data in the caches and not
            what the contender before it has left there.
    """

    def timed(call: Callable[[], object]) -> float:
        if settle:
            call()
        return _seconds(call)

    return interleaved_ms({name: partial(timed, call) for name, call in contenders.items()}, rounds)


def burst(
    call: Callable[[], object], calls: int, summary: Callable[[list[float]], float] = statistics.median
) -> Callable[[], Took]:
    """A contender that calls another so many times without a pause, and gives the median, or another summary."""
    return lambda: Took(summary([_seconds(call) for _ in range(calls)]))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    result = call()
    elapsed = time.perf_counter() - start
    return result.seconds if isinstance(result, Took) else elapsed

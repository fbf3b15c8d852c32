"""Whether heat slowed the machine down while it was measured: then its figures are those of a hot machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, TypeAlias

import numpy as np

from uflow_edge.benchmarks.latency.instruments import Reading
from uflow_edge.benchmarks.latency.statistics import FEWEST_SAMPLES

State: TypeAlias = Literal[
    "throttled", "slowed down, cause not readable here", "slowed down, not by heat", "steady", "too few rounds to tell"
]

_FALL = 0.95
"""Of the clock, last third over first, that counts as a fall: smaller ones are the governor at work."""
_RISE_CELSIUS = 3.0
_SLOWER = 1.05
"""Last third over first that counts as slower, if it is also slower than three quarters of the first third's rounds."""


@dataclass(frozen=True, slots=True)
class Throttling:
    """What became of the machine's speed.

    Attributes:
        state: in words.
        trend: ratio of a round's median duration, last third of the rounds over the first.
        evidence: a sentence for everything that was looked at.
    """

    state: State
    trend: float
    evidence: tuple[str, ...]


def assess(rounds_ms: Sequence[float], readings: Sequence[Reading]) -> Throttling:
    """Hold the last third of the rounds against the first.

    Args:
        rounds_ms: duration of each round, all contenders together.
        readings: one after each round.
    """
    third = max(1, len(rounds_ms) // 3)
    first, last = rounds_ms[:third], median(rounds_ms[-third:])
    trend = last / median(first)
    slower = third >= FEWEST_SAMPLES and trend > _SLOWER and last > np.percentile(first, 75)
    evidence = [f"median duration of a round, last third over first: × {trend:.3f}"]
    falls = [
        _clock("CPU clock", [reading.cpu_mhz for reading in readings], third, evidence),
        _clock("GPU clock", [reading.gpu_mhz for reading in readings], third, evidence),
    ]
    warmer = [
        _temperature("hottest zone", [reading.celsius for reading in readings], third, evidence),
        _temperature("GPU", [reading.gpu_celsius for reading in readings], third, evidence),
    ]
    told = _told_by_hardware(readings, evidence)
    if told or (slower and any(falls) and any(warmer)):
        return Throttling("throttled", trend, tuple(evidence))
    if third < FEWEST_SAMPLES:
        return Throttling("too few rounds to tell", trend, tuple(evidence))
    if not slower:
        return Throttling("steady", trend, tuple(evidence))
    # A cause is ruled out only by instruments that were there to see it.
    blind = told is None and (all(fall is None for fall in falls) or all(rise is None for rise in warmer))
    state: State = "slowed down, cause not readable here" if blind else "slowed down, not by heat"
    return Throttling(state, trend, tuple(evidence))


def _clock(name: str, values: Sequence[float | None], third: int, evidence: list[str]) -> bool | None:
    """Whether it fell; None where it cannot be read."""
    thirds = _thirds(values, third)
    if thirds is None:
        evidence.append(f"{name}: not readable here")
        return None
    first, last = thirds
    evidence.append(f"{name}: {first:.0f} MHz in the first third, {last:.0f} MHz in the last")
    return last < _FALL * first


def _temperature(name: str, values: Sequence[float | None], third: int, evidence: list[str]) -> bool | None:
    """Whether it rose; None where it cannot be read."""
    thirds = _thirds(values, third)
    if thirds is None:
        evidence.append(f"temperature, {name}: not readable here")
        return None
    first, last = thirds
    evidence.append(f"temperature, {name}: {first:.1f} °C in the first third, {last:.1f} °C in the last")
    return last > first + _RISE_CELSIUS


def _thirds(values: Sequence[float | None], third: int) -> tuple[float, float] | None:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return median(known[:third]), median(known[-third:])


def _told_by_hardware(readings: Sequence[Reading], evidence: list[str]) -> bool | None:
    """Whether the hardware itself says that it throttled; None where it says nothing at all."""
    counts = [reading.throttle_events for reading in readings if reading.throttle_events is not None]
    flags = [reading.gpu_throttled for reading in readings if reading.gpu_throttled is not None]
    if counts:
        evidence.append(f"CPU cores slowed down by heat: {counts[-1] - counts[0]} times")
    if flags:
        evidence.append(f"GPU slowed down by heat: after {sum(flags)} of {len(flags)} rounds")
    if not counts and not flags:
        return None
    return bool(counts and counts[-1] > counts[0]) or any(flags)

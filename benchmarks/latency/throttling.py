"""Whether heat slowed the machine down during the measurement: then the figures are those of a hot machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, TypeAlias

import numpy as np

from uflow_edge.benchmarks.latency.instruments import MachineState
from uflow_edge.benchmarks.latency.statistics import FEWEST_SAMPLES

State: TypeAlias = Literal[
    "throttled", "slowed down, cause not readable here", "slowed down, not by heat", "steady", "too few rounds to tell"
]

_FALL = 0.95
"""A clock ratio, last third over first, below which the clock fell; smaller changes are the governor's work."""
_RISE_CELSIUS = 3.0
_SLOWER = 1.05
"""A ratio, last third over first, above which the machine may be slower; its last third must also be slower than
three quarters of the rounds in the first."""


@dataclass(frozen=True, slots=True)
class Throttling:
    """Whether the machine became slower.

    Attributes:
        trend: ratio of a round's median duration, last third of the rounds over the first.
        evidence: one sentence for each quantity that was examined.
    """

    state: State
    trend: float
    evidence: tuple[str, ...]


def assess(rounds_ms: Sequence[float], readings: Sequence[MachineState]) -> Throttling:
    """Compare the last third of the rounds with the first.

    Args:
        rounds_ms: duration of each round of all contenders.
    """
    third = max(1, len(rounds_ms) // 3)
    first, last = rounds_ms[:third], median(rounds_ms[-third:])
    trend = last / median(first)
    slower = third >= FEWEST_SAMPLES and trend > _SLOWER and last > np.percentile(first, 75)
    evidence = [f"median duration of a round, last third over first: × {trend:.3f}"]

    def thirds(name: str, values: Sequence[float | None], form: str) -> tuple[float, float] | None:
        """Medians of the first and the last third; None where they cannot be read."""
        known = [value for value in values if value is not None]
        if not known or len(known) < len(values):
            evidence.append(f"{name}: not readable here")
            return None
        ends = median(known[:third]), median(known[-third:])
        evidence.append(f"{name}: {form.format(ends[0])} in the first third, {form.format(ends[1])} in the last")
        return ends

    clocks = [
        thirds("CPU clock", [reading.cpu_mhz for reading in readings], "{:.0f} MHz"),
        thirds("GPU clock", [reading.gpu_mhz for reading in readings], "{:.0f} MHz"),
    ]
    temperatures = [
        thirds("temperature, hottest zone", [reading.celsius for reading in readings], "{:.1f} °C"),
        thirds("temperature, GPU", [reading.gpu_celsius for reading in readings], "{:.1f} °C"),
    ]
    fell = any(ends is not None and ends[1] < _FALL * ends[0] for ends in clocks)
    rose = any(ends is not None and ends[1] > ends[0] + _RISE_CELSIUS for ends in temperatures)
    reported = _hardware_report(readings, evidence)
    if reported or (slower and fell and rose):
        return Throttling("throttled", trend, tuple(evidence))
    if third < FEWEST_SAMPLES:
        return Throttling("too few rounds to tell", trend, tuple(evidence))
    if not slower:
        return Throttling("steady", trend, tuple(evidence))
    # A cause is ruled out only by instruments that were there to see it.
    blind = reported is None and not (any(clocks) and any(temperatures))
    state: State = "slowed down, cause not readable here" if blind else "slowed down, not by heat"
    return Throttling(state, trend, tuple(evidence))


def _hardware_report(readings: Sequence[MachineState], evidence: list[str]) -> bool | None:
    """Whether the hardware itself reports throttling; None where it reports nothing."""
    counts = [reading.throttle_events for reading in readings if reading.throttle_events is not None]
    flags = [reading.gpu_throttled for reading in readings if reading.gpu_throttled is not None]
    if counts:
        evidence.append(f"CPU cores slowed down by heat: {counts[-1] - counts[0]} times")
    if flags:
        evidence.append(f"GPU slowed down by heat: after {sum(flags)} of {len(flags)} rounds")
    if not counts and not flags:
        return None
    return bool(counts and counts[-1] > counts[0]) or any(flags)

"""Two runs of ``uflow-bench``: what became faster or slower, and what only looks so."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from statistics import median

from uflow_edge.benchmarks.latency.machine import Machine, differences
from uflow_edge.benchmarks.latency.results import Results, Row, Workload
from uflow_edge.benchmarks.latency.statistics import LEAST_DIFFERENCE, Change, change, drift
from uflow_edge.benchmarks.latency.yardstick import YARDSTICKS
from uflow_edge.runtime.errors import BadInput

LEAST_MS = 0.05
"""Differences of a stage below this are not called either: where others use the memory too, short ones come and go."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure, then and now.

    Attributes:
        name: backend and precision.
        what: stage, batch or start.
        before: median then.
        after: median now.
        unit: of both.
        change: and whether noise explains it.
    """

    name: str
    what: str
    before: float
    after: float
    unit: str
    change: Change


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of two runs.

    Attributes:
        rows: of engines that are in both.
        notes: what else differs, a sentence each.
    """

    rows: tuple[Compared, ...]
    notes: tuple[str, ...]


def check_comparable(
    before: Results, machine: Machine, workload: Workload, *, other_machine: bool = False
) -> tuple[str, ...]:
    """What differs and yet may be compared.

    Args:
        before: the earlier run.
        machine: of the later run.
        workload: of the later run.
        other_machine: let hardware differ.

    Raises:
        BadInput: another machine or another workload; the message says what differs.
    """
    work = [
        f"{field.name}: {old} then, {new} now"
        for field in fields(Workload)
        if (old := getattr(before.workload, field.name)) != (new := getattr(workload, field.name))
    ]
    if work:
        raise BadInput(f"the two runs measure different work, so their timings cannot be compared: {'; '.join(work)}")
    hardware, software = differences(before.machine, machine)
    if hardware and not other_machine:
        raise BadInput(
            f"the two runs are of different machines: {'; '.join(hardware)}. "
            "Measure both on one machine, or say --other-machine to compare machines"
        )
    return (*(f"another machine: {line}" for line in hardware), *software)


def compare(before: Results, after: Results, *, other_machine: bool = False) -> Comparison:
    """Hold a run against an earlier one, row by row.

    Raises:
        BadInput: see `check_comparable`.
    """
    notes = list(check_comparable(before, after.machine, after.workload, other_machine=other_machine))
    for when, results in (("then", before), ("now", after)):
        if results.throttling["state"] != "steady":
            notes.append(f"the machine was not steady {when}: {results.throttling['state']}")
    old, new = ({row.name: row for row in results.rows} for results in (before, after))
    notes += [f"{name}: only in the earlier run" for name in old if name not in new]
    notes += [f"{name}: only in this run" for name in new if name not in old]
    machine = (1.0, 1.0) if other_machine else _machine(before, after, notes)
    rows = [row for name in old if name in new for row in _rows(old[name], new[name], machine)]
    return Comparison(tuple(rows), tuple(notes))


def _machine(before: Results, after: Results, notes: list[str]) -> tuple[float, float]:
    """Interval of the ratio by which the machine itself may have become slower: all that a yardstick leaves possible.

    Where it is narrow the machine is known to have stayed as it was; where neighbours came and went it is wide.
    """
    lowest, highest = 1.0, 1.0
    for name in YARDSTICKS:
        then, now = before.yardsticks[name], after.yardsticks[name]
        found, wobble = change(then, now), 1 + max(drift(then), drift(now))
        low, high = found.low / wobble, found.high * wobble
        if low < 1 / (1 + LEAST_DIFFERENCE) or high > 1 + LEAST_DIFFERENCE:
            notes.append(
                f"the machine itself may have changed: its yardstick of {name.removesuffix('_ms')} took "
                f"× {found.ratio:.3f} as long ({low:.3f} to {high:.3f})"
            )
        lowest, highest = min(lowest, low), max(highest, high)
    return lowest, highest


def _rows(before: Row, after: Row, machine: tuple[float, float]) -> Iterator[Compared]:
    for stage in before.stages:
        if stage in after.stages:
            yield _compared(after.name, stage, before.stages[stage], after.stages[stage], "ms", machine)
    for size in before.batches:
        if size in after.batches:
            yield _compared(
                after.name, f"engine, batch {size}", before.batches[size], after.batches[size], "ms", machine
            )
    if before.start_seconds and after.start_seconds:
        yield _compared(after.name, "cold start", before.start_seconds, after.start_seconds, "s", machine)
        yield _compared(after.name, "resident memory", before.start_megabytes, after.start_megabytes, "MB", (1.0, 1.0))


def _compared(
    name: str, what: str, before: Sequence[float], after: Sequence[float], unit: str, machine: tuple[float, float]
) -> Compared:
    least = max(LEAST_DIFFERENCE, LEAST_MS / median(before)) if unit == "ms" else LEAST_DIFFERENCE
    return Compared(name, what, median(before), median(after), unit, change(before, after, machine, least))

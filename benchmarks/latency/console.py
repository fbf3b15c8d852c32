"""The results as tables for the terminal."""

from statistics import median

from uflow_edge.benchmarks.latency.results import Results, Row
from uflow_edge.benchmarks.latency.stages import STAGES, TO_PICTURE, TO_VERDICT
from uflow_edge.benchmarks.latency.statistics import Percentiles
from uflow_edge.runtime.cli.command_line import table

NOT_READABLE = "not readable here"
NONE = "none"
"""For a stage that a frame does not pass: a transfer where the device shares the host's memory."""


def results_text(results: Results) -> str:
    """All tables, with a line about the machine above them."""
    machine = results.machine
    parts = [
        f"{machine.jetson or machine.cpu}, {machine.cores} cores, {machine.memory_gib} GiB"
        + (f", {machine.gpu}" if machine.gpu else "")
        + f"; {results.workload.extractor} at {results.workload.input_size}, frames "
        f"{results.workload.frame[0]}x{results.workload.frame[1]} of {results.workload.frames}",
        f"milliseconds, median of {len(results.rounds)} rounds; p90, p99 and max are of {TO_VERDICT!r}",
        table(
            ("", *STAGES, TO_PICTURE, TO_VERDICT, "p90", "p99", "max"),
            [_stages(row) for row in results.rows],
            left=(0,),
        ),
        "engine alone, a process of its own, memory and energy",
        table(_costs_head(results), [_costs(row) for row in results.rows], left=(0,)),
        *_ratios(results),
        f"throttling: {results.throttling['state']}\n  " + "\n  ".join(results.throttling["evidence"]),
    ]
    if results.absent:
        parts.append("not timed\n" + "\n".join(f"  {names}: {reason}" for names, reason in absent_together(results)))
    return "\n\n".join(parts)


def absent_together(results: Results) -> list[tuple[str, str]]:
    """Names of the engines that are absent for the same reason, with the reason."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in results.absent.items():
        by_reason.setdefault(reason, []).append(name)
    return [(", ".join(names), reason) for reason, names in by_reason.items()]


RATIOS = (
    "Ratio of each time to that of the engine it is compared with: below 1 is faster. It is the median over rounds in "
    "which both took turns; resident memory is compared likewise"
)


def ratios_table(results: Results) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows, one for each engine that is compared with another."""
    rows = [row for row in results.rows if row.against is not None]
    figures = list(dict.fromkeys(figure for row in rows for figure in row.ratios))
    return ("", "compared with", *figures), [
        (row.name, row.against or "", *(f"{row.ratios[f]:.3f}" if f in row.ratios else NONE for f in figures))
        for row in rows
    ]


def images_per_second(row: Row, size: int) -> float:
    """Throughput of the engine alone at this batch size."""
    return 1e3 * size / median(row.batches[size])


def process_costs(row: Row) -> tuple[str, str, str, str]:
    """First verdict, resident memory, memory of the GPU, and energy per frame, each with its unit if it is known."""
    return (
        f"{median(row.start_seconds):.2f} s" if row.start_seconds else "not measured",
        f"{median(row.start_megabytes):.0f} MB" if row.start_megabytes else "not measured",
        NOT_READABLE if row.device_bytes is None else f"{row.device_bytes / 1e6:.0f} MB",
        NOT_READABLE if row.joules_per_frame is None else f"{1e3 * row.joules_per_frame:.1f} mJ",
    )


def _ratios(results: Results) -> list[str]:
    head, rows = ratios_table(results)
    return [RATIOS, table(head, rows, left=(0, 1))] if rows else []


def _stages(row: Row) -> tuple[str, ...]:
    total = Percentiles.of(row.stages[TO_VERDICT])
    medians = [
        f"{median(row.stages[stage]):.2f}" if stage in row.stages else NONE
        for stage in (*STAGES, TO_PICTURE, TO_VERDICT)
    ]
    return (row.name, *medians, *(f"{value:.2f}" for value in (total.p90, total.p99, total.maximum)))


def _costs_head(results: Results) -> tuple[str, ...]:
    sizes = results.rows[0].batches
    rates = (f"images/s at {size}" for size in sizes)
    return ("", *rates, "first verdict", "resident", "GPU memory", "energy per frame")


def _costs(row: Row) -> tuple[str, ...]:
    speeds = [f"{images_per_second(row, size):.1f}" for size in row.batches]
    return (row.name, *speeds, *process_costs(row))

"""``uflow-bench --report``: what was measured, as a page."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Final

from markupsafe import Markup

from uflow_edge.benchmarks.latency import console
from uflow_edge.benchmarks.latency.contenders import REFERENCE
from uflow_edge.benchmarks.latency.results import Results, Row
from uflow_edge.benchmarks.latency.stages import STAGES, TO_PICTURE, TO_VERDICT
from uflow_edge.benchmarks.latency.statistics import Percentiles
from uflow_edge.runtime.report.charts import line, stacked_bars, strips
from uflow_edge.runtime.report.page import render, write_page

_SERIES: Final = (
    ("ms", "All engines, one frame each, ms"),
    ("cpu_mhz", "CPU clock, MHz"),
    ("celsius", "Hottest zone, °C"),
    ("gpu_mhz", "GPU clock, MHz"),
    ("gpu_celsius", "GPU temperature, °C"),
)
_JETSON_ONLY: Final = ("jetson", "l4t", "power_mode")
_NONE: Final = Markup('<span class="quiet">{}</span>').format(console.NONE)
_COLUMNS: Final = (*STAGES, TO_VERDICT, TO_PICTURE)


def write_report(path: Path, results: Results) -> None:
    """Write the page in one rename."""
    write_page(path, report_page(results))


def report_page(results: Results) -> str:
    """The page as HTML."""
    rows, sizes = results.rows, list(results.rows[0].batches)
    seen = [stage for stage in STAGES if any(stage in row.stages for row in rows)]
    ratios_head, ratios = console.ratios_table(results)
    return render(
        Path(__file__).with_suffix(".html"),
        title=f"Latency of {results.bundle}" + (f" against {results.against}" if results.against else ""),
        results=results,
        made=_when(results.made),
        cards=_cards(results),
        notices=_notices(results),
        stage_keys={f"stage{STAGES.index(stage)}": stage for stage in seen},
        stages_chart=_stages_chart(rows),
        strips=strips({row.name: row.stages[TO_VERDICT] for row in rows}),
        stages_head=["", *_COLUMNS],
        stages=[[row.name, *(_median(row, stage) for stage in _COLUMNS)] for row in rows],
        spread=[
            [row.name if stage == STAGES[0] else "", stage, *_percentiles(row.stages[stage])]
            for row in rows
            for stage in _COLUMNS
            if stage in row.stages
        ],
        ratios_head=ratios_head,
        ratios=ratios,
        about_ratios=console.RATIOS,
        throughput_head=["images per second", *(f"batch {size}" for size in sizes)],
        throughput=[[row.name, *(f"{console.images_per_second(row, size):.1f}" for size in sizes)] for row in rows],
        costs=[[row.name, *console.process_costs(row)] for row in rows],
        reference=REFERENCE,
        parity=_parity(results),
        plots={
            label: line([reading[key] for reading in results.rounds], label)
            for key, label in _SERIES
            if all(reading[key] is not None for reading in results.rounds)
        },
        machine=_machine(results),
    )


def _when(made: str) -> str:
    """2026-11-30 16:45 UTC; a time in another form as it is."""
    try:
        return f"{datetime.fromisoformat(made).astimezone(timezone.utc):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return made


def _cards(results: Results) -> list[tuple[str, str, str]]:
    best = min(results.rows, key=lambda row: median(row.stages[TO_VERDICT]))
    total, state = Percentiles.of(best.stages[TO_VERDICT]), results.throttling["state"]
    speed, size, name = max(
        (console.images_per_second(row, size), size, row.name) for row in results.rows for size in row.batches
    )
    return [
        ("Fastest, frame to verdict", f"{total.p50:.1f} ms", best.name),
        ("Its slowest in a hundred", f"{total.p99:.1f} ms", f"p99; at most {total.maximum:.1f} ms"),
        ("Most images per second", f"{speed:.0f}", f"{name}, engine alone, batch {size}"),
        ("Was the machine steady?", "yes" if state == "steady" else state.split(",")[0], "see below"),
    ]


def _notices(results: Results) -> list[str]:
    found = [f"Refused, {name}: {reason}" for name, reason in results.refused.items()]
    if (state := results.throttling["state"]) != "steady":
        found.append(f"It is not known whether the machine was steady: {state}")
    if busy := [row.name for row in results.rows if row.anomalous > 0.5]:
        found.append(
            "Most frames were anomalous, and every region costs time in NFA and drawing: "
            f"{', '.join(busy)}. Frames of the line itself (--images) tell more."
        )
    return found


def _stages_chart(rows: Sequence[Row]) -> Markup:
    medians = {row.name: {stage: median(row.stages[stage]) for stage in STAGES if stage in row.stages} for row in rows}
    return stacked_bars(medians, {row.name: median(row.stages[TO_PICTURE]) for row in rows}, STAGES)


def _median(row: Row, stage: str) -> str:
    return f"{median(row.stages[stage]):.2f}" if stage in row.stages else _NONE


def _percentiles(samples: Sequence[float]) -> list[str]:
    found = Percentiles.of(samples)
    return [f"{value:.2f}" for value in (found.p50, found.p90, found.p99, found.maximum)]


def _parity(results: Results) -> list[tuple[str, Markup]]:
    """Names of engines, and whether they compute what they should."""
    kept = Markup('<span class="good">kept</span> {}<br><span class="quiet">{}</span>')
    refused = Markup('<span class="bad">refused</span> {}')
    absent = Markup('<span class="quiet">{}</span>')
    return [
        *((row.name, kept.format(_unbroken(row.parity), row.engine)) for row in results.rows),
        *((name, refused.format(_unbroken(reason))) for name, reason in results.refused.items()),
        *((names, absent.format(reason)) for names, reason in console.absent_together(results)),
    ]


def _unbroken(text: str) -> str:
    """With numbers such as 1e-02 never on two lines."""
    return re.sub(r"(?<=\de)-(?=\d)", "\u2011", text)


def _machine(results: Results) -> list[tuple[str, str]]:
    facts = asdict(results.machine)
    facts["libraries"] = ", ".join(f"{name} {version}" for name, version in facts["libraries"].items())
    on_jetson = results.machine.jetson is not None
    return [
        (name.replace("_", " "), console.NOT_READABLE if value is None else str(value))
        for name, value in facts.items()
        if value is not None or on_jetson or name not in _JETSON_ONLY
    ]

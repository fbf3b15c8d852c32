"""``uflow-bench --report``: one page, no script, nothing from elsewhere."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import datetime, timezone
from html import escape
from pathlib import Path
from statistics import median
from typing import Final

from uflow_edge.benchmarks.latency import console
from uflow_edge.benchmarks.latency.charts import line, stacked_bars, strips
from uflow_edge.benchmarks.latency.contenders import REFERENCE
from uflow_edge.benchmarks.latency.report_style import STYLE
from uflow_edge.benchmarks.latency.results import Results
from uflow_edge.benchmarks.latency.stages import STAGES, TO_PICTURE, TO_VERDICT
from uflow_edge.benchmarks.latency.statistics import Percentiles
from uflow_edge.runtime.storage.files import replacing

_SERIES: Final = (
    ("ms", "All engines, one frame each", "ms"),
    ("cpu_mhz", "CPU clock", "MHz"),
    ("celsius", "Hottest zone", "°C"),
    ("gpu_mhz", "GPU clock", "MHz"),
    ("gpu_celsius", "GPU temperature", "°C"),
)


def write_report(path: Path, results: Results) -> None:
    """Write the page in one rename."""
    with replacing(path) as temporary:
        temporary.write_text(report_page(results), encoding="utf-8", errors="backslashreplace")


def report_page(results: Results) -> str:
    """The page."""
    name, workload = escape(results.bundle), results.workload
    name += f" against {escape(results.against)}" if results.against else ""
    width, height = workload.frame
    body = [
        f"<header><h1>Latency of {name}</h1><p>{escape(workload.extractor)} at {workload.input_size} pixels, frames of "
        f"{width} × {height} ({escape(workload.frames)}), {len(results.rounds)} rounds, {_when(results.made)}</p>"
        "</header>",
        _cards(results),
        _notices(results),
        _section("Where the time goes", _stages_chart(results)),
        _section("Every frame", _every_frame(results)),
        _section("Stage by stage", _stages_table(results)),
        _section("Compared within this run", _ratios(results)),
        _section("Throughput of the engine alone", _throughput(results)),
        _section("A process of its own, memory and energy", _costs(results)),
        _section("Do they compute what they should?", _parity(results)),
        _section("Was the machine steady?", _conditions(results)),
        _section("The machine", _machine(results)),
    ]
    return (
        "<!doctype html>\n<html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        "<meta name=color-scheme content='light dark'>"
        f"<title>Latency of {name}</title><style>{STYLE}</style><body><main>{''.join(body)}</main></body></html>\n"
    )


_NONE: Final = f"<span class=quiet>{console.NONE}</span>"
_STRIPS: Final = (
    "A dot is one frame, from its copy to the verdict, without drawing. The box reaches from the median to p90; the "
    "thin bar is p99, which less than a few hundred rounds can only guess. Engines took turns, frame by frame."
)


def _when(made: str) -> str:
    """2026-11-30 16:45 UTC; a time in another form as it is."""
    try:
        return f"{datetime.fromisoformat(made).astimezone(timezone.utc):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return escape(made)


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>" if content else ""


def _note(text: str) -> str:
    return f"<p class=note-text>{text}</p>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "plain") -> str:
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    heading = f"<tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>" if head else ""
    return f"<div class=wide><table class={kind}>{heading}{lines}</table></div>"


def _cards(results: Results) -> str:
    best = min(results.rows, key=lambda row: median(row.stages[TO_VERDICT]))
    total = Percentiles.of(best.stages[TO_VERDICT])
    speed, size, row = max(
        (console.images_per_second(row, size), size, row.name) for row in results.rows for size in row.batches
    )
    cards = [
        ("Fastest, frame to verdict", f"{total.p50:.1f} ms", best.name),
        ("Its slowest in a hundred", f"{total.p99:.1f} ms", f"p99; at most {total.maximum:.1f} ms"),
        ("Most images a second", f"{speed:.0f}", f"{row}, engine alone, batch {size}"),
        ("Was the machine steady?", escape(_steady(results.throttling["state"])), "see below"),
    ]
    return "<div class=cards>" + "".join(
        f"<div class=card><p class=label>{label}</p><p class=figure>{figure}</p><p>{escape(text)}</p></div>"
        for label, figure, text in cards
    ) + "</div>"  # fmt: skip


def _steady(state: str) -> str:
    return "yes" if state == "steady" else state.split(",")[0]


def _notices(results: Results) -> str:
    found = [f"Refused, {name}: {reason}" for name, reason in results.refused.items()]
    state = results.throttling["state"]
    if state != "steady":
        found.append(f"Not known to be the figures of a steady machine: {state}")
    busy = [row.name for row in results.rows if row.anomalous > 0.5]
    if busy:
        found.append(
            "Most frames were anomalous, and every region costs time in NFA and drawing: "
            f"{', '.join(busy)}. Frames of the line itself (--images) tell more."
        )
    return f"<div class=notice><ul>{''.join(f'<li>{escape(text)}</li>' for text in found)}</ul></div>" if found else ""


def _ratios(results: Results) -> str:
    head, rows = console.ratios_table(results)
    cells = [[escape(cell) for cell in row] for row in rows]
    return _table([escape(cell) for cell in head], cells, "compared") + _note(f"{console.RATIOS}.") if rows else ""


def _folded(summary: str, content: str) -> str:
    return f"<details><summary>{summary}</summary>{content}</details>"


def _stages_chart(results: Results) -> str:
    medians = {
        row.name: {stage: median(row.stages[stage]) for stage in STAGES if stage in row.stages} for row in results.rows
    }
    totals = {row.name: median(row.stages[TO_PICTURE]) for row in results.rows}
    seen = [stage for stage in STAGES if any(stage in stages for stages in medians.values())]
    keys = "".join(f"<span class=key><i class=stage{STAGES.index(stage)}></i>{stage}</span>" for stage in seen)
    return f"<p class=keys>{keys}</p><div class=wide>{stacked_bars(medians, totals, STAGES)}</div>"


def _every_frame(results: Results) -> str:
    plot = strips({row.name: row.stages[TO_VERDICT] for row in results.rows})
    return f"<div class=wide>{plot}</div>{_note(_STRIPS)}"


def _stages_table(results: Results) -> str:
    columns = (*STAGES, TO_VERDICT, TO_PICTURE)
    medians = [
        [escape(row.name), *(f"{median(row.stages[stage]):.2f}" if stage in row.stages else _NONE for stage in columns)]
        for row in results.rows
    ]
    spread = [
        [escape(row.name) if stage == STAGES[0] else "", stage, *_percentiles(row.stages[stage])]
        for row in results.rows
        for stage in columns
        if stage in row.stages
    ]
    head = ["engine", "stage", "p50", "p90", "p99", "max"]
    return (
        _table(["", *columns], medians)
        + _note(
            "Median milliseconds. host-to-device and device-to-host are none where an engine computes in the host's "
            "memory. Where the GPU resizes frames, that is in host-to-device."
        )
        + _folded("p90, p99 and max of each stage", _table(head, spread, "stages"))
    )


def _percentiles(samples: Sequence[float]) -> list[str]:
    found = Percentiles.of(samples)
    return [f"{value:.2f}" for value in (found.p50, found.p90, found.p99, found.maximum)]


def _throughput(results: Results) -> str:
    sizes = list(results.rows[0].batches)
    rows = [
        [escape(row.name), *(f"{console.images_per_second(row, size):.1f}" for size in sizes)] for row in results.rows
    ]
    return _table(["images a second", *(f"batch {size}" for size in sizes)], rows)


def _costs(results: Results) -> str:
    rows = [[escape(row.name), *(cell(row) for cell in _COSTS)] for row in results.rows]
    energy = f"Energy: {escape(results.meter)}." if results.meter else "Energy: no meter is readable here."
    return _table(["", "first verdict", "resident memory", "GPU memory", "energy per frame"], rows) + _note(
        "First verdict: uflow-infer as a new process, median; resident memory: the most that it held. " + energy
    )


_COSTS: Final = (console.start_seconds, console.resident_memory, console.device_memory, console.energy)


def _parity(results: Results) -> str:
    kept, refused = "<span class=good>kept</span>", "<span class=bad>refused</span>"
    rows = [
        [escape(row.name), f"{kept} {_unbroken(escape(row.parity))}<br><span class=quiet>{escape(row.engine)}</span>"]
        for row in results.rows
    ]
    rows += [[escape(name), f"{refused} {_unbroken(escape(why))}"] for name, why in results.refused.items()]
    rows += [
        [escape(names), f"<span class=quiet>{escape(why)}</span>"] for names, why in console.absent_together(results)
    ]
    return _table(["", f"against {REFERENCE}"], rows, "texts")


def _unbroken(text: str) -> str:
    """With numbers such as 1e-02 never on two lines."""
    return re.sub(r"(?<=\de)-(?=\d)", "\u2011", text)


def _conditions(results: Results) -> str:
    plots = []
    for key, label, unit in _SERIES:
        values = [reading[key] for reading in results.rounds]
        if all(value is not None for value in values):
            plots.append(line(values, label, unit))
    evidence = "".join(f"<li>{escape(text)}</li>" for text in results.throttling["evidence"])
    return f"<p>{escape(results.throttling['state'])}</p><ul>{evidence}</ul><div class=plots>{''.join(plots)}</div>"


_JETSON_ONLY: Final = ("jetson", "l4t", "power_mode")


def _machine(results: Results) -> str:
    rows = []
    for field in fields(results.machine):
        value = getattr(results.machine, field.name)
        if value is None and results.machine.jetson is None and field.name in _JETSON_ONLY:
            continue
        if field.name == "libraries":
            value = ", ".join(f"{name} {version}" for name, version in value.items())
        rows.append([field.name.replace("_", " "), escape(console.NOT_READABLE if value is None else str(value))])
    return _table((), rows, "facts")

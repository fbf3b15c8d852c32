"""Plots of the latency report as inline SVG; colours come from the page, so both themes can be read."""

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from uflow_edge.benchmarks.latency.statistics import Percentiles

_WIDTH, _LABEL, _RIGHT = 980, 190, 70
_ROW, _AXIS = 44, 40
_MOST_DOTS = 300
_MOST_LETTERS = 22


def stacked_bars(medians: Mapping[str, Mapping[str, float]], totals: Mapping[str, float], order: Sequence[str]) -> str:
    """Medians of stages beside each other, a bar for each engine, and the median of their sum at its end.

    Args:
        medians: milliseconds by stage, by engine.
        totals: median milliseconds of whole frames, by engine: medians of stages do not add up to it.
        order: all stages; the place in it gives each its colour.
    """
    axis = _Axis(0.0, max(sum(stages.values()) for stages in medians.values()) * 1.02)
    parts = []
    for i, (name, stages) in enumerate(medians.items()):
        y, start = i * _ROW + 8, 0.0
        parts.append(_label(name, y + 18))
        for stage, value in stages.items():
            left, right = axis.x(start), axis.x(start + value)
            title = f"<title>{escape(name)}, {escape(stage)}: {value:.2f} ms</title>"
            place = f'x="{left:.1f}" y="{y}" width="{right - left:.1f}" height=26'
            parts.append(f"<rect class=stage{order.index(stage)} {place}>{title}</rect>")
            start += value
        parts.append(f'<text class=value x="{axis.x(start) + 6:.1f}" y="{y + 18}">{totals[name]:.2f}</text>')
    return _svg(
        parts,
        axis,
        len(medians),
        "Median of each stage, milliseconds",
        "ms: medians of the stages, one after another; the number is the median of whole frames",
    )


def strips(samples: Mapping[str, Sequence[float]], unit: str = "ms") -> str:
    """Every sample as a dot, on a logarithmic axis; a box from p50 to p90, a bar at p99.

    Args:
        samples: by engine, positive.
        unit: of the samples.
    """
    low = min(min(values) for values in samples.values())
    high = max(max(values) for values in samples.values())
    axis = _Axis(low / 1.03, high * 1.03, logarithmic=True)
    parts = []
    for i, (name, values) in enumerate(samples.items()):
        y = i * _ROW + 6
        parts.append(_label(name, y + 20))
        jitter = np.random.default_rng(i).uniform(0, 28, len(values))
        shown = np.linspace(0, len(values) - 1, min(len(values), _MOST_DOTS)).astype(int)
        parts += [f'<circle cx="{axis.x(values[k]):.1f}" cy="{y + 1 + jitter[k]:.1f}" r=1.8 />' for k in shown]
        found = Percentiles.of(values)
        p50, p90, p99 = axis.x(found.p50), axis.x(found.p90), axis.x(found.p99)
        title = (
            f"<title>{escape(name)}: p50 {found.p50:.3g}, p90 {found.p90:.3g}, p99 {found.p99:.3g}, "
            f"max {found.maximum:.3g} {unit}</title>"
        )
        parts.append(f'<rect class=box x="{p50:.1f}" y="{y}" width="{max(p90 - p50, 1):.1f}" height=30>{title}</rect>')
        parts.append(f'<path class=median d="M{p50:.1f} {y - 2}v34"/><path class=tail d="M{p99:.1f} {y + 4}v22"/>')
    return _svg(parts, axis, len(samples), "Every frame", f"{unit} from frame to verdict, logarithmic")


def line(values: Sequence[float], label: str, unit: str) -> str:
    """One figure over the rounds."""
    width, height, left, bottom = 480, 150, 58, 120
    low, high = min(values), max(values)
    spread = (high - low) or max(abs(high) * 0.02, 1.0)
    low, high = low - 0.05 * spread, high + 0.05 * spread

    def x(i: int) -> float:
        return left + (width - left - 8) * i / max(1, len(values) - 1)

    def y(value: float) -> float:
        return bottom - (bottom - 10) * (value - low) / (high - low)

    points = " ".join(f"{x(i):.1f},{y(value):.1f}" for i, value in enumerate(values))
    marks = "".join(
        f'<path class=grid d="M{left} {y(tick):.1f}H{width - 8}"/>'
        f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor=end>{tick:g}</text>'
        for tick in _ticks(low, high, 4)
    )
    return (
        f'<figure><svg class=chart viewBox="0 0 {width} {height}" role=img aria-label="{escape(label)}">{marks}'
        f'<polyline class=series points="{points}"/>'
        f'<text x="{(left + width) / 2}" y="{height - 8}" text-anchor=middle>round 1 to {len(values)}</text></svg>'
        f"<figcaption>{escape(label)}, {escape(unit)}</figcaption></figure>"
    )


class _Axis:
    """From values to places across the plot."""

    def __init__(self, low: float, high: float, *, logarithmic: bool = False) -> None:
        self._map = math.log if logarithmic else float
        self._low, self._high = self._map(low), self._map(high)
        self.ticks = _logarithmic_ticks(low, high) if logarithmic else _ticks(low, high, 8)

    def x(self, value: float) -> float:
        return _LABEL + (_WIDTH - _LABEL - _RIGHT) * (self._map(value) - self._low) / (self._high - self._low)


def _svg(parts: Sequence[str], axis: _Axis, rows: int, description: str, unit: str) -> str:
    bottom = rows * _ROW + 4
    grid = "".join(
        f'<path class=grid d="M{axis.x(tick):.1f} 0V{bottom}"/>'
        f'<text x="{axis.x(tick):.1f}" y="{bottom + 15}" text-anchor=middle>{tick:g}</text>'
        for tick in axis.ticks
    )
    middle = (_LABEL + _WIDTH - _RIGHT) / 2
    return (
        f'<svg class=chart viewBox="0 0 {_WIDTH} {bottom + _AXIS}" role=img aria-label="{escape(description)}">'
        f'{grid}{"".join(parts)}<text class=label x="{middle}" y="{bottom + 34}" text-anchor=middle>'
        f"{escape(unit)}</text></svg>"
    )


def _label(name: str, y: float) -> str:
    """An engine's name; the bundle that it is of stands below it, and only the end of a long one is shown."""
    engine, _, bundle = name.partition(" of ")
    shown = bundle if len(bundle) <= _MOST_LETTERS else f"…{bundle[-_MOST_LETTERS:]}"
    lines = {engine: y - 7, f"of {shown}": y + 8} if bundle else {engine: y}
    place = f'<text class=name x="{_LABEL - 10}" text-anchor=end'
    return "".join(f'{place} y="{height}">{escape(line)}</text>' for line, height in lines.items())


def _ticks(low: float, high: float, most: int) -> list[float]:
    """At 1, 2 or 5 times a power of ten."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step *= next((factor for factor in (1, 2, 5) if (high - low) / (step * factor) <= most), 10)
    return [round(k * step, 10) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _logarithmic_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of every decade, or evenly where there would be less than three of those."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [factor * 10.0**decade for decade in decades for factor in (1, 2, 5)]
    inside = [tick for tick in found if low <= tick <= high]
    return inside if len(inside) > 2 else _ticks(low, high, 8)

"""Charts as inline SVG. Colours come from the stylesheet, so that both themes can be read."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

Curve: TypeAlias = Sequence[Sequence[float]]
"""Points [x, y] in [0, 1], rising in x."""

_Range: TypeAlias = tuple[float, float]

WIDE = 980  # units across a chart that fills the page; a narrower screen scrolls it
_MARGIN = (12, 14, 38, 46)  # top, right, bottom, left
_ROW_MARGIN = (0, 70, 40, 190)
_ROW = 44
_MOST_LETTERS = 22
_MOST_DOTS = 300
_BINS = 48
_EVEN_RANGES = 30.0  # interquartile ranges that an even axis shows well


class _Chart:
    """Axes with their grid; data coordinates in, SVG out. What lies outside the axes is drawn on their edge."""

    def __init__(
        self, size: tuple[int, int], x: _Range, y: _Range = (0.0, 1.0), margin: tuple[int, int, int, int] = _MARGIN
    ) -> None:
        top, right, bottom, left = margin
        self.width, self.height = size
        self.left, self.right, self.top, self.bottom = left, self.width - right, top, self.height - bottom
        self._x, self._y = x, y
        self._parts: list[str] = []

    def x(self, value: float) -> float:
        low, high = self._x
        return self.left + (self.right - self.left) * min(max((value - low) / (high - low), 0.0), 1.0)

    def y(self, value: float) -> float:
        low, high = self._y
        return self.bottom - (self.bottom - self.top) * min(max((value - low) / (high - low), 0.0), 1.0)

    def add(self, svg: str, *values: Any) -> None:
        """One element; values are escaped."""
        self._parts.append(Markup(svg).format(*values))

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "middle") -> None:
        self.add('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>', kind, x, y, anchor, text)

    def box(self, kind: str, left: float, right: float, top: float, height: float, title: str) -> None:
        svg = '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
        self.add(svg, kind, left, top, right - left, height, title)

    def curve(self, kind: str, points: Curve | NDArray[np.float64]) -> None:
        line = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        self.add('<polyline class="{}" points="{}"/>', kind, line)

    def x_axis(self, label: str, marks: Mapping[float, float] | None = None) -> None:
        """A line for each of the ``marks``: the number that is written there, and its place where that differs."""
        for value, place in ({tick: tick for tick in ticks(*self._x)} if marks is None else marks).items():
            x = self.x(place)
            self.add('<path class="grid" d="M{:.1f} {}V{}"/>', x, self.top, self.bottom)
            self.text(x, self.bottom + 16, _number(value))
        self.text((self.left + self.right) / 2, self.height - 5, label)

    def y_axis(self, label: str = "") -> None:
        for tick in ticks(*self._y, most=5):
            y = self.y(tick)
            self.add('<path class="grid" d="M{} {:.1f}H{}"/>', self.left, y, self.right)
            self.text(self.left - 7, y + 4, _number(tick), anchor="end")
        middle = (self.top + self.bottom) / 2
        self.add('<text transform="translate(12 {:.1f}) rotate(-90)" text-anchor="middle">{}</text>', middle, label)

    def row_name(self, row: int, name: str) -> None:
        """Beside a row; the bundle that an engine is of stands below it, and only the end of a long one is shown."""
        y = row * _ROW + 26
        engine, _, bundle = name.partition(" of ")
        shown = bundle if len(bundle) <= _MOST_LETTERS else f"…{bundle[-_MOST_LETTERS:]}"
        for text, height in {engine: y - 7, f"of {shown}": y + 8}.items() if bundle else ((engine, y),):
            self.text(self.left - 10, height, text, "name", "end")

    def svg(self, description: str) -> Markup:
        head = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">')
        return head.format(self.width, self.height, description) + Markup("").join(self._parts) + Markup("</svg>")


def score_histogram(scores: Sequence[float], threshold: float, band: _Range) -> Markup:
    """Scores of held-out images, log-NFA 0, and the threshold with the band that the true quantile lies in.

    The ends of the band may be infinite.
    """
    values = np.asarray(scores, np.float64)
    low, high = float(min(values.min(), threshold, 0.0)), float(max(values.max(), threshold, 0.0))
    along = _score_scale(values, low, high)
    room = 0.04 * (along(high) - along(low)) or 1.0
    shown = along(low) - room, along(high) + room
    counts, edges = np.histogram([along(value) for value in values], _BINS, shown)
    chart = _Chart((WIDE, 280), shown, (0.0, float(counts.max()) * 1.14))
    marks = ticks(*shown) if along(high) == high else _decades(low, high)
    chart.x_axis("score, −log10 NFA", {value: along(value) for value in marks})
    chart.y_axis("held-out images")
    left, right = (chart.x(along(end) if math.isfinite(end) else end) for end in band)
    if right - left >= 0.5:
        chart.box("band", left, right, chart.top, chart.bottom - chart.top, "the true quantile lies in this band")
    for count, start, end in zip(counts.tolist(), edges[:-1], edges[1:], strict=True):
        if count:
            kind, top = ("bar above" if start >= along(threshold) else "bar"), chart.y(count)
            chart.box(kind, chart.x(start) + 0.5, chart.x(end) - 0.5, top, chart.bottom - top, f"{count} images")
    for value, kind, label, y in (
        (threshold, "limit", f"threshold {threshold:.2f}", 9),
        (0.0, "zero", "log-NFA 0", 23),
    ):
        x = chart.x(along(value))
        chart.add('<path class="{}" d="M{:.1f} {}V{}"/>', kind, x, chart.top, chart.bottom)
        shift, anchor = (-5, "end") if x > WIDE / 2 else (5, "start")
        chart.text(x + shift, chart.top + y, label, kind, anchor)
    return chart.svg(f"Histogram of {values.size} scores; threshold {threshold:.2f}")


def quantiles(
    expected: NDArray[np.float64], before: NDArray[np.float64], after: NDArray[np.float64], description: str
) -> Markup:
    """Q–Q plot of −log10 p, before and after calibration; on the diagonal, p-values are what they should be."""
    most = float(math.ceil(expected.max()))
    top = float(min(max(math.ceil(max(after.max(), most)), most), 3 * most))
    chart = _Chart((310, 240), (0.0, most), (0.0, top))
    chart.x_axis("expected −log10 p")
    chart.y_axis("found")
    chart.curve("diagonal", [(0, 0), (most, most)])
    for values, kind in ((before, "other"), (after, "after")):
        inside = values <= top
        chart.curve(kind, np.stack([expected[inside], values[inside]], axis=1))
    return chart.svg(description)


def rate_curves(curves: Mapping[str, Curve], x_label: str, y_label: str, x_limit: float = 1.0) -> Markup:
    """Curves of one rate over another, by CSS class, cut at ``x_limit``, which is at most 1."""
    chart = _Chart((286, 280), (0.0, x_limit))
    chart.x_axis(x_label)
    chart.y_axis(y_label)
    for kind, points in curves.items():
        chart.curve(kind, _up_to(points, x_limit))
    return chart.svg(f"{y_label} over {x_label}")


def stacked_bars(
    medians: Mapping[str, Mapping[str, float]], totals: Mapping[str, float], order: Sequence[str]
) -> Markup:
    """A bar for each engine: the medians of its stages one after another.

    Args:
        medians: milliseconds by stage, by engine.
        totals: median milliseconds of whole frames, by engine: medians of stages do not add up to it.
        order: all stages; its position there gives each its colour.
    """
    most = max(sum(stages.values()) for stages in medians.values()) * 1.02
    chart = _Chart((WIDE, len(medians) * _ROW + 44), (0.0, most), margin=_ROW_MARGIN)
    chart.x_axis("ms: medians of the stages, one after another; the number is the median of whole frames")
    for row, (name, stages) in enumerate(medians.items()):
        chart.row_name(row, name)
        y, start = row * _ROW + 8, 0.0
        for stage, value in stages.items():
            ends = chart.x(start), chart.x(start + value)
            chart.box(f"stage{order.index(stage)}", *ends, y, 26, f"{name}, {stage}: {value:.2f} ms")
            start += value
        chart.text(chart.x(start) + 6, y + 18, f"{totals[name]:.2f}", "name value", "start")
    return chart.svg("Median of each stage, milliseconds")


def strips(samples_ms: Mapping[str, Sequence[float]]) -> Markup:
    """Every sample of each engine as a dot, on a logarithmic axis; a box from p50 to p90, a bar at p99."""
    low = min(map(min, samples_ms.values())) / 1.03
    high = max(map(max, samples_ms.values())) * 1.03
    chart = _Chart((WIDE, len(samples_ms) * _ROW + 44), (math.log(low), math.log(high)), margin=_ROW_MARGIN)
    marks = {tick: math.log(tick) for tick in _logarithmic_ticks(low, high)}
    chart.x_axis("ms from frame to verdict, logarithmic", marks)
    for row, (name, values) in enumerate(samples_ms.items()):
        chart.row_name(row, name)
        y, jitter = row * _ROW + 6, np.random.default_rng(row).uniform(0, 28, len(values))
        for k in np.linspace(0, len(values) - 1, min(len(values), _MOST_DOTS)).astype(int):
            chart.add('<circle cx="{:.1f}" cy="{:.1f}" r="1.8"/>', chart.x(math.log(values[k])), y + 1 + jitter[k])
        p50, p90, p99 = np.percentile(values, [50, 90, 99]).tolist()
        title = f"{name}: p50 {p50:.3g}, p90 {p90:.3g}, p99 {p99:.3g}, max {max(values):.3g} ms"
        left, right, tail = (chart.x(math.log(value)) for value in (p50, p90, p99))
        chart.box("box", left, max(right, left + 1), y, 30, title)
        chart.add('<path class="median" d="M{:.1f} {}v34"/>', left, y - 2)
        chart.add('<path class="tail" d="M{:.1f} {}v22"/>', tail, y + 4)
    return chart.svg("Every frame")


def line(values: Sequence[float], description: str) -> Markup:
    """One figure over the rounds."""
    low, high = min(values), max(values)
    room = 0.05 * ((high - low) or max(abs(high) * 0.02, 1.0))
    chart = _Chart((480, 150), (0, max(1, len(values) - 1)), (low - room, high + room), (10, 8, 30, 58))
    chart.x_axis(f"round 1 to {len(values)}", {})
    chart.y_axis()
    chart.curve("series", list(enumerate(values)))
    return chart.svg(description)


def ticks(low: float, high: float, most: int = 8) -> list[float]:
    """Round numbers in a range, 1, 2 or 5 times a power of ten apart."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= rough)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _number(value: float) -> str:
    return f"{value:.6g}".replace("-", "−")


def _score_scale(values: NDArray[np.float64], low: float, high: float) -> Callable[[float], float]:
    """Where a score lies along the axis: evenly, or by its inverse hyperbolic sine where a few lie far out."""
    lower, upper = np.quantile(values, [0.25, 0.75])
    spread = float(upper - lower)
    if spread <= 0 or high - low <= _EVEN_RANGES * spread:
        return float
    return lambda value: math.asinh(value / spread)


def _decades(low: float, high: float) -> list[float]:
    """0 and powers of ten of both signs in a range, every second one where they are many."""
    largest = math.floor(math.log10(max(abs(low), abs(high), 1.0)))
    powers = [10.0**power for power in range(largest, -1, -1 - largest // 4)]
    return [value for value in sorted({0.0, *powers, *(-power for power in powers)}) if low <= value <= high]


def _logarithmic_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of every decade, or evenly where there would be less than three of those."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [factor * 10.0**decade for decade in decades for factor in (1, 2, 5)]
    inside = [tick for tick in found if low <= tick <= high]
    return inside if len(inside) > 2 else ticks(low, high)


def _up_to(points: Curve, limit: float) -> list[Sequence[float]]:
    """The curve as far as the limit, with a point there."""
    inside = [point for point in points if point[0] <= limit]
    if inside[-1][0] < limit:
        inside.append((limit, float(np.interp(limit, *np.transpose(points)))))
    return inside

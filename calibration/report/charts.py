"""Charts of the calibration report as inline SVG; colours come from the page, so both themes can be read."""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

_WIDTH, _HEIGHT = 900, 280
_SIDE = 240
_MARGIN = (12, 14, 38, 46)  # top, right, bottom, left
_BINS = 48
_WIDE = 30.0  # interquartile ranges that an even axis shows well


class _Frame:
    """Axes with their grid; data coordinates in, SVG out."""

    def __init__(self, width: int, height: int, x_range: tuple[float, float], y_range: tuple[float, float]) -> None:
        top, right, bottom, left = _MARGIN
        self.width, self.height = width, height
        self.left, self.right, self.top, self.bottom = left, width - right, top, height - bottom
        self._x, self._y = x_range, y_range
        self.parts: list[str] = []

    def x(self, value: float) -> float:
        low, high = self._x
        return self.left + (self.right - self.left) * min(max((value - low) / (high - low), 0.0), 1.0)

    def y(self, value: float) -> float:
        low, high = self._y
        return self.bottom - (self.bottom - self.top) * min(max((value - low) / (high - low), 0.0), 1.0)

    def add(self, svg: str) -> None:
        self.parts.append(svg)

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "middle") -> None:
        self.add(f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>')

    def axes(self, x_label: str, y_label: str, marks: Mapping[float, float] | None = None) -> None:
        """Axes and grid; ``marks`` are values to write along x, and where they belong in its coordinates."""
        for value, position in (marks or {tick: tick for tick in ticks(*self._x)}).items():
            x = self.x(position)
            self.add(f'<path class=tick d="M{x:.1f} {self.bottom}v4"/>')
            self.text(x, self.bottom + 16, number(value))
        for tick in ticks(*self._y, most=5):
            y = self.y(tick)
            self.add(f'<path class=grid d="M{self.left} {y:.1f}H{self.right}"/>')
            self.text(self.left - 7, y + 4, number(tick), anchor="end")
        self.add(f'<path class=axis d="M{self.left} {self.bottom}H{self.right}"/>')
        self.text((self.left + self.right) / 2, self.height - 4, x_label, "label")
        middle = (self.top + self.bottom) / 2
        self.add(
            f'<text class=label transform="translate(12 {middle:.1f}) rotate(-90)" text-anchor=middle>'
            f"{escape(y_label)}</text>"
        )

    def svg(self, description: str) -> str:
        return (
            f'<svg class=chart viewBox="0 0 {self.width} {self.height}" role=img aria-label="{escape(description)}">'
            f"{''.join(self.parts)}</svg>"
        )


def score_histogram(scores: Sequence[float], threshold: float, band: tuple[float, float]) -> str:
    """Scores of held-out images, the threshold with its confidence band, and log-NFA 0.

    Args:
        scores: of the images.
        threshold: of the operating point.
        band: between which scores the true quantile lies; the ends may be infinite.
    """
    values = np.asarray(scores, np.float64)
    low, high = float(min(values.min(), threshold, 0.0)), float(max(values.max(), threshold, 0.0))
    along = _scale_for(values, low, high)
    room = 0.04 * (along(high) - along(low)) or 1.0
    shown = along(low) - room, along(high) + room
    counts, edges = np.histogram([along(value) for value in values], _BINS, shown)
    frame = _Frame(_WIDTH, _HEIGHT, shown, (0.0, float(counts.max()) * 1.14))
    left, right = (frame.x(along(end) if math.isfinite(end) else end) for end in band)
    height = frame.bottom - frame.top
    if right - left >= 0.5:
        frame.add(
            f'<rect class=band x="{left:.1f}" y="{frame.top}" width="{right - left:.1f}" height="{height}">'
            "<title>the true quantile of good images lies here</title></rect>"
        )
    marks = ticks(*shown) if along(high) == high else _decades(low, high)
    frame.axes("score, −log10 NFA", "held-out images", {value: along(value) for value in marks})
    for count, start, end in zip(counts, edges[:-1], edges[1:], strict=True):
        if count:
            x, top = frame.x(start), frame.y(float(count))
            above = " above" if start >= along(threshold) else ""
            frame.add(
                f'<rect class="bar{above}" x="{x + 0.5:.1f}" y="{top:.1f}" width="{frame.x(end) - x - 1:.1f}" '
                f'height="{frame.bottom - top:.1f}"><title>{count} images</title></rect>'
            )
    _line(frame, along(0.0), "zero", "log-NFA 0", level=1)
    _line(frame, along(threshold), "limit", f"threshold {threshold:.2f}", level=0)
    return frame.svg(f"Histogram of {values.size} scores; threshold {threshold:.2f}")


def _scale_for(values: NDArray[np.float64], low: float, high: float) -> Callable[[float], float]:
    """Where a score lies along the axis: evenly, or by its inverse hyperbolic sine where a few lie far out."""
    lower, upper = np.quantile(values, [0.25, 0.75])
    spread = float(upper - lower)
    if spread <= 0 or high - low <= _WIDE * spread:
        return float
    return lambda value: math.asinh(value / spread)


def _decades(low: float, high: float) -> list[float]:
    """0 and powers of ten of both signs in a range, every second one where they are many."""
    largest = math.floor(math.log10(max(abs(low), abs(high), 1.0)))
    powers = [10.0**power for power in range(largest, -1, -1 - largest // 4)]
    return [value for value in sorted({0.0, *powers, *(-power for power in powers)}) if low <= value <= high]


def _line(frame: _Frame, value: float, kind: str, label: str, level: int) -> None:
    x = frame.x(value)
    frame.add(f'<path class={kind} d="M{x:.1f} {frame.top}V{frame.bottom}"/>')
    left_of_it = x > (frame.left + frame.right) / 2
    frame.text(x + (-5 if left_of_it else 5), frame.top + 9 + 14 * level, label, kind, "end" if left_of_it else "start")


def quantiles(
    expected: NDArray[np.float64], before: NDArray[np.float64], after: NDArray[np.float64], description: str
) -> str:
    """Q–Q plot of −log10 p, before and after calibration; on the diagonal, p-values are what they should be."""
    most = float(math.ceil(expected.max()))
    top = float(min(max(math.ceil(max(after.max(), most)), most), 3 * most))
    frame = _Frame(_SIDE + 70, _SIDE, (0.0, most), (0.0, top))
    frame.axes("expected −log10 p", "found")
    frame.add(f'<path class=diagonal d="M{frame.x(0):.1f} {frame.y(0):.1f}L{frame.x(most):.1f} {frame.y(most):.1f}"/>')
    for values, kind in ((before, "before"), (after, "after")):
        inside = values <= top
        points = " ".join(
            f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in zip(expected[inside], values[inside], strict=True)
        )
        frame.add(f'<polyline class={kind} points="{points}"/>')
    return frame.svg(description)


def ticks(low: float, high: float, most: int = 8) -> list[float]:
    """Round numbers in a range, 1, 2 or 5 times a power of ten apart."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= rough)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A tick's label."""
    return f"{value:.6g}".replace("-", "−")

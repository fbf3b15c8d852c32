"""Curves of rates as inline SVG; colours come from the page, so both themes can be read."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TypeAlias

Curve: TypeAlias = Sequence[Sequence[float]]
"""Points [x, y] in [0, 1], rising in x."""

_SIDE = 232
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 10, 38
_TICKS = 5


def rate_curves(curves: Mapping[str, Curve], x_label: str, y_label: str, x_limit: float = 1.0) -> str:
    """Curves of one rate over another.

    Args:
        curves: by CSS class.
        x_label, y_label: of the axes.
        x_limit: where the x axis ends, up to 1; curves are cut there.
    """
    width, height = _SIDE + _LEFT + _RIGHT, _SIDE + _TOP + _BOTTOM

    def x(value: float) -> float:
        return _LEFT + _SIDE * min(value / x_limit, 1.0)

    def y(value: float) -> float:
        return _TOP + _SIDE * (1 - value)

    parts = []
    for i in range(_TICKS + 1):
        across, up = x_limit * i / _TICKS, i / _TICKS
        parts.append(f'<path class="grid" d="M{x(across):.1f} {_TOP}v{_SIDE}M{_LEFT} {y(up):.1f}h{_SIDE}"/>')
        parts.append(f'<text x="{x(across):.1f}" y="{_TOP + _SIDE + 15}" text-anchor="middle">{across:.3g}</text>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(up) + 4:.1f}" text-anchor="end">{up:.1f}</text>')
    parts.append(f'<text x="{_LEFT + _SIDE / 2}" y="{height - 6}" text-anchor="middle">{escape(x_label)}</text>')
    turned = f"translate(11 {_TOP + _SIDE / 2}) rotate(-90)"
    parts.append(f'<text transform="{turned}" text-anchor="middle">{escape(y_label)}</text>')
    for kind, points in curves.items():
        line = " ".join(f"{x(across):.1f},{y(up):.1f}" for across, up in _up_to(points, x_limit))
        parts.append(f'<polyline class="{kind}" points="{line}"/>')
    label = escape(f"{y_label} over {x_label}")
    return f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _up_to(points: Curve, limit: float) -> list[tuple[float, float]]:
    """The curve as far as the limit, with a point there."""
    inside = [(x, y) for x, y in points if x <= limit]
    beyond = [(x, y) for x, y in points if x > limit]
    if inside and beyond and inside[-1][0] < limit:
        (x0, y0), (x1, y1) = inside[-1], beyond[0]
        inside.append((limit, y0 + (y1 - y0) * (limit - x0) / (x1 - x0)))
    return inside

"""Reports on a phone: no text below 12 pixels, whatever is drawn."""

import re
from pathlib import Path

from uflow_edge.runtime.report import charts

STYLE = (Path(charts.__file__).parent / "report.css").read_text(encoding="utf-8")
SMALLEST = 12.0
NARROWEST = 320.0 - 2 * 10 - 2 * 13  # of a phone, less padding and borders


def test_no_text_is_too_small() -> None:
    sizes = [float(size) for size in re.findall(r"font(?:-size)?: ([\d.]+)px", STYLE)]
    assert len(sizes) > 5
    assert min(sizes) >= SMALLEST


def test_wide_charts_scroll_before_their_text_gets_too_small() -> None:
    (least,) = re.findall(r"\.wide \.chart { min-width: (\d+)px", STYLE)
    (text,) = re.findall(r"\.chart text { font-size: (\d+)px", STYLE)
    assert float(text) * float(least) / charts.WIDE >= 0.97 * SMALLEST


def test_small_charts_are_not_shrunk_on_a_phone() -> None:
    svg = charts.rate_curves({"nfa": [(0.0, 0.0), (1.0, 1.0)]}, "x", "y")
    (width,) = re.findall(r'viewBox="0 0 (\d+) ', svg)
    assert float(width) <= NARROWEST * 1.08

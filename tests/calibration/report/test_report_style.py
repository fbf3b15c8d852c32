"""Reports on a phone: no text below 12 pixels, whatever is drawn."""

import re

import pytest

from uflow_edge.benchmarks.latency import charts as latency_charts
from uflow_edge.benchmarks.latency.report_style import STYLE as LATENCY
from uflow_edge.calibration.report import charts as report_charts
from uflow_edge.calibration.report.style import STYLE as CALIBRATION
from uflow_edge.runtime.report_style import STYLE
from uflow_edge.training.evaluation import charts as rate_charts
from uflow_edge.training.evaluation.style import STYLE as EVALUATION

SMALLEST = 12.0
NARROWEST = 320.0 - 2 * 10 - 2 * 13  # of a phone, less padding and borders


@pytest.mark.parametrize("style", [STYLE, CALIBRATION, EVALUATION, LATENCY])
def test_no_text_is_too_small(style: str) -> None:
    sizes = [float(size) for size in re.findall(r"font(?:-size)?: ([\d.]+)px", style)]
    assert len(sizes) > 5
    assert min(sizes) >= SMALLEST


@pytest.mark.parametrize("width", [report_charts._WIDTH, latency_charts._WIDTH])
def test_wide_charts_scroll_before_their_text_gets_too_small(width: int) -> None:
    (least,) = re.findall(r"\.wide \.chart { min-width: (\d+)px", STYLE)
    (text,) = re.findall(r"\.chart text { font-size: (\d+)px", STYLE)
    assert float(text) * float(least) / width >= 0.97 * SMALLEST


def test_small_charts_are_not_shrunk_on_a_phone() -> None:
    svg = rate_charts.rate_curves({"nfa": [(0.0, 0.0), (1.0, 1.0)]}, "x", "y")
    (width,) = re.findall(r'viewBox="0 0 (\d+) ', svg)
    assert float(width) <= NARROWEST * 1.08

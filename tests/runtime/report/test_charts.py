"""The reports' charts are drawings that a browser can read, with what they should show."""

import math
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uflow_edge.runtime.report.charts import WIDE, quantiles, rate_curves, score_histogram, stacked_bars, ticks


def drawing(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def of_class(svg: str, name: str) -> list[ElementTree.Element]:
    return [node for node in drawing(svg).iter() if name in node.get("class", "").split()]


def test_the_histogram_counts_every_image() -> None:
    scores = np.random.default_rng(0).normal(-2, 1, 299).tolist()
    svg = score_histogram(scores, 0.7, (0.2, 0.7))
    titles = [node.find("title") for node in of_class(svg, "bar")]
    assert sum(int(str(title.text).split()[0]) for title in titles if title is not None) == 299
    assert len(of_class(svg, "band")) == 1
    assert [node.text for node in of_class(svg, "limit") if node.text] == ["threshold 0.70"]


@given(
    scores=st.lists(st.floats(-1e4, 1e5), min_size=1, max_size=50),
    threshold=st.floats(-1e4, 1e5),
    low=st.sampled_from([-math.inf, -3.0]),
    high=st.sampled_from([math.inf, 7.0]),
)
def test_any_scores_can_be_drawn(scores: list[float], threshold: float, low: float, high: float) -> None:
    svg = score_histogram(scores, threshold, (low, high))
    assert "nan" not in svg and "inf" not in svg
    for node in drawing(svg).iter("rect"):
        left, width = float(node.get("x", "")), float(node.get("width", ""))
        assert left >= 0 and left + width <= WIDE + 0.5


def test_the_quantiles_of_true_p_values_are_the_diagonal() -> None:
    expected = np.linspace(0.1, 5, 50)
    svg = quantiles(expected, 3 * expected, expected, "Q–Q")
    (after,), (before,), (diagonal,) = (of_class(svg, name) for name in ("after", "other", "diagonal"))
    points = np.array([tuple(map(float, pair.split(","))) for pair in after.get("points", "").split()])
    slopes = np.diff(points[:, 1]) / np.diff(points[:, 0])
    start, end = (tuple(map(float, pair.split(","))) for pair in diagonal.get("points", "").split())
    assert np.median(slopes) == pytest.approx((end[1] - start[1]) / (end[0] - start[0]), rel=0.05)
    assert len(before.get("points", "").split()) < 50  # what lies beyond the chart is not drawn on its edge


def test_one_image_far_out_does_not_squeeze_the_others() -> None:
    scores = [*np.random.default_rng(0).normal(-1, 1, 298).tolist(), 4000.0]
    bars = of_class(score_histogram(scores, 1.5, (0.5, 1.5)), "bar")
    assert len(bars) > 10
    (beyond,) = [bar for bar in bars if float(bar.get("x", "")) > 900]
    assert "above" in beyond.get("class", "")


@given(low=st.floats(-1e6, 1e6), extent=st.floats(1e-3, 1e6))
def test_ticks_are_few_and_inside(low: float, extent: float) -> None:
    found = ticks(low, low + extent)
    assert 1 <= len(found) <= 10
    assert min(found) >= low - 1e-6 * extent and max(found) <= low + extent * (1 + 1e-6)


def test_a_curve_is_cut_at_the_limit() -> None:
    svg = rate_curves({"nfa": [(0.0, 0.0), (0.2, 0.4), (1.0, 0.8)]}, "x", "y", x_limit=0.4)
    (curve,) = of_class(svg, "nfa")
    points = [tuple(map(float, pair.split(","))) for pair in curve.get("points", "").split()]
    assert [x - points[0][0] for x, _ in points] == pytest.approx([0, 113, 226])  # the plot is 226 wide and 230 high
    assert [points[0][1] - y for _, y in points] == pytest.approx([0, 0.4 * 230, 0.5 * 230])


def test_names_are_escaped() -> None:
    svg = stacked_bars({"<b> of <c>": {"a": 1.0}}, {"<b> of <c>": 1.0}, ["a"])
    assert [node.text for node in of_class(svg, "name")] == ["<b>", "of <c>", "1.00"]

"""The report's charts are drawings that a browser can read, with what they should show."""

import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uflow_edge.calibration import command
from uflow_edge.calibration.latency import latencies_ms
from uflow_edge.calibration.report.charts import quantiles, score_histogram, ticks
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest


def drawing(svg: str) -> ElementTree.Element:
    """Parsed as XML, which wants quotes around attributes that HTML does not."""

    return ElementTree.fromstring(re.sub(r"([\w-]+)=([\w-]+)(?=[ />])", r'\1="\2"', svg))


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
        assert left >= 0 and left + width <= 900.5


def test_the_quantiles_of_true_p_values_are_the_diagonal() -> None:
    expected = np.linspace(0.1, 5, 50)
    svg = quantiles(expected, 3 * expected, expected, "Q–Q")
    (after,), (before,), (diagonal,) = (of_class(svg, name) for name in ("after", "before", "diagonal"))
    points = np.array([tuple(map(float, pair.split(","))) for pair in after.get("points", "").split()])
    slopes = np.diff(points[:, 1]) / np.diff(points[:, 0])
    start, end = (tuple(map(float, pair.split())) for pair in diagonal.get("d", "")[1:].split("L"))
    assert np.median(slopes) == pytest.approx((end[1] - start[1]) / (end[0] - start[0]), rel=0.05)
    assert len(before.get("points", "").split()) < 50  # what lies beyond the chart is not drawn on its edge


def test_one_image_far_out_does_not_squeeze_the_others() -> None:
    scores = [*np.random.default_rng(0).normal(-1, 1, 298).tolist(), 4000.0]
    bars = of_class(score_histogram(scores, 1.5, (0.5, 1.5)), "bar")
    assert len(bars) > 10
    (beyond,) = [bar for bar in bars if float(bar.get("x", "")) > 850]
    assert "above" in beyond.get("class", "")


@given(low=st.floats(-1e6, 1e6), extent=st.floats(1e-3, 1e6))
def test_ticks_are_few_and_inside(low: float, extent: float) -> None:
    found = ticks(low, low + extent)
    assert 1 <= len(found) <= 10
    assert min(found) >= low - 1e-6 * extent and max(found) <= low + extent * (1 + 1e-6)


def test_latency_of_every_graph(exported: Path) -> None:
    bundle = Bundle.load(exported, UFlowManifest)
    found = latencies_ms(bundle)
    assert {file for file, _ in found} == {variant.file for variant in bundle.manifest.variants}
    assert all(0 < milliseconds < 10_000 for milliseconds in found.values())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--max-false-alarms", 2), "false-alarm rate 2.0: expected a number between 0 and 1"),
        (("--confidence", 1), "confidence 1.0: expected a number between 0 and 1"),
        (("--confidence", "high"), "expected a finite number, got 'high'"),
        (("--exclude", "elephant.png"), "no such image"),
        (("--int8", "--null-model", "none"), "--int8 needs images for a null model"),
        (("--overlap", 0.5), "--overlap needs --tile"),
    ],
)
def test_what_cannot_be_meant(
    argv: tuple[object, ...],
    message: str,
    exported: Path,
    good_folder: Path,
    exit_code: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_code(command.main, "--bundle", exported, "--good", good_folder, *argv) == 2
    assert message in capsys.readouterr().err


def test_the_command_needs_neither_torch_nor_scipy() -> None:
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['torch', 'scipy', 'sklearn', 'onnx', 'onnx_ir']))\n"
        "from uflow_edge.calibration import calibrate, command, saving\n"
        "from uflow_edge.calibration.report import pictures\n"
        "from uflow_edge.calibration.operating_point import clopper_pearson\n"
        "print(round(clopper_pearson(1, 100)[1], 4))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "0.0545"

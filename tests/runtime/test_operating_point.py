"""The conformal threshold: its promise, and when it cannot be made."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.operating_point import OperatingPoint, conformal_operating_point


@given(
    scores=st.lists(st.floats(-1e6, 1e6), min_size=19, max_size=200),
    rate=st.sampled_from([0.05, 0.1, 0.2, 0.5]),
)
def test_leaves_as_few_above_as_exchangeability_needs(scores: list[float], rate: float) -> None:
    point = conformal_operating_point(scores, rate)
    n = len(scores)
    assert point.threshold in scores
    assert (sum(s > point.threshold for s in scores) + 1) / (n + 1) <= rate + 1e-9
    assert (point.false_alarm_rate, point.good_images, point.origin) == (rate, n, "conformal")


def test_false_alarms_on_new_images_keep_the_promise_on_average() -> None:
    random = np.random.default_rng(0)
    alarms = []
    for _ in range(2000):
        scores = random.normal(size=40)
        point = conformal_operating_point(scores[:39].tolist(), 0.1)
        alarms.append(scores[39] > point.threshold)
    assert 0.08 < np.mean(alarms) <= 0.115


@pytest.mark.parametrize(("rate", "needed"), [(0.05, 19), (0.1, 9), (0.01, 99)])
def test_says_how_many_images_are_needed(rate: float, needed: int) -> None:
    assert conformal_operating_point([float(i) for i in range(needed)], rate).threshold == needed - 1
    with pytest.raises(BadInput, match=f"{needed} are needed, or ask for at least"):
        conformal_operating_point([0.0] * (needed - 1), rate)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 2.0])
def test_refuses_rates_out_of_range(rate: float) -> None:
    with pytest.raises(BadInput, match="between 0 and 1"):
        conformal_operating_point([0.0] * 50, rate)


@pytest.mark.parametrize(
    "threshold",
    [math.nan, math.inf, -math.inf, 10**400, -(10**400), 1.7e308, "1", True, None, 1j, [1], np.float32("nan")],
)
def test_a_threshold_is_a_finite_number(threshold: object) -> None:
    with pytest.raises(BadInput, match="^threshold .*: expected a finite number"):
        OperatingPoint(threshold, "manual")  # type: ignore[arg-type]


@pytest.mark.parametrize("threshold", [1e9, -1e9, 0, 3, np.float32(1.5), np.int64(2), Fraction(1, 2)])
def test_any_real_number_is_taken_as_a_float(threshold: float) -> None:
    point = OperatingPoint(threshold, "manual")
    assert type(point.threshold) is float
    assert point.threshold == threshold


@pytest.mark.parametrize(
    "values",
    [
        ("auto",),
        ("conformal",),
        ("conformal", 0.05),
        ("conformal", 0.0, 19),
        ("conformal", math.nan, 19),
        ("conformal", 0.05, 0),
        ("conformal", 0.05, 19.0),
        ("conformal", 0.05, True),
        ("conformal", 0.05, 19, 1.0),
        ("conformal", 0.05, 19, math.inf),
    ],
)
def test_a_promise_is_whole_or_refused(values: tuple[object, ...]) -> None:
    with pytest.raises(BadInput):
        OperatingPoint(0.0, *values)  # type: ignore[arg-type]


def test_a_doubt_takes_the_promise_and_a_suspicion_makes_it_depend() -> None:
    point = OperatingPoint(0.41, "conformal", 0.05, 40, 0.95, suspicious=3)
    assert point.promise == (
        "at most 5 % of good images called anomalous, with 95 % confidence "
        "(from 40 held-out images, if the 3 that look anomalous are good)"
    )
    assert replace(point, suspicious=1).promise.endswith("if the one that looks anomalous is good)")
    assert point.doubted(None) is point
    doubted = point.doubted("calibrated in fp32, run in fp16")
    assert doubted.promise == "calibrated in fp32, run in fp16: no promise"
    assert doubted.threshold == 0.41
    assert doubted.doubted("another reason") is doubted
    by_hand = OperatingPoint(0.41, "manual")
    assert by_hand.doubted("calibrated in fp32, run in fp16") is by_hand

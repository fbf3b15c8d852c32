"""The colour scale: it begins at the threshold, never goes back, and is the same wherever it is drawn."""

import math
from dataclasses import replace

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from uflow_edge.runtime.heat import STEPS, colour_bar, colour_bar_png, heat_colours, heat_of, step_labels
from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.overlay import HEADER, draw_maps, draw_overlay
from uflow_edge.runtime.verdict import Timestamps, Verdict


@given(st.floats(-500, 500))
def test_the_scale_begins_at_the_threshold_and_is_even_in_its_steps(threshold: float) -> None:
    scores = np.array([-math.inf, threshold - 50, threshold, *(threshold + step for step in STEPS[1:]), 1e9])
    np.testing.assert_allclose(heat_of(scores, threshold), [0, 0, 0, 0.25, 0.5, 0.75, 1, 1], atol=1e-6)


def test_colours_are_told_apart_and_get_brighter() -> None:
    colours = heat_colours(np.linspace(0, 1, 64, dtype=np.float32)[np.newaxis])
    brightness = cv2.cvtColor(colours, cv2.COLOR_BGR2GRAY)[0].astype(int)
    assert (np.diff(brightness) >= 0).all()
    assert brightness[0] > 30
    assert brightness[-1] > 200


def test_the_bar_is_the_scale_and_so_is_its_png() -> None:
    bar = colour_bar(256, 3)
    assert bar.shape == (3, 256, 3)
    np.testing.assert_array_equal(bar[1:2, [0, -1]], heat_colours(np.array([[0, 1]], np.float32)))
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(colour_bar_png(), np.uint8), 1), bar[:1])


def test_labels_name_the_threshold_first() -> None:
    assert step_labels(-0.34) == ["-0.3", "+1", "+10", "+100", "+1000"]


def inspection_of(threshold: float) -> Inspection:
    """A score of 5 on the left half and of −5 on the right, where energies are as high."""
    score = np.full((8, 8), 5, np.float32)
    score[:, 4:] = -5
    mask = np.repeat(np.repeat(score > threshold, 8, axis=0), 8, axis=1)
    point, times = OperatingPoint(threshold, "manual"), Timestamps(0, 0, 0, 0, 0)
    verdict = Verdict(0, "belt", (64, 64), bool(mask.any()), 5.0, point, (), mask, times)
    energies = (np.full((8, 8), 80, np.float32),)
    own = np.repeat(np.arange(8, dtype=np.float32)[np.newaxis], 8, axis=0)
    return Inspection(verdict, energies, energies, score, (0, 0, 64, 64), lambda: own)


def test_only_what_is_above_the_threshold_is_coloured() -> None:
    frame = np.full((64, 64, 3), 90, np.uint8)
    np.testing.assert_array_equal(draw_maps(frame, inspection_of(6), (4,), (64, 64)), frame)  # good: as it is
    drawn = draw_maps(frame, inspection_of(0), (4,), (64, 64))
    np.testing.assert_array_equal(drawn[:, 40:], frame[:, 40:])
    assert np.abs(drawn[32, 8].astype(int) - 90).max() > 30


def test_one_score_has_one_colour_whatever_the_picture_is() -> None:
    """Up to the opacity, that is: both pictures have the same energies."""
    small = draw_maps(np.full((64, 64, 3), 90, np.uint8), inspection_of(0), (4,), (64, 64))
    large = draw_maps(np.full((64, 64, 3), 90, np.uint8), inspection_of(0), (4,), (256, 256))
    np.testing.assert_allclose(small[32, 8], large[128, 32], atol=1)


def test_the_likelihood_map_colours_all_that_was_inspected() -> None:
    frame = np.full((64, 64, 3), 90, np.uint8)
    inspection = replace(inspection_of(6), box=(16, 0, 64, 64))  # good, and a part of the frame
    drawn = draw_maps(frame, inspection, (4,), (64, 64), "likelihood")
    np.testing.assert_array_equal(drawn[:, :16], frame[:, :16])
    likelihood = np.full((1, 1), 1 - np.exp(-80 / 8), np.float32)
    np.testing.assert_allclose(drawn[32, 40], 0.5 * 90 + 0.5 * heat_colours(likelihood)[0, 0], atol=1)
    header = draw_overlay(frame, inspection, (4,), "likelihood")[:HEADER]
    np.testing.assert_array_equal(header[27, [12, -13]], colour_bar(2, 1)[0])
    assert step_labels(6, "likelihood") == ["0", "0.25", "0.5", "0.75", "1"]


def test_a_large_frame_is_drawn_with_sixteen_million_pixels() -> None:
    size = (4000, 9000)
    inspection = inspection_of(0)
    mask = np.zeros(size, np.bool_)
    mask[:, :4500] = True
    verdict = replace(inspection.verdict, size=size, mask=mask)
    drawn = draw_overlay(
        np.full((*size, 3), 90, np.uint8), replace(inspection, verdict=verdict, box=(0, 0, 9000, 4000)), (4,)
    )
    assert drawn.shape == (2667 + HEADER, 6000, 3)
    assert np.abs(drawn[HEADER + 1300, 1000].astype(int) - 90).max() > 30
    assert (drawn[HEADER + 1300, 3100:] == 90).all()


def test_the_evidence_colours_all_that_was_inspected_and_detected_pixels_most() -> None:
    frame = np.full((64, 64, 3), 90, np.uint8)
    drawn = draw_maps(frame, inspection_of(0), (4,), (64, 64), "evidence")
    expected = heat_colours(np.array([[0.25 + 0.25 * (2 + 1 - 1) / 3, 0.25 * (1 - math.exp(-6))]], np.float32))[0]
    np.testing.assert_allclose(drawn[24, [12, 52]], 0.5 * 90 + 0.5 * expected, atol=4)
    assert step_labels(6, "evidence") == ["0", "1", "4", "8", "16"]

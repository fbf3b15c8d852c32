"""Detectors of the forensics benchmark, on photographs with and without a planted trace."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from uflow_edge.benchmarks.studies.forensics.chance import log10_binomial_tail
from uflow_edge.benchmarks.studies.forensics.dct import COSINES
from uflow_edge.benchmarks.studies.forensics.jpeg_grid import NO_VOTE, dct_zeros, detect_grids, grid_votes
from uflow_edge.benchmarks.studies.forensics.measure import area_under_roc
from uflow_edge.benchmarks.studies.forensics.noise_level import detect_noise_difference
from uflow_edge.benchmarks.studies.forensics.photographs import Photograph, crops, grey_photographs, test_photographs
from uflow_edge.benchmarks.studies.forensics.resampling import detect_resampling
from uflow_edge.benchmarks.studies.forensics.traces import (
    jpeg,
    jpeg_history,
    jpeg_splice,
    noise_splice,
    resampled_splice,
)


@pytest.fixture(scope="module")
def photographs() -> list[Photograph]:
    """30 parts of five photographs that have no history."""
    parts = crops(test_photographs() + grey_photographs())
    return [parts[i] for i in np.linspace(0, len(parts) - 1, 30).round().astype(int)]


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def overlap(box: tuple[int, int, int, int], mask: np.ndarray) -> float:
    """Intersection over union."""
    boxed = np.zeros_like(mask)
    boxed[box[0] : box[2], box[1] : box[3]] = True
    return (boxed & mask).sum() / (boxed | mask).sum()


# Chance


@given(st.integers(1, 400), st.floats(0.01, 0.99), st.data())
def test_the_tail_is_bounded_from_above_and_never_certain_beyond_expectation(trials, probability, data) -> None:
    successes = data.draw(st.integers(0, trials))
    bound = log10_binomial_tail(successes, trials, probability)
    assert bound <= 0
    assert bound >= binom.logsf(successes - 1, trials, probability) / np.log(10) - 1e-6
    if successes <= trials * probability:
        assert bound == 0


def test_the_tail_does_not_underflow() -> None:
    assert log10_binomial_tail(5000, 5000, 1 / 64) == pytest.approx(-5000 * np.log10(64))


# JPEG grid


def test_cosines_are_those_of_jpeg() -> None:
    block = random().normal(size=(8, 8)).astype(np.float32)
    assert COSINES @ block @ COSINES.T == pytest.approx(cv2.dct(block), abs=1e-5)


def test_zeros_of_a_window_are_counted() -> None:
    coefficients = np.zeros((8, 8), np.float32)
    coefficients[0, 0], coefficients[0, 3], coefficients[5, 0] = 900, 40, -7
    block = COSINES.T @ coefficients @ COSINES
    assert dct_zeros(block)[0, 0] == 61
    coefficients[5, 0] = 0  # constant along the columns now
    assert dct_zeros(COSINES.T @ coefficients @ COSINES)[0, 0] == 0


def test_a_flat_image_votes_for_nothing() -> None:
    assert (grid_votes(np.full((64, 64), 77, np.float32)) == NO_VOTE).all()


@pytest.mark.parametrize("offset", [(0, 0), (3, 6), (7, 1)], ids=str)
def test_the_origin_of_the_grid_is_found(photographs: list[Photograph], offset: tuple[int, int]) -> None:
    row, column = offset
    found = detect_grids(jpeg(photographs[0].image, 85)[row:, column:])
    assert found.main is not None
    assert found.main.origin == (-row % 8, -column % 8)
    assert found.main.log_nfa < -50
    assert found.foreign_score < 0


def test_photographs_without_a_history_show_no_grid(photographs: list[Photograph]) -> None:
    for photograph in photographs:
        found = detect_grids(photograph.image)
        assert found.main is None, photograph.name
        assert found.foreign_score < 0, photograph.name


def test_a_jpeg_history_is_found(photographs: list[Photograph]) -> None:
    clean = [detect_grids(p.image).main_score for p in photographs]
    planted = [detect_grids(jpeg_history(p.image, random(i)).image).main_score for i, p in enumerate(photographs)]
    assert area_under_roc(clean, planted) > 0.99
    assert np.mean(np.array(planted) > 0) > 0.95


def test_a_foreign_grid_is_found_where_it_is(photographs: list[Photograph]) -> None:
    planted = [jpeg_splice(p.image, random(i)) for i, p in enumerate(photographs)]
    found = [detect_grids(p.image) for p in planted]
    detected = [f.foreign_score > 0 for f in found]
    assert np.mean(detected) > 0.9
    places = [overlap(f.foreign[0].box, p.mask) for f, p, d in zip(found, planted, detected, strict=True) if d]
    assert np.median(places) > 0.7


# Noise


def test_noise_is_measured_and_a_noisier_region_found() -> None:
    image = np.full((160, 160, 3), 128.0)
    sigma = np.full((160, 160, 1), 3.0)
    sigma[48:128, 48:128] = 9
    grey = random().normal(size=(160, 160, 1))
    found = detect_noise_difference(np.clip(image + sigma * grey, 0, 255).round().astype(np.uint8))
    assert found.levels[6:16, 6:16].mean() == pytest.approx(9, rel=0.1)
    assert found.levels[:5].mean() == pytest.approx(3, rel=0.1)
    assert found.score > 2
    assert found.scores[10, 10] == found.score


def test_even_noise_raises_no_alarm() -> None:
    scores = [
        detect_noise_difference(random(i).normal(128, 5, (160, 160, 3)).round().astype(np.uint8)).score
        for i in range(20)
    ]
    assert np.mean(np.array(scores) > 0) <= 0.2


def test_a_noise_splice_is_found_in_photographs(photographs: list[Photograph]) -> None:
    clean = [detect_noise_difference(p.image).score for p in photographs]
    planted = [detect_noise_difference(noise_splice(p.image, random(i)).image).score for i, p in enumerate(photographs)]
    assert area_under_roc(clean, planted) > 0.9


# Resampling


@pytest.mark.parametrize("factor", [1.2, 1.4, 1.5])
@pytest.mark.parametrize("interpolation", [cv2.INTER_LINEAR, cv2.INTER_CUBIC], ids=["bilinear", "bicubic"])
def test_the_factor_shows_as_a_frequency(factor: float, interpolation: int) -> None:
    image = grey_photographs()[2].image[160:320, 160:320]
    found = detect_resampling(cv2.resize(image, None, fx=factor, fy=factor, interpolation=interpolation))
    assert found.frequency == pytest.approx(1 - 1 / factor, abs=0.011)  # one frequency of a window of 96 pixels
    assert found.score > 2


def test_an_enlarged_splice_is_found_in_photographs(photographs: list[Photograph]) -> None:
    clean = [detect_resampling(p.image).score for p in photographs]
    planted = [detect_resampling(resampled_splice(p.image, random(i)).image).score for i, p in enumerate(photographs)]
    assert area_under_roc(clean, planted) > 0.9
    assert np.mean(np.array(clean) > 0) < 0.3
    assert np.mean(np.array(planted) > 0) > 0.8


def test_white_noise_gives_fewer_false_alarms_than_one_an_image() -> None:
    scores = [
        detect_resampling(random(i).normal(128, 10, (160, 160, 3)).round().astype(np.uint8)).score for i in range(30)
    ]
    assert np.mean(np.array(scores) > 0) < 0.5


def test_the_astronaut_of_scikit_image_was_enlarged_once() -> None:
    """Why it is not among the photographs without a history: every part of it peaks at one frequency."""
    from skimage import data

    found = [detect_resampling(data.astronaut()[y : y + 160, x : x + 160]) for y in (0, 160) for x in (0, 160)]
    assert {round(f.frequency, 3) for f in found} == {0.177}
    assert all(f.score > 0 for f in found)

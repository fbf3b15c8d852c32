"""Traces, measures of quality and the bookkeeping of the forensics benchmark."""

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from uflow_edge.benchmarks.studies.forensics.baselines import gaussian_noise, median_filter
from uflow_edge.benchmarks.studies.forensics.measure import (
    CASES,
    area_under_roc,
    clean_scores,
    outcome,
    planted_images,
    threshold_of,
)
from uflow_edge.benchmarks.studies.forensics.naturalness import NaturalnessModel, mscn, patch_features
from uflow_edge.benchmarks.studies.forensics.photographs import (
    CROP,
    Photograph,
    crops,
    grey_photographs,
    test_photographs,
    training_photographs,
    write_training_photographs,
)
from uflow_edge.benchmarks.studies.forensics.pictures import (
    VIEWS,
    comparison,
    difference,
    noise_map,
    spectrum,
    vote_map,
)
from uflow_edge.benchmarks.studies.forensics.traces import Planted, jpeg, jpeg_splice, noise_splice, resampled_splice


@pytest.fixture(scope="module")
def photographs() -> list[Photograph]:
    return crops(test_photographs())[::4]


@pytest.fixture(scope="module")
def natural() -> NaturalnessModel:
    return NaturalnessModel.fit([photograph.image for photograph in training_photographs()])


def test_no_scene_is_both_learned_from_and_tested_with(tmp_path: Path) -> None:
    tested, learned = {p.name for p in test_photographs()}, {p.name for p in training_photographs()}
    assert len(learned) == 6 and not tested & learned
    write_training_photographs(tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == learned


def test_crops_lie_side_by_side() -> None:
    image = np.arange(340 * 500 * 3).astype(np.uint8).reshape(340, 500, 3)
    parts = crops([Photograph("x", image)])
    assert len(parts) == 2 * 3
    assert {part.image.shape for part in parts} == {(CROP, CROP, 3)}
    assert np.array_equal(parts[-1].image, image[160:320, 320:480])


@pytest.mark.parametrize("plant", [noise_splice, resampled_splice], ids=lambda plant: plant.__name__)
def test_a_splice_changes_its_region_and_nothing_else(photographs: list[Photograph], plant) -> None:
    image = photographs[1].image
    planted = plant(image, np.random.default_rng(1))
    assert planted.mask.sum() == 96**2
    assert np.array_equal(planted.image[~planted.mask], image[~planted.mask])
    assert (planted.image != image)[planted.mask].mean() > 0.5
    again = plant(image, np.random.default_rng(1))
    assert np.array_equal(again.image, planted.image) and np.array_equal(again.mask, planted.mask)


def test_planted_noise_has_the_deviation_asked_for() -> None:
    image = np.full((160, 160, 3), 128, np.uint8)
    planted = noise_splice(image, np.random.default_rng(0), sigma=6.0)
    assert planted.image[planted.mask].std() == pytest.approx(6, rel=0.03)


def test_a_jpeg_splice_leaves_the_background_on_its_own_grid(photographs: list[Photograph]) -> None:
    image = photographs[1].image
    planted = jpeg_splice(image, np.random.default_rng(1))
    qualities = [jpeg(image, quality) for quality in range(80, 91)]
    assert any(np.array_equal(q[~planted.mask], planted.image[~planted.mask]) for q in qualities)
    assert not any(np.array_equal(q[planted.mask], planted.image[planted.mask]) for q in qualities)


def test_baselines(photographs: list[Photograph]) -> None:
    image = np.full((160, 160, 3), 100, np.uint8)
    assert gaussian_noise(image, 5.0, np.random.default_rng(0)).std() == pytest.approx(5, rel=0.03)
    image[80, 80] = 255
    assert (median_filter(image, 3) == 100).all()


def test_area_under_roc_counts_pairs() -> None:
    random = np.random.default_rng(0)
    negatives, positives = random.integers(0, 8, 40), random.integers(3, 12, 30)
    expected = roc_auc_score(np.repeat([0, 1], [40, 30]), np.concatenate([negatives, positives]))
    assert area_under_roc(negatives.tolist(), positives.tolist()) == pytest.approx(expected)


def test_the_threshold_is_an_nfa_of_one_or_what_one_photograph_in_twenty_exceeds() -> None:
    assert threshold_of([-5.0, -3.0, -1.0]) == 0
    assert threshold_of([float(x) for x in range(101)]) == 95


def test_normalised_luminance_has_neither_mean_nor_contrast(photographs: list[Photograph]) -> None:
    luma = photographs[0].image[:, :, 1].astype(np.float32)
    normalised, _ = mscn(luma)
    brighter, _ = mscn(luma * 0.5 + 60)
    assert abs(normalised.mean()) < 0.05
    assert 0.3 < normalised.std() < 1.2
    assert np.corrcoef(normalised.ravel(), brighter.ravel())[0, 1] > 0.97


def test_features_tell_normal_from_heavy_tailed_values() -> None:
    random = np.random.default_rng(0)
    image = np.repeat(random.normal(128, 20, (160, 160, 1)).clip(0, 255).round(), 3, axis=2).astype(np.uint8)
    features, sharpness = patch_features(image)
    assert features.shape == (16, 36) and sharpness.shape == (16,)
    assert np.median(features[:, 0]) > 1.7  # white noise, divided by its own deviation, is nearly normal
    smooth = cv2.GaussianBlur(image, (0, 0), 3)
    assert patch_features(smooth)[1].mean() < sharpness.mean() / 3


@pytest.mark.parametrize(
    "spoil",
    [
        lambda image: cv2.GaussianBlur(image, (0, 0), 2.0),
        lambda image: median_filter(image, 5),
        lambda image: gaussian_noise(image, 40.0, np.random.default_rng(0)),
    ],
    ids=["blurred", "median", "noise"],
)
def test_spoilt_photographs_look_less_natural(photographs: list[Photograph], natural: NaturalnessModel, spoil) -> None:
    assert natural.photographs == 6
    clean = np.array([natural.distance(photograph.image) for photograph in photographs])
    spoilt = np.array([natural.distance(spoil(photograph.image)) for photograph in photographs])
    assert np.median(spoilt) > 1.25 * np.median(clean)
    assert np.mean(spoilt > clean) >= 0.8


def test_an_outcome_sums_up(photographs: list[Photograph], natural: NaturalnessModel) -> None:
    chosen = photographs[:2]
    planted = planted_images(chosen, seed=0)
    assert {case.name for case in CASES} == planted.keys()
    clean = clean_scores(chosen)
    untouched = outcome("untouched", planted, {n: [p.image for p in ps] for n, ps in planted.items()}, clean, natural)
    assert untouched.psnr == math.inf and untouched.ssim == 1
    assert [finding.found for finding in untouched.findings[:2]] == [1, 1]
    original = {name: [p.image for p in chosen] for name in planted}
    restored = outcome("restored", planted, original, clean, natural)
    assert [finding.found for finding in restored.findings[:2]] == [0, 0]
    assert [finding.auroc for finding in restored.findings] == [0.5] * 4
    assert 25 < restored.psnr < 60


def test_the_vote_map_shows_the_grid_in_one_colour(photographs: list[Photograph]) -> None:
    on_grid = vote_map(jpeg(photographs[0].image, 80)).reshape(-1, 3)
    colours, counts = np.unique(on_grid[on_grid.any(axis=1)], axis=0, return_counts=True)
    assert counts.max() > 0.5 * counts.sum() and len(colours) <= 64


def test_the_noise_map_shows_the_splice(photographs: list[Photograph]) -> None:
    planted = noise_splice(photographs[0].image, np.random.default_rng(0))
    shown = noise_map(planted.image)[:, :, 0].astype(float)
    assert shown[planted.mask].mean() > shown[~planted.mask].mean() + 50


def test_the_spectrum_shows_the_enlarging() -> None:
    gravel = grey_photographs()[2].image[:128, :128]
    shown = spectrum(cv2.resize(gravel, None, fx=1.25, fy=1.25, interpolation=cv2.INTER_LINEAR))[:, :, 0]
    assert shown.shape == (160, 160)
    assert shown[80, 80 + 32 - 1 : 80 + 32 + 2].max() == 255  # 1 - 1 / 1.25 = 0.2 cycles a pixel
    assert shown[80, 80 + 45 : 80 + 60].max() < 255


@pytest.mark.parametrize("case", [case.name for case in CASES])
def test_a_comparison_is_five_pictures_wide(photographs: list[Photograph], case: str) -> None:
    image = photographs[0].image
    assert (difference(image, image) == 128).all()
    row = comparison(Planted(image, np.zeros(image.shape[:2], np.bool_)), image, "method", VIEWS[case])
    assert row.dtype == np.uint8 and row.shape[1] > 5 * 2 * CROP


@pytest.mark.slow
def test_the_benchmark_from_end_to_end(tmp_path: Path, capsys) -> None:
    """With a network that has learned next to nothing: only that all of it works."""
    from uflow_edge.benchmarks.studies.forensics.__main__ import StudySize, benchmark
    from uflow_edge.training.diffusion import train_unet
    from uflow_edge.training.diffusion_options import DiffusionOptions

    write_training_photographs(tmp_path / "photographs")
    train_unet(tmp_path / "photographs", DiffusionOptions(channels=(8, 8), steps=20), tmp_path / "unet")
    assert benchmark(tmp_path, StudySize(images=1, training_steps=1), seed=0, unet=tmp_path / "unet") == 0
    assert "Diff-CFG, SSIM, t = 40" in capsys.readouterr().out
    written = json.loads((tmp_path / "forensics.json").read_text())
    assert len(written["outcomes"]) == 8 and len(written["outcomes"][0]["findings"]) == len(CASES)
    assert len(list((tmp_path / "pictures").iterdir())) == 8 * len(CASES)

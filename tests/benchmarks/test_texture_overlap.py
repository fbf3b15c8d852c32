"""Crops that are said not to overlap do not, and the others are the crowd they are said to be."""

import numpy as np

from uflow_edge.benchmarks.texture_overlap import CALIBRATED, CORNER, SIDE, crowded, disjoint

REST = np.arange(352 * 512).reshape(352, 512)  # every pixel another


def pixels(pictures: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([picture[..., 0].ravel() for picture in pictures])


def test_no_pixel_is_in_two_disjoint_crops() -> None:
    calibration, test = disjoint(REST, np.random.default_rng(0))
    assert (len(calibration), len(test)) == (CALIBRATED, 80)
    seen = pixels([*calibration, *test])
    assert len(np.unique(seen)) == len(seen) == REST.size


def test_crowded_crops_share_a_corner_that_the_test_does_not_show() -> None:
    for seed in range(20):
        calibration, test = crowded(REST, np.random.default_rng(seed))
        assert len(calibration) == CALIBRATED
        assert all(picture.shape == (SIDE, SIDE, 3) for picture in (*calibration, *test))
        seen = np.unique(pixels(calibration))
        assert len(seen) <= CORNER**2
        assert not np.intersect1d(seen, pixels(test)).size

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uflow_edge.runtime.diffusion.similarity import GUIDES, SIMILARITIES, corr, gaussian_window, mse, ssim, ssim_map


@pytest.mark.parametrize(("guide", "bound"), [("ssim", 2e-5), ("mse", 1e-6), ("corr", 1e-6)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_upstreams_values_and_gradients(arrays, guide, bound, dtype) -> None:
    theirs = arrays("similarity")
    found = SIMILARITIES[guide](theirs["x"].astype(dtype), theirs["reference"].astype(dtype))
    assert found.gradient.dtype == dtype
    expected = theirs[f"{guide}_gradient_f64"]
    assert np.linalg.norm(found.gradient - expected) < bound * np.linalg.norm(expected)
    np.testing.assert_allclose(found.value, theirs[f"{guide}_value_f64"], rtol=2e-6)


def test_upstreams_window(arrays) -> None:
    line = gaussian_window()
    np.testing.assert_allclose(np.outer(line, line), arrays("similarity")["ssim_window_f64"][0, 0], atol=1e-8)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 24), st.integers(2, 24)),
    contrast=st.sampled_from([0.02, 0.3, 1.0]),
    guide=st.sampled_from(GUIDES),
)
def test_the_gradient_is_the_slope(seed: int, shape: tuple[int, ...], contrast: float, guide) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.uniform(-1, 1, (2, *shape)) * contrast
    second = 0.5 * (first + second)
    direction = rng.standard_normal(shape)
    direction /= np.sqrt(np.square(direction).mean(axis=(1, 2, 3), keepdims=True))
    found = SIMILARITIES[guide](first, second).gradient
    slope = (found * direction).sum(axis=(1, 2, 3))
    step = 2e-4 * contrast

    def value(steps: float) -> np.ndarray:
        return SIMILARITIES[guide](first + steps * step * direction, second).value

    numerical = (8 * (value(1) - value(-1)) - (value(2) - value(-2))) / (12 * step)
    scale = np.sqrt(np.square(found).sum(axis=(1, 2, 3)) * first[0].size)  # of slopes in all directions
    assert (np.abs(slope - numerical) <= 1e-6 * scale + 1e-9).all()


def naive_ssim_map(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pixel by pixel, from the definition."""
    line = gaussian_window()
    window = np.outer(line, line)
    x, y = (np.pad(plane, 5) for plane in (first, second))
    found = np.empty_like(first)
    for i, j in np.ndindex(*first.shape):
        a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
        mean_a, mean_b = (window * a).sum(), (window * b).sum()
        spread = [(window * p * q).sum() - m * n for p, q, m, n in
                  ((a, a, mean_a, mean_a), (b, b, mean_b, mean_b), (a, b, mean_a, mean_b))]  # fmt: skip
        luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
        found[i, j] = luminance * (2 * spread[2] + 9e-4) / (spread[0] + spread[1] + 9e-4)
    return found


@pytest.mark.parametrize("size", [(1, 1), (3, 20), (17, 11)])
def test_the_map_is_the_definitions(size: tuple[int, int]) -> None:
    first, second = np.random.default_rng(1).uniform(0, 1, (2, *size))
    np.testing.assert_allclose(ssim_map(first, second), naive_ssim_map(first, second), rtol=1e-10)
    mean = ssim(first[np.newaxis, np.newaxis], second[np.newaxis, np.newaxis]).value
    assert mean == pytest.approx(naive_ssim_map(first, second).mean())


def test_the_published_ssim_away_from_the_border() -> None:
    from skimage import data
    from skimage.metrics import structural_similarity

    first = data.camera()[:100, :120] / 255
    second = cv2.GaussianBlur(first, (5, 5), 1.0)
    _, theirs = structural_similarity(
        first, second, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    np.testing.assert_allclose(ssim_map(first, second)[5:-5, 5:-5], theirs[5:-5, 5:-5], rtol=1e-6)


@pytest.mark.parametrize("guide", GUIDES)
def test_a_picture_does_not_depend_on_the_rest_of_its_batch(guide) -> None:
    first, second = np.random.default_rng(2).uniform(-1, 1, (2, 3, 3, 32, 32)).astype(np.float32)
    together = SIMILARITIES[guide](first, second)
    for i in range(3):
        alone = SIMILARITIES[guide](first[i : i + 1], second[i : i + 1])
        np.testing.assert_array_equal(alone.value[0], together.value[i])
        np.testing.assert_array_equal(alone.gradient[0], together.gradient[i])


def test_equal_pictures_are_as_alike_as_can_be() -> None:
    picture = np.random.default_rng(3).uniform(-1, 1, (1, 3, 16, 16))
    for similarity, best in ((ssim, 1), (mse, 0), (corr, 4)):
        value, gradient = similarity(picture, picture)
        assert value == pytest.approx(best)
        assert np.abs(gradient).max() < 1e-12


def test_a_constant_picture_correlates_with_nothing() -> None:
    flat, other = np.full((1, 1, 8, 8), 0.5, np.float32), np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8)
    for first, second in ((flat, other), (other, flat)):
        value, gradient = corr(first, second)
        assert value == 2
        assert not gradient.any()

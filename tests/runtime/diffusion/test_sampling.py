"""Against upstream's arrays, and against a world whose pictures are normal, where the exact answer is known."""

import numpy as np
import pytest

from uflow_edge.runtime.diffusion.sampling import add_noise, ddim_step, ddpm_step, denoise
from uflow_edge.runtime.diffusion.schedule import NoiseSchedule

LINEAR = NoiseSchedule.make("linear")
MEAN, DEVIATION = 0.2, 0.15
COUNT = 20_000


def test_noised_as_upstream_each_sample_to_its_own_step(arrays) -> None:
    theirs = arrays("unet_eval")
    np.testing.assert_allclose(add_noise(LINEAR, theirs["x0"], theirs["t"], theirs["noise"]), theirs["x"], atol=1e-6)


def test_posterior_of_upstreams_outputs(arrays) -> None:
    theirs = arrays("unet_eval")
    asked: list[np.ndarray] = []

    def predict(sample: np.ndarray, timestep: np.ndarray) -> tuple[np.ndarray, ...]:
        asked.append(timestep)
        return theirs["eps"], theirs["variance_channels"]

    found = denoise(LINEAR, predict, theirs["x"], theirs["t"])
    assert asked[0].tolist() == [4, 731]
    np.testing.assert_allclose(found.start, theirs["p_pred_xstart"], atol=4e-6)
    np.testing.assert_allclose(found.mean, theirs["p_mean"], atol=2e-6)
    np.testing.assert_allclose(found.log_variance, theirs["p_log_variance"], atol=2e-6)
    assert {found.start.dtype, found.mean.dtype, found.log_variance.dtype} == {np.dtype(np.float32)}


def test_the_reference_network_is_read_right(arrays, predict) -> None:
    theirs = arrays("unet_eval")
    noise, variance = predict(theirs["x"], theirs["t"].astype(np.float32))
    np.testing.assert_allclose(noise, theirs["eps"], atol=1e-4)
    np.testing.assert_allclose(variance, theirs["variance_channels"], atol=1e-4)


def exact_noise(sample: np.ndarray, timestep: np.ndarray) -> tuple[np.ndarray, ...]:
    """What a perfect network says when every value of a picture is drawn from N(MEAN, DEVIATION²)."""
    left = LINEAR.alphas_cumprod[timestep.astype(int)].reshape(-1, 1, 1, 1)
    total = left * DEVIATION**2 + 1 - left
    return ((np.sqrt(1 - left) * (sample - np.sqrt(left) * MEAN) / total).astype(np.float32),)


def walk(schedule: NoiseSchedule, sampler: str, tilt: float = 0.0) -> np.ndarray:
    """From pure noise to pictures; ``tilt`` guides by the likelihood exp(tilt · picture)."""
    rng = np.random.default_rng(5)
    sample = rng.standard_normal((COUNT, 1, 1, 1), np.float32)
    for i in reversed(range(len(schedule))):
        index = np.full(COUNT, i)
        found = denoise(schedule, exact_noise, sample, index)
        left = schedule.alphas_cumprod[i]
        pull = np.full_like(sample, tilt * np.sqrt(left) * DEVIATION**2 / (left * DEVIATION**2 + 1 - left))
        if sampler == "ddim":
            sample = ddim_step(schedule, found, sample, index, pull if tilt else None)
        else:
            noise = rng.standard_normal(sample.shape, np.float32)
            sample = ddpm_step(found, index, noise, pull if tilt else None)
    assert sample.dtype == np.float32
    return sample


@pytest.mark.parametrize(
    ("sampler", "count", "deviation_error"),
    [("ddpm", 1000, 0.02), ("ddpm", 200, 0.1), ("ddim", 1000, 0.02), ("ddim", 200, 0.06)],
)
def test_samples_follow_the_distribution_of_pictures(sampler: str, count: int, deviation_error: float) -> None:
    pictures = walk(LINEAR.respaced(count), sampler)
    assert pictures.mean() == pytest.approx(MEAN, abs=0.005)
    assert pictures.std() == pytest.approx(DEVIATION, rel=deviation_error)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_guided_samples_follow_the_tilted_distribution(sampler: str) -> None:
    # N(m, s²) times exp(g x) is N(m + g s², s²).
    pictures = walk(LINEAR, sampler, tilt=10)
    assert pictures.mean() == pytest.approx(MEAN + 10 * DEVIATION**2, abs=0.02)
    assert pictures.std() == pytest.approx(DEVIATION, rel=0.05)


def test_a_learned_variance_lies_between_the_two_it_may_have() -> None:
    sample, index = np.zeros((3, 1, 2, 2), np.float32), np.array([0, 20, 900])
    for value, expected in ((-1, LINEAR.posterior_log_variance_clipped), (1, LINEAR.log_betas)):
        found = denoise(LINEAR, lambda x, t, v=value: (x, np.full_like(x, v)), sample, index)
        np.testing.assert_allclose(found.log_variance[:, 0, 0, 0], expected[index], rtol=1e-6)


def test_the_last_step_draws_nothing_but_is_still_guided() -> None:
    sample = np.zeros((2, 1, 4, 4), np.float32)
    found = denoise(LINEAR, lambda x, t: (x,), sample, np.array([0, 5]))
    moved = ddpm_step(found, np.array([0, 5]), np.ones_like(sample))
    np.testing.assert_array_equal(moved[0], found.mean[0])
    assert (moved[1] > found.mean[1]).all()
    pulled = ddpm_step(found, np.array([0, 5]), None, np.ones_like(sample))
    np.testing.assert_allclose((pulled - found.mean)[:, 0, 0, 0], np.exp(found.log_variance[:, 0, 0, 0]), rtol=1e-5)


def test_ddim_keeps_a_sample_that_is_all_picture_and_all_noise() -> None:
    rng = np.random.default_rng(0)
    start = rng.uniform(-1, 1, (2, 3, 4, 4)).astype(np.float32)
    noise = rng.standard_normal(start.shape, np.float32)
    index = np.array([600, 30])
    found = denoise(LINEAR, lambda x, t: (noise,), add_noise(LINEAR, start, index, noise), index)
    before = ddim_step(LINEAR, found, add_noise(LINEAR, start, index, noise), index)
    np.testing.assert_allclose(before, add_noise(LINEAR, start, index - 1, noise), atol=1e-4)

"""The null model fitted to energies whose law is known, and to images that should not have been among them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from uflow_edge.calibration.null_model.fit import NullFit, fit_null_model
from uflow_edge.calibration.null_model.gains import log_energies, pixel_gain, trust_in_places
from uflow_edge.calibration.null_model.tail import fit_tail
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.nfa import tree_score
from uflow_edge.runtime.nfa.maps import averaged
from uflow_edge.runtime.nfa.null_model import NullModel

SCALES = ((84, 32), (80, 16))
CHANNELS = [84, 80]
SIZE = (32, 32)
CONTRASTS = (1.2, 1.5, 2, 3, 5, 10)

Latents = dict[str, float]
KINDS: dict[str, Latents] = {
    "normal": {},
    "calm": {"sigma": 0.8},
    "loud": {"sigma": 1.3},
    "channel_gains": {"spread": 0.3},
    "correlated_channels": {"correlation": 0.3},
    "everything": {"sigma": 1.2, "spread": 0.3, "correlation": 0.2},
    "anomalib": {"sigma": 0.3**0.5},
}


def energies(seed: int, images: int, sigma: float = 1, spread: float = 0, correlation: float = 0) -> list[np.ndarray]:
    """Of Gaussian latents with a common factor, gains by channel (the same for every seed), and correlated channels."""
    random, fixed = np.random.default_rng(seed), np.random.default_rng(99)
    maps = []
    for channels, side in SCALES:
        gains = sigma * np.exp(spread * fixed.normal(size=(channels, 1)))
        stack = np.empty((images, side, side), np.float32)
        for i in range(images):
            z = np.sqrt(1 - correlation) * random.standard_normal((channels, side * side), np.float32)
            z += np.sqrt(correlation) * random.standard_normal((1, side * side), np.float32)
            stack[i] = ((gains * z) ** 2).sum(axis=0).reshape(side, side)
        maps.append(stack)
    return maps


def disc(side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side] / side - 0.5
    return x**2 + y**2 < 0.01


def planted(maps: list[np.ndarray], contrast: float) -> list[np.ndarray]:
    return [np.where(disc(stack.shape[1]), contrast * stack, stack) for stack in maps]


def false_regions(model: NullModel, maps: list[np.ndarray]) -> np.ndarray:
    """Regions with log-NFA of 0 or less in each image."""
    counts = [
        [int((scale.evidence(one, len(maps)).region_values(one.shape[1]) <= 0).sum()) for one in stack]
        for scale, stack in zip(model.scales, maps, strict=True)
    ]
    return np.sum(counts, axis=0)


def share_found(score: list[np.ndarray]) -> float:
    return float(np.mean([(one[disc(SIZE[0])] > 0).any() for one in score]))


@pytest.fixture(scope="module")
def fits() -> dict[str, NullFit]:
    return {name: fit_null_model(energies(1, 50, **kind), CHANNELS) for name, kind in KINDS.items()}


def upstream_on_perfect_latents(contrast: float) -> float:
    maps = planted(energies(3, 10), contrast)
    return share_found([tree_score(one, CHANNELS, SIZE, rule="upstream") for one in zip(*maps, strict=True)])


@pytest.mark.parametrize("kind", KINDS)
def test_the_promise_holds_on_a_hundred_fresh_images(fits: dict[str, NullFit], kind: str) -> None:
    alarms = false_regions(fits[kind].model, energies(2, 100, **KINDS[kind]))
    assert alarms.mean() <= 1
    assert fits[kind].goodness.false_alarms_per_image <= 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_promise_holds_on_a_thousand_fresh_images_and_at_a_tenth_too(fits: dict[str, NullFit], kind: str) -> None:
    model = fits[kind].model
    maps = energies(4, 1000, **KINDS[kind])
    assert false_regions(model, maps).mean() <= 1
    scores = np.array([model.score(one, SIZE).max() for one in zip(*maps, strict=True)])
    assert (scores >= 1).mean() <= 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_blobs_are_found_at_least_as_early_as_by_upstreams_rule_on_perfect_latents(
    fits: dict[str, NullFit], kind: str
) -> None:
    clean = energies(3, 10, **KINDS[kind])
    for contrast in CONTRASTS:
        found = share_found([fits[kind].model.score(one, SIZE) for one in zip(*planted(clean, contrast), strict=True)])
        assert found >= upstream_on_perfect_latents(contrast)
    tripled = zip(*planted(clean, 3), strict=True)
    assert share_found([fits[kind].model.score(one, SIZE) for one in tripled]) == 1


def test_anomalibs_latents_simply_work(fits: dict[str, NullFit]) -> None:
    """Their variance is 0.3: upstream's rule flags every pixel; calibrated, they are as good as any others."""
    calm = energies(2, 5, **KINDS["anomalib"])
    upstream = [tree_score(one, CHANNELS, SIZE, rule="upstream") for one in zip(*calm, strict=True)]
    assert all((score > 0).all() for score in upstream)
    for normal, other in zip(fits["normal"].model.scales, fits["anomalib"].model.scales, strict=True):
        np.testing.assert_allclose(other.counts, normal.counts, atol=1e-3)
        np.testing.assert_allclose(other.pixel_gain, 0.3 * normal.pixel_gain, rtol=1e-3)


@pytest.mark.parametrize("kind", ["calm", "channel_gains", "correlated_channels", "anomalib"])
def test_p_values_of_images_not_fitted_become_uniform(fits: dict[str, NullFit], kind: str) -> None:
    for scale in fits[kind].goodness.scales:
        assert scale.ks_before > 0.2
        assert scale.ks_after < 0.08
        assert (np.diff(scale.expected) > 0).all()
        assert (np.diff(scale.after) >= 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 5), (14, 14)])
@pytest.mark.parametrize("images", [20, 33])
def test_maps_of_a_few_pixels_keep_the_promise_too(shape: tuple[int, int], images: int) -> None:
    random = np.random.default_rng(0)
    fit = fit_null_model([random.chisquare(20, (images, *shape))], [20])
    assert fit.goodness.false_alarms_per_image <= 1
    strong = np.full(shape, 200.0)
    assert fit.model.score([strong], (8, 8)).max() > 1


def test_a_score_is_a_count_at_every_threshold(fits: dict[str, NullFit]) -> None:
    """Of 100 fresh images no more regions than 10^−s score s, but for chance: 3 deviations of a Poisson count."""
    model = fits["normal"].model
    maps = energies(5, 100)
    values = np.concatenate(
        [
            scale.evidence(one, 2).region_values(one.shape[1])
            for scale, stack in zip(model.scales, maps, strict=True)
            for one in stack
        ]
    )
    for s in (0, 0.5, 1, 1.5):
        expected = 100 * 10**-s
        assert (values <= -s).sum() <= expected + 3 * np.sqrt(expected)


def test_neighbours_that_rise_together_count_as_fewer() -> None:
    """Blurring the noise makes chance regions larger: without calibration they are all alarms."""
    from scipy.ndimage import gaussian_filter

    def smooth(seed: int, images: int) -> list[np.ndarray]:
        random = np.random.default_rng(seed)
        noise = gaussian_filter(random.normal(size=(images, 32, 32)), (0, 1.5, 1.5), mode="wrap")
        return [np.exp(noise / noise.std() * 0.5).astype(np.float32) * 54]

    fit = fit_null_model(smooth(0, 100), [54])
    fresh = smooth(1, 100)
    assert false_regions(fit.model, fresh).mean() <= 1
    assert fit.model.scales[0].repeats[-1] < 4  # 64 pixels, worth less than 4
    assert all(tree_score([one], [54], SIZE, rule="per_size").max() > 0 for one in fresh[0])


def test_pixel_gains_are_trusted_on_aligned_parts_and_not_on_textures() -> None:
    random = np.random.default_rng(0)
    noise = random.chisquare(54, (40, 16, 16)).astype(np.float32)
    folds = [np.arange(i, i + 8) for i in range(0, 40, 8)]
    place = np.exp(random.normal(0, 0.5, (16, 16))).astype(np.float32)
    assert trust_in_places(log_energies(noise * place), folds) > 0.98
    assert trust_in_places(log_energies(noise), folds) < 0.2
    gain = pixel_gain(log_energies(noise * place), 1.0)
    assert np.corrcoef(np.log(gain).ravel(), np.log(place).ravel())[0, 1] > 0.99
    assert np.ptp(pixel_gain(log_energies(noise), 0.0)) == 0


def test_fewer_images_are_trusted_less() -> None:
    random = np.random.default_rng(1)
    place = np.exp(random.normal(0, 0.05, (16, 16))).astype(np.float32)
    noise = random.chisquare(54, (200, 16, 16)).astype(np.float32) * place
    few = trust_in_places(log_energies(noise[:20]), [np.arange(i, i + 4) for i in range(0, 20, 4)])
    many = trust_in_places(log_energies(noise), [np.arange(i, i + 40) for i in range(0, 200, 40)])
    assert 0 < few < many < 1


def test_images_of_different_brightness_keep_the_promise() -> None:
    def lit(seed: int) -> list[np.ndarray]:
        brightness = np.exp(np.random.default_rng(seed + 100).normal(0, 0.3, (60, 1, 1)))
        return [(stack * brightness).astype(np.float32) for stack in energies(seed, 60)]

    fit = fit_null_model(lit(0), CHANNELS)
    assert false_regions(fit.model, lit(1)).mean() <= 1


def test_a_defect_that_fills_the_image_does_not_explain_itself_away(fits: dict[str, NullFit]) -> None:
    flooded = [2 * stack[:5] for stack in energies(6, 5)]
    assert all(fits["normal"].model.score(one, SIZE).max() > 0 for one in zip(*flooded, strict=True))


@settings(max_examples=30, deadline=None)
@given(shape=st.floats(0.05, 0.4), seed=st.integers(0, 1000))
def test_the_tail_is_recovered(shape: float, seed: int) -> None:
    levels = stats.genpareto.rvs(shape, size=40_000, random_state=seed) + 1
    tail = fit_tail(levels)
    assert tail.shape == pytest.approx(shape, abs=0.2)
    far = stats.genpareto.isf(1e-4, shape) + 1
    assert tail.log10_tail(far) == pytest.approx(-4, abs=0.6)


def test_a_light_tail_is_taken_as_exponential() -> None:
    tail = fit_tail(np.random.default_rng(0).uniform(1, 2, 10_000))
    assert tail.shape == 0


@pytest.mark.parametrize("constant", [1e-20, 1.0, 1e20])
def test_constant_energies_fit_without_trouble(constant: float) -> None:
    fit = fit_null_model([np.full((20, 16, 16), constant)], [54])
    assert fit.suspicious == ()
    assert np.isfinite(fit.model.score([np.full((16, 16), constant)], SIZE)).all()
    assert fit.model.score([np.full((16, 16), 100 * constant)], SIZE).max() > 0


def test_anomalous_images_among_the_good_are_listed_and_left_out() -> None:
    clean = energies(7, 50)
    spoiled = [stack.copy() for stack in clean]
    strong = planted(clean, 4)
    for into, source in zip(spoiled, strong, strict=True):
        into[[3, 17, 41]] = source[[3, 17, 41]]
    fit = fit_null_model(spoiled, CHANNELS)
    assert set(fit.suspicious) == {3, 17, 41}
    assert fit.model.good_images == 47
    without = fit_null_model([np.delete(stack, [3, 17, 41], axis=0) for stack in clean], CHANNELS)
    for one, other in zip(fit.model.scales, without.model.scales, strict=True):
        np.testing.assert_array_equal(one.counts, other.counts)


def test_many_anomalous_images_are_refused() -> None:
    spoiled = energies(8, 40)
    for stack in spoiled:
        stack[:9] *= np.float32(5)
    with pytest.raises(BadInput, match=r"9 of 40 images look anomalous .* remove the bad images"):
        fit_null_model(spoiled, CHANNELS)


@pytest.mark.parametrize(
    ("maps", "channels", "complaint"),
    [
        ([np.ones((19, 8, 8))], [4], "19 good images are too few .* at least 20, better 200"),
        ([np.ones((0, 8, 8))], [4], r"\[\(0, 8, 8\)\]"),
        ([np.ones((20, 8, 8)), np.ones((21, 4, 4))], [4, 4], r"\[N, H, W\] with the same N"),
        ([np.ones((20, 8))], [4], r"\[N, H, W\]"),
        ([np.ones((20, 8, 8))], [4, 4], "2 scales, got 1"),
        ([], [], "0 scales"),
        ([np.full((20, 8, 8), np.nan)], [4], "scale 0: expected finite"),
        ([np.zeros((20, 8, 8))], [4], "mostly 0"),
        ([-np.ones((20, 8, 8))], [4], "0 or more"),
    ],
)
def test_energies_that_cannot_be_calibrated_with(maps: list[np.ndarray], channels: list[int], complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        fit_null_model(maps, channels)


def test_a_null_model_with_a_window_is_that_of_averaged_energies() -> None:
    maps = energies(0, 30)
    averages = [np.stack([averaged(one, 5) for one in stack]) for stack in maps]
    windowed, plain = fit_null_model(maps, CHANNELS, window=5).model, fit_null_model(averages, CHANNELS).model
    assert (windowed.window, plain.window) == (5, 1)
    for one, other in zip(windowed.scales, plain.scales, strict=True):
        np.testing.assert_array_equal(one.pixel_gain, other.pixel_gain)
        np.testing.assert_array_equal(one.counts, other.counts)
    image = [[stack[0] for stack in stacks] for stacks in (maps, averages)]
    np.testing.assert_array_equal(windowed.score(image[0], SIZE), plain.score(image[1], SIZE))

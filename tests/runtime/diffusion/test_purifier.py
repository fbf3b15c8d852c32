"""Whole runs against upstream's, and properties on pictures of our own."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from uflow_edge.runtime.diffusion.noise import NoiseField
from uflow_edge.runtime.diffusion.options import PurifyOptions
from uflow_edge.runtime.diffusion.patches import Corner, Layout, cut
from uflow_edge.runtime.diffusion.purifier import Purifier, to_image, to_values
from uflow_edge.runtime.diffusion.schedule import NoiseSchedule
from uflow_edge.runtime.errors import BadInput, UsageError

LINEAR = NoiseSchedule.make("linear")
VALUES = 3 * 64 * 64
"""In a patch of the reference: what upstream's guide scales are divided by."""


@pytest.mark.parametrize(
    ("guide", "result", "scale"),
    [
        ("none", "purify", None),
        ("ssim", "purify_guided_ssim", "guide_scale_ssim"),
        ("mse", "purify_guided_mse", "guide_scale_mse"),
        ("mse", "purify_guided_mse_strong", "guide_scale_mse_strong"),
        ("corr", "purify_guided_corr", "guide_scale_corr"),
    ],
)
def test_every_step_is_upstreams(arrays, predict, guide, result: str, scale: str | None) -> None:
    theirs = arrays("purify")
    draws = theirs["noise_purify" if guide == "none" else "noise_guided"]
    options = PurifyOptions(steps=int(theirs["t"]), guide=guide, guide_scale=scale and theirs[scale] / VALUES)
    purifier = Purifier(predict, LINEAR, 64, options)
    steps = list(purifier.trajectory(theirs["input"], ((0, 0),), lambda draw, *_: draws[draw]))
    assert len(steps) == 10
    np.testing.assert_allclose(steps[-1], theirs[result], atol=5e-5)
    if f"{result}_steps" in theirs:
        np.testing.assert_allclose(np.stack(steps), theirs[f"{result}_steps"], atol=5e-5)


def test_a_guide_without_strength_is_none(arrays, predict) -> None:
    theirs = arrays("purify")
    purifier = Purifier(predict, LINEAR, 64, PurifyOptions(steps=10, guide="ssim", guide_scale=0))
    draws = theirs["noise_guided"]
    *_, result = purifier.trajectory(theirs["input"], ((0, 0),), lambda draw, *_: draws[draw])
    np.testing.assert_allclose(result, theirs["purify_guided_none"], atol=5e-5)


@pytest.mark.parametrize("guide", ["none", "ssim"])
def test_upstreams_whole_program(diffcf, arrays, predict, guide) -> None:
    theirs = arrays("end_to_end")
    name, per_patch = ("purify", 4) if guide == "none" else ("guided_ssim", 7)
    recorded = theirs[f"noise_{name}"]

    def noise(draw: int, corners: Sequence[Corner], *_: int) -> np.ndarray:
        return np.concatenate([recorded[per_patch * (left // 64) + draw] for _, left in corners])

    scale = None if guide == "none" else float(theirs["guide_scale"]) / VALUES
    options = PurifyOptions(steps=int(theirs["t"]), guide=guide, guide_scale=scale, patching="upstream", batch=2)
    photo = np.asarray(Image.open(diffcf / "photo.png"))
    values = Purifier(predict, LINEAR, 64, options).purify_values(to_values(photo), noise)
    np.testing.assert_allclose(values, theirs[f"denoised_{name}"][0], atol=1e-4)
    # Upstream cuts fractions off where we round.
    cut_off = np.clip((values + 1) / 2 * 255, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    difference = cut_off.astype(int) - np.asarray(Image.open(diffcf / f"photo_{name}.png"))
    assert np.abs(difference).max() <= 1
    assert np.count_nonzero(difference) <= 2


def world_power(side: int) -> np.ndarray:
    """Spectrum of the pictures of a simple world, 1/f²; their deviation is about a quarter."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, np.newaxis], np.fft.rfftfreq(side))
    frequency[0, 0] = 1 / side
    power = frequency**-2.0
    return np.asarray(power * 0.045 * side * side / power.sum())


def wiener(side: int):
    """The perfect network for that world, whose pictures repeat beyond their border."""
    power = world_power(side)

    def predict(sample: np.ndarray, timestep: np.ndarray) -> tuple[np.ndarray, ...]:
        left = LINEAR.alphas_cumprod[timestep.astype(int)].reshape(-1, 1, 1, 1)
        gain = np.sqrt(left) * power / (left * power + 1 - left)
        start = np.fft.irfft2(np.fft.rfft2(sample) * gain, s=(side, side))
        return (((sample - np.sqrt(left) * start) / np.sqrt(1 - left)).astype(np.float32),)

    return predict


PHOTO = data.astronaut()[:150, 150:330]
QUICK = PurifyOptions(steps=6)


def test_an_identity_network_gives_the_picture_back() -> None:
    for picture in (PHOTO, PHOTO[:5, :9]):
        layout = Layout.of(picture.shape[:2], 64, "blend")
        patches = cut(layout.padded(to_values(picture)), layout.corners, 64)
        np.testing.assert_array_equal(to_image(layout.stitched(zip(layout.corners, patches, strict=True), 3)), picture)

    # The whole way too, but for the first step, which believes in less noise than there is.
    def silence(draw: int, corners: Sequence[Corner], channels: int, side: int) -> np.ndarray:
        return np.zeros((len(corners), channels, side, side), np.float32)

    purifier = Purifier(lambda x, t: (np.zeros_like(x),), LINEAR, 64, PurifyOptions(steps=1, sampler="ddim"))
    for picture in (PHOTO, PHOTO[:5, :9], PHOTO[:64, :64, :1]):
        found = to_image(purifier.purify_values(to_values(picture), silence))
        assert np.abs(found.astype(int) - picture).max() <= 1


@settings(max_examples=12, deadline=None)
@given(
    batch=st.integers(1, 9),
    guide=st.sampled_from(["none", "ssim", "mse", "corr"]),
    sampler=st.sampled_from(["ddpm", "ddim"]),
    patching=st.sampled_from(["blend", "upstream"]),
)
def test_the_batch_changes_nothing(batch: int, guide, sampler, patching) -> None:
    options = replace(QUICK, guide=guide, sampler=sampler, patching=patching, respacing=3)
    pictures = [
        Purifier(wiener(32), LINEAR, 32, replace(options, batch=size)).purify(PHOTO[:70, :90]) for size in (1, batch)
    ]
    np.testing.assert_array_equal(*pictures)


def test_the_seed_decides_the_noise() -> None:
    purifier = Purifier(wiener(64), LINEAR, 64, QUICK)
    first, again, other = (purifier.purify(PHOTO, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (64, 64), (65, 64), (150, 180)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("patching", ["blend", "upstream"])
def test_pictures_of_any_size_keep_it(size: tuple[int, int], channels: int, patching) -> None:
    counted: list[int] = []
    purifier = Purifier(wiener(64), LINEAR, 64, replace(QUICK, patching=patching, respacing=2))
    picture = np.resize(PHOTO, (*size, channels))
    found = purifier.purify(picture, on_step=counted.append)
    assert found.shape == picture.shape
    assert found.dtype == np.uint8
    assert sum(counted) == purifier.evaluations(size)


def seam_energy(residual: np.ndarray, at: Sequence[int]) -> float:
    """Squared jumps of what purifying changed, across columns where patches begin, relative to all others."""
    jumps = np.square(np.diff(residual, axis=2)).mean(axis=(0, 1))
    there = np.zeros(jumps.size, bool)
    there[np.array(at) - 1] = True
    return float(jumps[there].mean() / jumps[~there].mean())


def residual_of(options: PurifyOptions, noise=None) -> np.ndarray:
    picture = to_values(data.astronaut()[:256, 128:384])
    return Purifier(wiener(64), LINEAR, 64, options).purify_values(picture, noise or NoiseField(0)) - picture


def test_blending_leaves_no_seams_where_hard_patches_do() -> None:
    starts = Purifier(wiener(64), LINEAR, 64).layout((256, 256)).lefts[1:]
    assert seam_energy(residual_of(PurifyOptions(patching="upstream")), [64, 128, 192]) > 1.15
    blended = residual_of(PurifyOptions())
    assert seam_energy(blended, starts) < 1.05
    assert seam_energy(blended, [64, 128, 192]) < 1.05


def test_blending_smooths_nothing_away_because_noise_is_shared() -> None:
    lefts = Purifier(wiener(64), LINEAR, 64).layout((256, 256)).lefts
    overlap = np.zeros(256, bool)
    for before, after in pairwise(lefts):
        overlap[after + 2 : before + 62] = True

    def kept(residual: np.ndarray) -> float:
        energy = np.square(residual).mean(axis=(0, 1))
        return float(energy[overlap].mean() / energy[~overlap].mean())

    def drawn_anew(draw: int, corners: Sequence[Corner], channels: int, side: int) -> np.ndarray:
        rngs = [np.random.default_rng((draw, *corner)) for corner in corners]
        return np.stack([rng.standard_normal((channels, side, side), np.float32) for rng in rngs])

    assert kept(residual_of(PurifyOptions())) > 0.95
    assert kept(residual_of(PurifyOptions(), drawn_anew)) < 0.8


@pytest.mark.parametrize("guide", ["ssim", "mse", "corr"])
@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_a_guide_keeps_the_picture_closer_on_patches_of_any_size(guide, sampler) -> None:
    def error(side: int, options: PurifyOptions) -> float:
        picture = data.astronaut()[:128, 180:308]
        found = Purifier(wiener(side), LINEAR, side, options).purify(picture)
        return float(np.square(found.astype(float) - picture).mean())

    free, guided = PurifyOptions(sampler=sampler), PurifyOptions(sampler=sampler, guide=guide)
    gains = [error(side, guided) / error(side, free) for side in (32, 128)]
    assert max(gains) < 0.9
    assert gains[0] == pytest.approx(gains[1], rel=0.35)  # upstream's differ by a factor of 16 in strength


def test_fewer_steps_cost_fine_texture_and_ddim_least() -> None:
    # In the network's own world a perfect result has as much of every frequency as the original; docs/purify.md.
    side, steps = 128, 40
    frequency = np.hypot(np.fft.fftfreq(side)[:, np.newaxis], np.fft.rfftfreq(side))
    fine = (frequency > 0.25) & (frequency < 0.5)
    white = np.random.default_rng(0).standard_normal((4, 3, side, side))
    world = np.fft.irfft2(np.fft.rfft2(white) * np.sqrt(world_power(side)), s=(side, side)).astype(np.float32)

    def texture(pictures: np.ndarray) -> float:
        return float(np.square(np.abs(np.fft.rfft2(pictures)[..., fine])).mean())

    def kept(sampler, count: int) -> float:
        options = PurifyOptions(steps=steps, sampler=sampler, respacing=count)
        *_, result = Purifier(wiener(side), LINEAR, side, options).trajectory(world, ((0, 0),) * 4, NoiseField(1))
        return texture(result) / texture(world)

    assert kept("ddpm", 40) == pytest.approx(0.97, abs=0.03)
    assert kept("ddim", 40) == pytest.approx(1.00, abs=0.03)
    assert kept("ddpm", 10) == pytest.approx(0.86, abs=0.03)
    assert kept("ddim", 10) == pytest.approx(0.96, abs=0.03)


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"guide": "psnr"},
        {"sampler": "euler"},
        {"patching": "tiles"},
        {"guide_scale": 1.0},
        {"guide": "mse", "guide_scale": -1.0},
        {"guide": "mse", "guide_scale": float("nan")},
        {"respacing": 41},
        {"respacing": 0},
        {"overlap": 0.9},
        {"batch": 0},
        {"seed": -1},
    ],
    ids=str,
)
def test_options_that_cannot_be_meant_are_refused(options) -> None:
    with pytest.raises(UsageError):
        PurifyOptions(**options)


def test_more_steps_than_the_network_knows_are_refused() -> None:
    with pytest.raises(UsageError, match="1 to 49"):
        Purifier(wiener(8), NoiseSchedule.make("linear", 50), 8, PurifyOptions(steps=50))


@pytest.mark.parametrize("picture", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_picture_is_refused(picture: np.ndarray) -> None:
    with pytest.raises(BadInput, match="an image must be"):
        Purifier(wiener(8), LINEAR, 8).purify(picture)

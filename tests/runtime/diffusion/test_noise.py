import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from uflow_edge.runtime.diffusion.noise import NoiseField

corners = st.tuples(st.integers(0, 500), st.integers(0, 500))


@settings(deadline=None)
@given(first=corners, second=corners, side=st.integers(1, 200))
def test_patches_see_the_same_noise_at_the_same_pixel(first, second, side: int) -> None:
    field = NoiseField(7)
    whole = np.full((2, 1000, 1000), np.nan, np.float32)
    for corner in (first, second):
        (patch,) = field(3, [corner], 2, side)
        there = whole[:, corner[0] : corner[0] + side, corner[1] : corner[1] + side]
        assert (np.isnan(there) | (there == patch)).all()
        there[:] = patch


def test_noise_is_normal_and_white() -> None:
    (patch,) = NoiseField(0)(0, [(10, 20)], 3, 512)
    assert abs(patch.mean()) < 0.005
    assert abs(patch.std() - 1) < 0.005
    spectrum = np.abs(np.fft.fft2(patch)) ** 2 / 512**2
    assert abs(spectrum[:, 1:5, 1:5].mean() - 1) < 0.6
    for shift in ((0, 1), (1, 0), (0, 64), (64, 64)):  # the last would tell a tile that repeats
        assert abs((patch * np.roll(patch, shift, (1, 2))).mean()) < 0.01
    assert abs((patch[0] * patch[1]).mean()) < 0.01


def test_draws_and_seeds_have_nothing_in_common() -> None:
    fields = [NoiseField(seed)(draw, [(0, 0)], 1, 64) for seed, draw in ((0, 0), (0, 1), (1, 0), (1, 1))]
    correlation = np.corrcoef([field.ravel() for field in fields])
    assert np.abs(correlation - np.eye(4)).max() < 0.06

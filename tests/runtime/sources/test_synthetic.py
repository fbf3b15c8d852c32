"""The synthetic camera."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uflow_edge.runtime.sources.synthetic import SyntheticCamera


def test_a_synthetic_camera_repeats_itself_and_plants_defects_at_its_rate() -> None:
    camera = SyntheticCamera(64, 48, 0, seed=3, defect_rate=0.1)
    twin = SyntheticCamera(64, 48, 0, seed=3, defect_rate=0.1)
    clean = SyntheticCamera(64, 48, 0, seed=3, defect_rate=0)
    other = SyntheticCamera(64, 48, 0, seed=4, defect_rate=0.1)
    defective = [camera.defective(i) for i in range(2000)]
    assert 150 < sum(defective) < 250
    for i in range(100):
        picture = camera.image(i)
        assert np.array_equal(picture, twin.image(i))
        assert np.array_equal(picture, clean.image(i)) != defective[i]
        assert not np.array_equal(picture, other.image(i))
    assert np.array_equal(clean.image(1)[:-7], clean.image(0)[7:]), "the belt moves"


@given(width=st.integers(1, 9), height=st.integers(1, 9))
def test_tiny_synthetic_pictures(width: int, height: int) -> None:
    camera = SyntheticCamera(width, height, defect_rate=1)
    assert [camera.image(i).shape for i in range(20)] == [(height, width, 3)] * 20


def test_a_synthetic_camera_shows_the_pictures_it_is_given() -> None:
    dark, pale = (np.full((20, 30, 3), grey, np.uint8) for grey in (60, 200))
    camera, sized = SyntheticCamera(defect_rate=0.1), SyntheticCamera(16, 8, defect_rate=0)
    for one in (camera, sized):
        one.show([dark, pale], (40, 60))
    assert (camera.name, sized.name) == ("synthetic 60x40@30", "synthetic 16x8@30")
    assert sized.image(5).shape == (8, 16, 3)
    for i in range(120):
        picture = camera.image(i)
        assert picture.shape == (40, 60, 3)
        usual = (picture == (200 if i // 30 % 2 else 60)).all()
        assert usual != camera.defective(i)
    before = camera.image(7)
    camera.show([], (5, 5))
    np.testing.assert_array_equal(camera.image(7), before)


def test_a_synthetic_camera_keeps_its_rate() -> None:
    class Clock(threading.Event):
        now = 100.0

        def wait(self, timeout: float | None = None) -> bool:
            self.now += timeout or 0.0
            return self.is_set()

    clock = Clock()
    camera = SyntheticCamera(8, 8, 25, clock=lambda: clock.now)
    moments = []
    for frame in camera.frames(clock):
        moments.append(clock.now)
        clock.now += 0.03  # less than a period: the rate is kept
        if frame.index == 100:
            break
    assert np.diff(moments) == pytest.approx([0.04] * 100)
    for frame in camera.frames(clock):
        moments.append(clock.now)
        clock.now += 0.06  # more: every frame is late, none is lost
        if frame.index == 100:
            break
    assert np.diff(moments[101:]) == pytest.approx([0.06] * 100)

"""The resize that weights were trained with, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.resize import pillow_filter as resampling
from uflow_edge.runtime.resize.cpu import inspected_box, model_input
from uflow_edge.runtime.resize.pillow_filter import FRACTION_BITS, axis_filter, filtered_axes


def by_pillow(rgb: np.ndarray, side: int) -> np.ndarray:
    picture = Image.fromarray(np.ascontiguousarray(rgb))
    return np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))


def grey(photograph: np.ndarray) -> np.ndarray:
    return np.repeat(photograph[:, :, np.newaxis], 3, axis=2)


@pytest.mark.parametrize(
    "rgb",
    [
        pytest.param(data.astronaut(), id="square"),
        pytest.param(data.cat(), id="landscape"),
        pytest.param(data.astronaut()[:, :300], id="portrait"),
        pytest.param(data.astronaut()[:301, :509], id="odd"),
        pytest.param(data.astronaut()[:40, :33], id="larger than it was"),
        pytest.param(data.astronaut()[:256, :256], id="as large as it was"),
        pytest.param(data.astronaut()[:256, :400], id="as high as it was"),
        pytest.param(data.astronaut()[:400, 100:356], id="as wide as it was"),
        pytest.param(data.cat()[7:8, :200], id="one row"),
        pytest.param(data.cat()[:200, 7:8], id="one column"),
        pytest.param(data.cat()[9:10, 9:10], id="one pixel"),
        pytest.param(grey(data.brick()), id="brick"),
        pytest.param(grey(data.gravel()), id="gravel"),
    ],
)
def test_equals_pillow_on_a_photograph(rgb: np.ndarray) -> None:
    found = model_input(np.ascontiguousarray(rgb[:, :, ::-1]), 256)
    np.testing.assert_array_equal(found, by_pillow(rgb, 256))
    assert found.flags.c_contiguous


def test_equals_pillow_on_a_full_frame() -> None:
    frame = np.tile(data.astronaut(), (3, 4, 1))[:1080, :1920]
    for rgb in (frame, frame.transpose(1, 0, 2)):
        np.testing.assert_array_equal(model_input(rgb[:, :, ::-1], 448), by_pillow(rgb, 448))


@settings(deadline=None)
@given(
    height=st.integers(1, 120),
    width=st.integers(1, 120),
    side=st.integers(1, 90),
    extreme=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_pillow_at_any_size(height: int, width: int, side: int, extreme: bool, seed: int) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    if extreme:
        rgb = np.where(rgb > 127, 255, 0).astype(np.uint8)  # sums at the ends of the range
    np.testing.assert_array_equal(model_input(rgb[:, :, ::-1], side), by_pillow(rgb, side))


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(lambda frame: frame[20:180, 31:260], id="a region"),
        pytest.param(lambda frame: frame[:, :, ::-1], id="channels reversed"),
        pytest.param(lambda frame: frame[::-1], id="upside down"),
        pytest.param(lambda frame: frame[:, ::-2], id="every other column, mirrored"),
        pytest.param(lambda frame: frame.transpose(1, 0, 2), id="turned"),
        pytest.param(np.asfortranarray, id="another order in memory"),
        pytest.param(lambda frame: np.frombuffer(frame.tobytes(), np.uint8).reshape(frame.shape), id="read-only"),
    ],
)
def test_frames_may_lie_in_memory_as_they_like(view) -> None:
    frame = view(data.cat().copy())
    before = frame.copy()
    np.testing.assert_array_equal(model_input(frame, 100), by_pillow(frame[:, :, ::-1], 100))
    np.testing.assert_array_equal(frame, before)


def test_results_do_not_share_memory() -> None:
    frame = np.ascontiguousarray(data.astronaut()[:64, :64])
    first = model_input(frame, 64)
    first[:] = 0
    np.testing.assert_array_equal(model_input(frame, 64), data.astronaut()[:64, :64, ::-1])


@pytest.mark.parametrize(("length", "side"), [(1920, 448), (448, 448), (10, 448), (1, 7), (7, 1), (4096, 3)])
def test_filters_keep_brightness_and_stay_inside(length: int, side: int) -> None:
    chosen = axis_filter(length, side)
    assert chosen.first.min() >= 0 and chosen.count.min() >= 1
    assert (chosen.first + chosen.count).max() <= length
    assert chosen.weights.min() >= 0
    assert np.abs(chosen.weights.sum(axis=0) - (1 << FRACTION_BITS)).max() <= chosen.weights.shape[0]
    for tap, weights in enumerate(chosen.weights):
        assert not weights[tap >= chosen.count].any()


@pytest.mark.parametrize(("length", "side"), [(0, 5), (5, 0)])
def test_no_filter_from_or_to_nothing(length: int, side: int) -> None:
    with pytest.raises(ValueError, match="both must be at least 1"):
        axis_filter(length, side)


def test_the_order_of_axes_is_the_one_of_each_release(monkeypatch) -> None:
    monkeypatch.setattr(resampling, "_COLUMNS_MAY_COME_FIRST", True)
    assert filtered_axes((1920, 1080), 448) == ("columns", "rows")
    assert filtered_axes((1080, 1920), 448) == ("rows", "columns")
    assert filtered_axes((300, 200), 100) == ("rows", "columns")
    assert filtered_axes((301, 200), 100) == ("columns", "rows")
    monkeypatch.setattr(resampling, "_COLUMNS_MAY_COME_FIRST", False)
    assert filtered_axes((1920, 1080), 448) == ("rows", "columns")
    assert filtered_axes((448, 1080), 448) == ("rows",)
    assert filtered_axes((1080, 448), 448) == ("columns",)
    assert filtered_axes((448, 448), 448) == ()


@pytest.mark.parametrize("image", ["good", "defective", "painted"])
def test_equals_upstream(reference, end_to_end, image: str) -> None:
    grey = np.asarray(Image.open(reference / f"{image}.png"))
    found = model_input(np.repeat(grey[:, :, None], 3, axis=2), 256)
    np.testing.assert_array_equal(found, end_to_end[f"{image}/resized_uint8"])


def test_crop_takes_the_central_square() -> None:
    rgb = data.astronaut()[:200, :300]
    assert inspected_box((200, 300), "crop") == (50, 0, 250, 200)
    expected = np.asarray(Image.fromarray(rgb[:, 50:250]).resize((64, 64), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(model_input(rgb[:, :, ::-1], 64, "crop"), expected)


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        [[1, 2, 3]],
    ],
)
def test_refuses_what_is_not_a_frame(frame: object) -> None:
    with pytest.raises(BadInput, match=r"uint8 array \[H, W, 3\] in BGR order; got"):
        model_input(frame, 64)  # type: ignore[arg-type]

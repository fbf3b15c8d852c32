"""Every way a picture of the same thing may be stored."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images import find_images, read_image, spread

RGB = data.astronaut()[:60, :80]
GREY = RGB[:, :, 0].copy()


def test_colour_comes_as_bgr(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), RGB[:, :, ::-1])


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.repeat(GREY[:, :, None], 3, axis=2))


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("low", [0, 255])
def test_sixteen_bits_keep_the_upper_eight_whatever_the_content(tmp_path: Path, suffix: str, low: int) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray((GREY.astype(np.uint16) // 4 << 8) + np.uint16(low)).save(path)
    np.testing.assert_array_equal(read_image(path)[:, :, 1], GREY // 4)


def test_transparency_is_dropped(tmp_path: Path) -> None:
    rgba = np.dstack([RGB, np.full(RGB.shape[:2], 7, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), RGB[:, :, ::-1])


@pytest.mark.parametrize("transparency", [None, bytes(range(256))])
def test_palettes_are_resolved(tmp_path: Path, transparency: bytes | None) -> None:
    palette = Image.fromarray(RGB).quantize(64)
    options = {} if transparency is None else {"transparency": transparency}
    palette.save(tmp_path / "a.png", **options)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[:, :, ::-1], np.asarray(palette.convert("RGB")))


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    Image.fromarray(np.ascontiguousarray(np.rot90(RGB))).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), RGB[:, :, ::-1])


def test_of_several_pages_the_first_is_read(tmp_path: Path) -> None:
    first, second = Image.fromarray(RGB), Image.fromarray(255 - RGB)
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), RGB[:, :, ::-1])


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    Image.fromarray(RGB).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(GREY.astype(np.int32) << 12).save(tmp_path / "wide.tif")
    for name, reason in {
        "text.png": "cannot be read as an image",
        "half.png": "cannot be read as an image",
        "absent.png": "no such file",
        "float.tif": "floating-point pixels",
        "wide.tif": "32-bit pixels",
    }.items():
        with pytest.raises(BadInput, match=f"{name}: .*{reason}"):
            read_image(tmp_path / name)


def test_folders_are_searched_to_the_bottom_in_order(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "a/1.jpg", "c.png", "b/notes.txt", ".hidden/x.png", "b/.thumb.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_images([tmp_path])]
    assert found == ["a/1.jpg", "b/2.PNG", "c.png"]
    with pytest.raises(BadInput, match="no such file or folder"):
        list(find_images([tmp_path / "absent"]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no images in this folder"):
        list(find_images([tmp_path / "empty"]))


@given(count=st.integers(1, 300), most=st.integers(1, 50))
def test_some_of_many_are_spread_from_the_first_to_the_last(count: int, most: int) -> None:
    chosen = spread(range(count), most)
    assert len(set(chosen)) == len(chosen) == min(count, most)
    assert chosen[0] == 0 and chosen == sorted(chosen)
    steps = np.diff(chosen)
    assert most == 1 or (chosen[-1] == count - 1 and (steps.size == 0 or steps.max() - steps.min() <= 1))

"""Every way a picture of the same thing may be stored."""

import argparse
import os
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from uflow_edge.runtime.errors import BadInput, UsageError
from uflow_edge.runtime.images import files as images
from uflow_edge.runtime.images.decode import Reading, use
from uflow_edge.runtime.images.files import find_images, read_image, spread
from uflow_edge.runtime.images.search import refuse_results_inside

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


# ---- bits, pages, size, formats


@pytest.fixture
def said(logged: list[str]) -> Iterator[list[str]]:
    """What the reader says once per run; `use` is as it was afterwards."""
    use(Reading())
    yield logged
    use(Reading())


DEEP = {"grey.png": (), "grey.tif": (), "colour.png": (3,), "colour.tif": (3,), "alpha.png": (4,)}


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_all_bits_of_a_camera_are_used(tmp_path: Path, said: list[str], name: str, bits: int) -> None:
    random = np.random.default_rng(bits)
    values = random.integers(0, 1 << bits, (40, 60, *DEEP[name]), np.uint16)
    values.flat[0] = (1 << bits) - 1
    cv2.imwrite(str(tmp_path / name), values)
    use(Reading(bits=bits))
    expected = values[:, :, :3] if values.ndim == 3 else np.dstack([values] * 3)
    np.testing.assert_array_equal(read_image(tmp_path / name), expected >> (bits - 8))
    use(Reading())
    np.testing.assert_array_equal(read_image(tmp_path / name), expected >> 8)
    assert [f"--bits {bits}" in line for line in said] == [True] * (bits < 16)


def test_values_beyond_the_bits_are_refused(tmp_path: Path, said: list[str]) -> None:
    Image.fromarray(np.full((4, 5), 4096, np.uint16)).save(tmp_path / "a.png")
    use(Reading(bits=12))
    with pytest.raises(BadInput, match=r"a.png: has values up to 4096, .* 12 bits"):
        read_image(tmp_path / "a.png")


def test_the_range_that_a_pgm_states_is_brought_to_eight_bits(tmp_path: Path, said: list[str]) -> None:
    values = np.arange(4096, dtype=">u2").reshape(64, 64)
    (tmp_path / "a.pgm").write_bytes(b"P5 64 64 4095\n" + values.tobytes())
    full_range = (values / 4095 * 65535 + 0.5).astype(int)
    np.testing.assert_array_equal(read_image(tmp_path / "a.pgm")[:, :, 0], full_range >> 8)
    assert said == []


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_colour_is_turned_as_pillow_turns_shallow_one(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(tmp_path / "shallow.png", exif=exif)
    cv2.imwrite(str(tmp_path / "deep.png"), RGB[:, :, ::-1].astype(np.uint16) << 8)
    stored, of_exif = (tmp_path / "deep.png").read_bytes(), (tmp_path / "shallow.png").read_bytes()
    start = of_exif.index(b"eXIf") - 4
    chunk = of_exif[start : start + 12 + int.from_bytes(of_exif[start : start + 4], "big")]
    (tmp_path / "deep.png").write_bytes(stored[:33] + chunk + stored[33:])  # behind the header
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png"), read_image(tmp_path / "shallow.png"))


def test_several_pages_are_said_once(tmp_path: Path, said: list[str]) -> None:
    for name in ("a.tif", "b.gif"):
        Image.fromarray(GREY).save(tmp_path / name, save_all=True, append_images=[Image.fromarray(255 - GREY)] * 2)
        read_image(tmp_path / name)
    assert said == [f"{tmp_path / 'a.tif'}: has 3 pages; only the first page of such files is read"]


def test_a_picture_that_is_too_large_is_refused_by_its_header(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("1", (20000, 14000)).save(tmp_path / "a.png")
    with pytest.raises(BadInput, match=r"a.png: 20000x14000 pixels are 280 megapixels, but the limit is 256"):
        read_image(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow would refuse twice that
    Image.fromarray(RGB).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_image(tmp_path / "b.png"), RGB[:, :, ::-1])
    assert Image.MAX_IMAGE_PIXELS == 100, "Pillow's own limit stays for others"
    use(Reading(max_megapixels=0.004))
    with pytest.raises(BadInput, match=r"the limit is 0.004; --max-megapixels changes it"):
        read_image(tmp_path / "b.png")


def test_strips_of_a_large_picture_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "_STRIP", 7 * RGB.shape[1])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), RGB[:, :, ::-1])


@pytest.mark.parametrize("kind", ["EPS", "ICNS", "PCX", "TGA", "DDS", "SGI", "MSP"])
def test_formats_beyond_the_list_are_refused_whatever_the_suffix(tmp_path: Path, kind: str) -> None:
    picture = Image.fromarray(RGB).resize((64, 64))
    (picture.convert("1") if kind == "MSP" else picture).save(tmp_path / "a.png", kind)
    with pytest.raises(BadInput, match="its content is none of BMP, GIF, JPEG"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
def test_a_png_that_ends_before_its_last_row_is_no_picture(tmp_path: Path, mode: str) -> None:
    black = Image.new(mode, (50, 40))
    black.save(tmp_path / "whole.png")
    assert not read_image(tmp_path / "whole.png").any()
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "short.png").write_bytes(content[:20] + (4000).to_bytes(4, "big") + content[24:])
    broken = bytearray((tmp_path / "short.png").read_bytes())
    broken[29:33] = zlib.crc32(broken[12:29]).to_bytes(4, "big")
    (tmp_path / "short.png").write_bytes(broken)
    with pytest.raises(BadInput, match=r"short.png: cannot be read as an image"):
        read_image(tmp_path / "short.png")


# ---- what is found


def test_links_are_followed_once_and_loops_are_harmless(tmp_path: Path) -> None:
    store, parts = tmp_path / "store", tmp_path / "parts"
    for folder in (store / "deep", parts / "real"):
        folder.mkdir(parents=True)
        (folder / "a.png").touch()
    (parts / "lot").symlink_to(store)
    (parts / "lot_again").symlink_to(store)
    (parts / "a_loop").symlink_to(parts / "real")
    (store / "deep" / "up").symlink_to(tmp_path)
    (parts / "one.png").symlink_to(store / "deep" / "a.png")
    found = [path.relative_to(parts).as_posix() for path in find_images([parts])]
    assert found == ["lot/deep/a.png", "one.png", "real/a.png"]


def test_what_looks_like_an_image_and_is_none_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to("/nonexistent/x.png")
    (tmp_path / "lot").symlink_to("/nonexistent/lot")
    (tmp_path / "notes.txt").symlink_to("/nonexistent/notes")
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s.png"))
        found = list(find_images([tmp_path]))
        assert [path.name for path in found] == ["gone.png", "lot", "pipe.png", "s.png"]
        reasons = [r"no such file \(a link to /nonexistent/x.png\)", "a link to", "is a named pipe", "is a socket"]
        for path, reason in zip([*found, Path("/dev/zero")], [*reasons, "is a device"], strict=True):
            with pytest.raises(BadInput, match=f"{path}: .*{reason}"):
                read_image(path)


def test_folders_that_may_not_be_read_are_named(tmp_path: Path, unprivileged: None) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.png").touch()
    (tmp_path / "closed").chmod(0)
    try:
        assert [path.name for path in find_images([tmp_path])] == ["a.png", "closed"]
        with pytest.raises(BadInput, match="closed: permission denied; the content of this folder is unknown"):
            read_image(tmp_path / "closed")
        with pytest.raises(BadInput, match="closed: permission denied"):
            list(find_images([tmp_path / "closed"]))
    finally:
        (tmp_path / "closed").chmod(0o700)


@pytest.fixture
def unprivileged(tmp_path: Path) -> Iterator[None]:
    """Root may read everything: be somebody else meanwhile."""
    if os.geteuid() != 0:
        yield
        return
    os.chown(tmp_path, 65534, -1)
    for folder in (tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_is_left_out_and_what_comes_from_where_is_said(tmp_path: Path, logged: list[str]) -> None:
    for name in ("a/1.JPG", "a/2.Tiff", "b/1.jfif", "b/c/1.pnm", "b/3.heic", "4.CR2", "5.cr2", "x.png.part", ".h.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".cache").mkdir()
    assert len(list(find_images([tmp_path]))) == 4
    assert logged == [
        f"{tmp_path}: left out 2 .cr2, 1 .heic, 1 .part, 2 hidden, such as .cache",
        f"{tmp_path}: 4 images, 2 in {tmp_path / 'a'}, 1 in {tmp_path / 'b'}, 1 in {tmp_path / 'b' / 'c'}",
    ]


@pytest.mark.parametrize("results", ["parts", "parts/seen", "parts/../parts/seen/deep", "link/seen", "store/seen"])
def test_results_among_the_inputs_are_refused(tmp_path: Path, results: str) -> None:
    for folder in ("parts", "store", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "parts")
    (tmp_path / "parts" / "lot").symlink_to(tmp_path / "store")
    with pytest.raises(UsageError, match="--out .*: lies in .*parts, where results would be taken for input images"):
        refuse_results_inside([tmp_path / "parts"], {"--out": tmp_path / results})
    refuse_results_inside([tmp_path / "parts"], {"--out": tmp_path / "elsewhere" / "seen"})


# ---- the depth of a model's pictures


def test_a_models_depth_is_used_and_another_one_refused() -> None:
    def asked(bits: int | None) -> argparse.Namespace:
        return argparse.Namespace(bits=bits, max_megapixels=None)

    assert Reading.of(asked(None), 12).bits == Reading.of(asked(12), 12).bits == Reading.of(asked(12)).bits == 12
    assert Reading.of(asked(None)) == Reading()
    with pytest.raises(UsageError, match="--bits 10: the model was trained with --bits 12"):
        Reading.of(asked(10), 12)

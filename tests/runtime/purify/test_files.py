"""`uflow-purify` on files of every kind, and their metadata."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image
from skimage.metrics import peak_signal_noise_ratio

from purifying import PHOTO, file_purifier, purified
from uflow_edge.runtime.diffusion.options import PurifyOptions
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images.decode import Reading, use
from uflow_edge.runtime.purify.content import read_content, read_texts
from uflow_edge.runtime.purify.images import RECORD
from uflow_edge.runtime.purify.jobs import plan_jobs


def test_grey_stays_grey(tmp_path: Path) -> None:
    Image.fromarray(PHOTO[:, :, 0]).save(tmp_path / "grey.png")
    for channels in (1, 3):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        outcome, result = purified(tmp_path / "grey.png", channels=channels)
        assert result.mode == "L"
        assert outcome.psnr > 20


def test_colour_is_refused_by_a_grey_network(photos: Path, tmp_path: Path) -> None:
    (outcome,) = file_purifier(channels=1).run(plan_jobs([photos / "a.png"], tmp_path / "out"))
    assert outcome.status == "failed"
    assert "a.png: is in colour" in outcome.error


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_become_eight_and_say_so(tmp_path: Path, suffix: str) -> None:
    grey, colour = tmp_path / f"grey.{suffix}", tmp_path / f"colour.{suffix}"
    Image.fromarray(PHOTO[:, :, 0].astype(np.uint16) * 256 + 17).save(grey)
    cv2.imwrite(str(colour), PHOTO.astype(np.uint16) * 256 + 17)
    outcome, result = purified(grey)
    assert result.mode == "L"
    assert outcome.notes == ("only the upper 8 of 16 bits were purified",)
    assert peak_signal_noise_ratio(PHOTO[:, :, 0], np.asarray(result)) > 20
    if suffix == "png":  # Pillow refuses most colour TIFFs of 16 bits
        assert purified(colour)[0].notes == outcome.notes


def test_transparency_is_put_back(tmp_path: Path) -> None:
    alpha = np.linspace(0, 255, PHOTO.size // 3).astype(np.uint8).reshape(PHOTO.shape[:2])
    Image.fromarray(np.dstack([PHOTO, alpha])).save(tmp_path / "rgba.png")
    Image.fromarray(np.dstack([PHOTO[:, :, 0], alpha])).save(tmp_path / "la.png")
    for name, mode in (("rgba", "RGBA"), ("la", "LA")):
        _, result = purified(tmp_path / f"{name}.png")
        assert result.mode == mode
        np.testing.assert_array_equal(np.asarray(result)[:, :, -1], alpha)


def test_a_palette_with_a_transparent_entry(tmp_path: Path) -> None:
    Image.fromarray(PHOTO).quantize(32).save(tmp_path / "palette.png", transparency=3)
    _, result = purified(tmp_path / "palette.png")
    assert result.mode == "RGBA"
    assert set(np.unique(np.asarray(result)[:, :, 3])) == {0, 255}


def test_of_an_animation_the_first_picture_is_taken(tmp_path: Path) -> None:
    frames = [Image.fromarray(PHOTO), Image.fromarray(PHOTO[::-1])]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    outcome, result = purified(tmp_path / "moving.gif")
    assert outcome.notes == ("only the first of several pages was purified",)
    assert peak_signal_noise_ratio(PHOTO, np.asarray(result.convert("RGB"))) > 18


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.fromarray(PHOTO).convert("CMYK").save(tmp_path / "print.tif")
    outcome, result = purified(tmp_path / "print.tif", keep=True)
    assert result.mode == "RGB"
    assert outcome.notes == ("CMYK was converted to RGB",)


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (64, 64), (63, 65), (200, 7)])
def test_sizes_are_kept(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.fromarray(np.resize(PHOTO, (*size, 3))).save(tmp_path / "odd.png")
    outcome, result = purified(tmp_path / "odd.png")
    assert outcome.size == size
    assert result.size == size[::-1]


def test_a_huge_picture_is_refused_in_words(tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "huge.png")
    use(Reading(max_megapixels=0.012))
    assert read_content(tmp_path / "huge.png").values.shape == PHOTO.shape
    use(Reading(max_megapixels=0.011))
    try:
        with pytest.raises(BadInput, match=r"huge.png: .* pixels are 0 megapixels, but the limit is 0.011"):
            read_content(tmp_path / "huge.png")
    finally:
        use(Reading())


SECRET = b"a serial number"


@pytest.fixture
def camera_file(tmp_path: Path) -> Path:
    """A JPEG as cameras write them: lying on its side, with a thumbnail, a maker's note, a profile."""
    from PIL import ImageCms

    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 6
    details = exif.get_ifd(0x8769)
    details[0x9003], details[0x927C], details[0xA002], details[0xA003] = "2020:01:01 00:00:00", SECRET, 100, 120
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = tmp_path / "camera.jpg"
    turned = Image.fromarray(PHOTO).transpose(Image.Transpose.ROTATE_90)
    turned.save(path, quality=98, exif=with_thumbnail(exif.tobytes()), icc_profile=profile, comment=b"a comment")
    return path


def with_thumbnail(exif: bytes) -> bytes:
    """Append a second directory, which holds a thumbnail, to a block of EXIF in Pillow's byte order."""
    import io
    import struct

    stream = io.BytesIO()
    Image.fromarray(PHOTO[:16, :16]).save(stream, "JPEG")
    head, tiff = exif[:6], bytearray(exif[6:])
    order = "<" if tiff[:2] == b"II" else ">"
    (first,) = struct.unpack_from(f"{order}I", tiff, 4)
    (entries,) = struct.unpack_from(f"{order}H", tiff, first)
    struct.pack_into(f"{order}I", tiff, first + 2 + 12 * entries, len(tiff))
    start = len(tiff) + 2 + 3 * 12 + 4
    fields = [(0x0103, 3, 6), (0x0201, 4, start), (0x0202, 4, len(stream.getvalue()))]
    tiff += struct.pack(f"{order}H", len(fields))
    for tag, kind, value in fields:
        packed = struct.pack(f"{order}HH" if kind == 3 else f"{order}I", *((value, 0) if kind == 3 else (value,)))
        tiff += struct.pack(f"{order}HHI", tag, kind, 1) + packed
    return head + bytes(tiff + struct.pack(f"{order}I", 0) + stream.getvalue())


def test_metadata_is_dropped_and_the_picture_stands_upright(camera_file: Path) -> None:
    with Image.open(camera_file) as opened:
        assert opened.getexif().get_ifd(ExifTags.IFD.IFD1)  # the thumbnail is there
    _, result = purified(camera_file)
    assert result.size == (120, 100)
    assert peak_signal_noise_ratio(PHOTO, np.asarray(result)) > 20
    assert not result.getexif()
    assert set(result.info) == {"Software", RECORD}
    assert "purified by a diffusion network" in result.info["Software"]


def test_kept_metadata_has_no_rotation_thumbnail_or_makers_note(camera_file: Path) -> None:
    outcome, result = purified(camera_file, keep=True)
    exif = result.getexif()
    assert exif[0x010F] == "Maker"
    assert 0x0112 not in exif
    details = exif.get_ifd(0x8769)
    assert details[0x9003] == "2020:01:01 00:00:00"
    assert (details[0xA002], details[0xA003]) == (120, 100)
    assert not exif.get_ifd(ExifTags.IFD.IFD1)
    with Image.open(camera_file) as opened:
        assert result.info["icc_profile"] == opened.info["icc_profile"]
    content = outcome.job.result.read_bytes()
    assert SECRET not in content
    assert b"a comment" not in content


def test_results_say_what_they_are(photos: Path, tmp_path: Path) -> None:
    (job,) = plan_jobs([photos / "a.png"], tmp_path / "out")
    list(file_purifier(guide="ssim", batch=3).run([job]))
    recipe = json.loads(read_texts(job.result)[RECORD])["recipe"]
    assert recipe["network"] == "smoother"
    assert recipe["guide"] == "ssim"
    assert recipe["guide_scale"] == PurifyOptions(guide="ssim").scale
    assert recipe["respacing"] == 2
    assert "batch" not in recipe

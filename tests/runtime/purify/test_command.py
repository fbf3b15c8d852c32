"""`uflow-purify` on files of every kind, with a network of a few lines."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from uflow_edge.runtime.diffusion.options import PurifyOptions
from uflow_edge.runtime.diffusion.purifier import Purifier
from uflow_edge.runtime.diffusion.schedule import NoiseSchedule
from uflow_edge.runtime.engines import EngineFailed
from uflow_edge.runtime.errors import BadInput, ExitCode, UsageError
from uflow_edge.runtime.images.decode import Reading, use
from uflow_edge.runtime.purify import quality
from uflow_edge.runtime.purify.command import main, options_of, parser, purify_images
from uflow_edge.runtime.purify.images import RECORD, FilePurifier, Outcome, plan_jobs
from uflow_edge.runtime.purify.pictures import read_picture, read_texts
from uflow_edge.runtime.purify.report import DIFFERENCE_GAIN, MOST_SHOWN, difference_picture, write_report

LINEAR = NoiseSchedule.make("linear")
PHOTO = data.astronaut()[:100, 180:300]


class Smoother:
    """A network that takes for noise whatever a blur takes away; counts the patches it has seen."""

    def __init__(self) -> None:
        self.patches = 0

    def __call__(self, sample: np.ndarray, timestep: np.ndarray) -> tuple[np.ndarray, ...]:
        self.patches += len(sample)
        left = LINEAR.alphas_cumprod[timestep.astype(int)].reshape(-1, 1, 1, 1)
        planes = sample.reshape(-1, *sample.shape[2:])
        start = np.stack([cv2.GaussianBlur(plane, (5, 5), 0.8) for plane in planes]).reshape(sample.shape)
        return (((sample - start) / np.sqrt(1 - left)).astype(np.float32),)


def file_purifier(network: Callable | None = None, channels: int = 3, keep: bool = False, **options) -> FilePurifier:
    options = {"steps": 2, **options}
    purifier = Purifier(network or Smoother(), LINEAR, 64, PurifyOptions(**options))
    return FilePurifier(purifier, channels, "smoother", keep_metadata=keep)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    Image.fromarray(PHOTO).save(folder / "a.png")
    Image.fromarray(PHOTO[::-1]).save(folder / "b.jpg", quality=95)
    Image.fromarray(PHOTO[:30, :40]).save(folder / "deep" / "c.tif")
    return folder


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_pictures_lines_and_a_report(photos: Path, tmp_path: Path, capsys) -> None:
    out, report, lines = tmp_path / "out", tmp_path / "report.html", tmp_path / "results.jsonl"
    before = {path: path.read_bytes() for path in photos.rglob("*.*")}
    code = purify_images(file_purifier(), plan_jobs([photos], out), report=report, json=lines)
    assert code is ExitCode.OK
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*")) == ["a.png", "b.png", "deep/c.png"]
    assert {path: path.read_bytes() for path in photos.rglob("*.*")} == before
    found = lines_of(lines)
    assert [Path(line["source"]).name for line in found] == ["a.png", "b.jpg", "c.tif"]
    assert found[2]["size"] == [30, 40]
    result = np.asarray(Image.open(out / "a.png"))
    assert result.shape == PHOTO.shape
    assert found[0]["psnr"] == pytest.approx(peak_signal_noise_ratio(PHOTO, result), abs=1e-3)
    assert 20 < found[0]["psnr"] < 45
    told = capsys.readouterr().out
    assert "13 patches of 64 pixels x 2 steps: about" in told
    assert "3 purified, 0 finished before, 0 failed" in told
    page = report.read_text()
    assert page.count("data:image/jpeg;base64,") == 9
    assert not re.search(r"(src|href)=\"(?!data:)|https?://|<script", page)
    assert f"amplified {DIFFERENCE_GAIN} times" in page
    assert f"{found[0]['psnr']:.2f}" in page


def test_what_is_finished_is_left_alone(photos: Path, tmp_path: Path) -> None:
    jobs, lines = plan_jobs([photos], tmp_path / "out"), [tmp_path / "1.jsonl", tmp_path / "2.jsonl"]
    purify_images(file_purifier(), jobs, json=lines[0])
    written = {job.result: job.result.stat().st_mtime_ns for job in jobs}
    network = Smoother()
    assert purify_images(file_purifier(network, batch=1), jobs, json=lines[1]) is ExitCode.OK
    assert network.patches == 0
    assert {job.result: job.result.stat().st_mtime_ns for job in jobs} == written
    for first, second in zip(*map(lines_of, lines), strict=True):
        assert second.pop("status") == "finished before"
        assert first.pop("status") == "purified"
        assert first == second


def test_an_interrupted_run_goes_on_where_it_was(photos: Path, tmp_path: Path) -> None:
    class Interrupted(Smoother):
        def __call__(self, sample, timestep):
            if self.patches > 20:
                raise KeyboardInterrupt
            return super().__call__(sample, timestep)

    jobs, report = plan_jobs([photos], tmp_path / "out"), tmp_path / "report.html"
    with pytest.raises(KeyboardInterrupt):
        purify_images(file_purifier(Interrupted(), batch=2), jobs, report=report)
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["a.png"]
    assert report.read_text().count("data:image") == 3
    network = Smoother()
    outcomes = list(file_purifier(network).run(jobs))
    assert [outcome.status for outcome in outcomes] == ["finished before", "purified", "purified"]
    whole = list(file_purifier().run(plan_jobs([photos], tmp_path / "at once")))
    for part, one in zip(outcomes, whole, strict=True):
        np.testing.assert_array_equal(Image.open(part.job.result), Image.open(one.job.result))


@pytest.mark.parametrize(
    "other",
    [{"steps": 3}, {"seed": 1}, {"guide": "mse"}, {"sampler": "ddim"}, {"overlap": 0.5}, {"respacing": 1}],
    ids=str,
)
def test_results_of_other_settings_stay_unless_overwritten(photos: Path, tmp_path: Path, other: dict) -> None:
    jobs = plan_jobs([photos / "a.png"], tmp_path / "out")
    purify_images(file_purifier(), jobs)
    first = jobs[0].result.read_bytes()
    assert purify_images(file_purifier(**other), jobs) is ExitCode.BAD_INPUT
    assert jobs[0].result.read_bytes() == first
    assert purify_images(replace(file_purifier(**other), overwrite=True), jobs) is ExitCode.OK
    assert jobs[0].result.read_bytes() != first


def test_other_sources_and_networks_and_strangers_are_noticed(photos: Path, tmp_path: Path, capsys) -> None:
    jobs = plan_jobs([photos / "a.png"], tmp_path / "out")
    purify_images(file_purifier(), jobs)
    assert purify_images(replace(file_purifier(), network="another"), jobs) is ExitCode.BAD_INPUT
    assert "a.png: is there, and was not made from" in capsys.readouterr().out
    shutil.copy(photos / "b.jpg", photos / "a.png")
    assert purify_images(file_purifier(), jobs) is ExitCode.BAD_INPUT
    jobs[0].result.write_text("somebody's notes")
    assert purify_images(file_purifier(), jobs) is ExitCode.BAD_INPUT
    assert jobs[0].result.read_text() == "somebody's notes"


def test_a_bad_file_does_not_stop_the_others(photos: Path, tmp_path: Path, capsys) -> None:
    (photos / "aa.png").write_bytes((photos / "a.png").read_bytes()[:400])
    (photos / "empty.jpg").touch()
    Image.fromarray(np.ones((5, 5), np.float32)).save(photos / "float.tif")
    report, lines = tmp_path / "report.html", tmp_path / "lines.jsonl"
    code = purify_images(file_purifier(), plan_jobs([photos], tmp_path / "out"), report=report, json=lines)
    assert code is ExitCode.BAD_INPUT
    failed = [Path(line["source"]).name for line in lines_of(lines) if line["status"] == "failed"]
    assert failed == ["aa.png", "empty.jpg", "float.tif"]
    told = capsys.readouterr().out
    assert re.search(r"failed: .*aa\.png: cannot be read as an image", told)
    assert re.search(r"failed: .*float\.tif: floating-point pixels have no defined range", told)
    assert "3 purified, 0 finished before, 3 failed" in told
    assert report.read_text().count("data:image") == 9


def test_an_engine_that_fails_ends_the_run(photos: Path, tmp_path: Path) -> None:
    def broken(sample, timestep):
        raise EngineFailed("the device was lost")

    with pytest.raises(EngineFailed):
        list(file_purifier(broken).run(plan_jobs([photos], tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_a_file_that_vanishes_meanwhile_is_reported(photos: Path, tmp_path: Path) -> None:
    jobs = plan_jobs([photos], tmp_path / "out")
    (photos / "a.png").unlink()
    assert [outcome.status for outcome in file_purifier().run(jobs)] == ["failed", "purified", "purified"]


def test_a_result_that_cannot_be_written_does_not_stop_the_others(photos: Path, tmp_path: Path, capsys) -> None:
    for name in ("l" * 251 + ".png", "l" * 251 + ".ppm", "n" * 251 + ".png"):  # two results of l are too long
        Image.fromarray(PHOTO).save(photos / name)
    (tmp_path / "out" / "b.png").mkdir(parents=True)
    jobs = plan_jobs([photos], tmp_path / "out")
    assert purify_images(file_purifier(), jobs) == ExitCode.BAD_INPUT
    said = capsys.readouterr().out
    assert said.count("File name too long") == 2 and "3 purified, 0 finished before, 3 failed" in said
    assert (tmp_path / "out" / ("n" * 251 + ".png")).is_file() and (tmp_path / "out" / "deep" / "c.png").is_file()


def test_the_places_of_results_are_tried_first(photos: Path, tmp_path: Path, exit_code, capsys) -> None:
    for option in ("--report", "--jsonl"):
        argv = ["--images", photos, "--out", tmp_path / "out", option, tmp_path]
        assert exit_code(main, *argv) == ExitCode.BAD_INPUT
        assert "is a folder; expected the name of a file" in capsys.readouterr().err


def test_a_disk_that_takes_nothing_ends_the_run(photos: Path, tmp_path: Path, monkeypatch) -> None:
    def full(self: Image.Image, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    network, jobs = Smoother(), plan_jobs([photos], tmp_path / "out")
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        purify_images(file_purifier(network), jobs)
    assert network.patches <= 20  # two batches to measure, and the first picture
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_the_noise_of_a_picture_does_not_depend_on_the_others(photos: Path, tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(photos / "z.png")
    outcomes = list(file_purifier().run(plan_jobs([photos], tmp_path / "out")))
    a, b, _, z = (np.asarray(Image.open(outcome.job.result)) for outcome in outcomes)
    np.testing.assert_array_equal(a, z)  # of one content
    difference = (a.astype(float) - PHOTO, b.astype(float)[::-1] - PHOTO)
    noise = [plane - cv2.GaussianBlur(plane, (5, 5), 1) for plane in difference]
    assert np.corrcoef(noise[0].ravel(), noise[1][::-1].ravel())[0, 1] < 0.5


# ---- where results go


def test_two_sources_of_one_name_keep_their_suffix(photos: Path, tmp_path: Path) -> None:
    shutil.copy(photos / "b.jpg", photos / "a.jpg")
    jobs = plan_jobs([photos], tmp_path / "out")
    names = sorted(job.result.name for job in jobs)
    assert names == ["a.jpg.png", "a.png.png", "b.png", "c.png"]


def test_a_picture_named_twice_is_purified_once(photos: Path, tmp_path: Path) -> None:
    assert len(plan_jobs([photos, photos / "a.png", photos / "deep" / ".." / "b.jpg"], tmp_path / "out")) == 3


@pytest.mark.parametrize("out", ["photos", "photos/purified"])
def test_results_among_the_originals_are_refused(photos: Path, out: str) -> None:
    with pytest.raises(UsageError, match="would be taken for images"):
        plan_jobs([photos], photos.parent / out)


def test_no_original_is_replaced(photos: Path) -> None:
    with pytest.raises(UsageError, match="would replace an original"):
        plan_jobs([photos / "a.png"], photos)
    plan_jobs([photos / "b.jpg"], photos)  # b.png is free


def test_a_file_is_no_folder(photos: Path) -> None:
    with pytest.raises(UsageError, match="is a file"):
        plan_jobs([photos / "a.png"], photos / "b.jpg")


def test_two_folders_with_one_name_are_refused(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "more")
    with pytest.raises(UsageError, match="would both become"):
        plan_jobs([photos, tmp_path / "more"], tmp_path / "out")


# ---- files of every kind


def purified(path: Path, **options) -> tuple[Outcome, Image.Image]:
    (outcome,) = file_purifier(**options).run(plan_jobs([path], path.parent / "out"))
    assert outcome.status == "purified", outcome.error
    with Image.open(outcome.job.result) as opened:
        opened.load()
        return outcome, opened


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
    assert outcome.notes == ("of 16 bits the upper 8 were purified",)
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
    assert outcome.notes == ("of several pages the first was purified",)
    assert peak_signal_noise_ratio(PHOTO, np.asarray(result.convert("RGB"))) > 18


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.fromarray(PHOTO).convert("CMYK").save(tmp_path / "print.tif")
    outcome, result = purified(tmp_path / "print.tif", keep=True)
    assert result.mode == "RGB"
    assert outcome.notes == ("CMYK became RGB",)


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (64, 64), (63, 65), (200, 7)])
def test_sizes_are_kept(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.fromarray(np.resize(PHOTO, (*size, 3))).save(tmp_path / "odd.png")
    outcome, result = purified(tmp_path / "odd.png")
    assert outcome.size == size
    assert result.size == size[::-1]


def test_a_huge_picture_is_refused_in_words(tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "huge.png")
    use(Reading(max_megapixels=0.012))
    assert read_picture(tmp_path / "huge.png").values.shape == PHOTO.shape
    use(Reading(max_megapixels=0.011))
    try:
        with pytest.raises(BadInput, match=r"huge.png: .* pixels are 0 megapixels, and the limit is 0.011"):
            read_picture(tmp_path / "huge.png")
    finally:
        use(Reading())


# ---- metadata

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


# ---- numbers and pictures of the report


@pytest.mark.parametrize("channels", [1, 3])
def test_quality_is_what_others_measure(channels: int) -> None:
    before = data.astronaut()[:, :200, :channels]
    after = cv2.GaussianBlur(before, (5, 5), 1.0).reshape(before.shape)
    assert quality.psnr(before, after) == pytest.approx(peak_signal_noise_ratio(before, after), abs=1e-6)
    theirs = structural_similarity(
        before, after, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert quality.structural_similarity(before, after) == pytest.approx(theirs, abs=1e-4)


def test_quality_in_bands_is_quality_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = PHOTO, np.roll(PHOTO, 1, axis=1)
    whole = quality.psnr(before, after), quality.structural_similarity(before, after)
    monkeypatch.setattr(quality, "_BAND", 7)
    banded = quality.psnr(before, after), quality.structural_similarity(before, after)
    assert banded == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (4, 30)])
def test_equal_pictures_of_any_size(size: tuple[int, int]) -> None:
    picture = np.resize(PHOTO, (*size, 3))
    assert quality.psnr(picture, picture) == np.inf
    assert quality.structural_similarity(picture, picture) == pytest.approx(1)


def test_the_difference_is_amplified_about_grey() -> None:
    before = np.full((2, 2, 1), 100, np.uint8)
    after = np.array([[100, 101], [90, 200]], np.uint8).reshape(2, 2, 1)
    expected = [[128, 128 + DIFFERENCE_GAIN], [128 - 10 * DIFFERENCE_GAIN, 255]]
    np.testing.assert_array_equal(difference_picture(before, after)[:, :, 0], expected)


def test_a_report_of_many_pictures_stays_small(photos: Path, tmp_path: Path) -> None:
    outcomes = list(file_purifier().run(plan_jobs([photos / "a.png"], tmp_path / "out"))) * (MOST_SHOWN + 5)
    write_report(tmp_path / "report.html", outcomes, {"steps": "<40>"})
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image") == 3 * MOST_SHOWN
    assert page.count("<td>purified</td>") == MOST_SHOWN + 5
    assert "&lt;40&gt;" in page


def test_a_report_names_a_picture_whose_name_is_no_utf_8(photos: Path, tmp_path: Path) -> None:
    (photos / "a.png").rename(photos / "caf\udce9.png")
    outcomes = list(file_purifier().run(plan_jobs([photos / "caf\udce9.png"], tmp_path / "out")))
    write_report(tmp_path / "report.html", outcomes, {})
    assert "caf\\udce9.png" in (tmp_path / "report.html").read_text()


# ---- the command line


def test_options_arrive() -> None:
    argv = (
        "--images x --out y --guide ssim --guide-scale 7 --noise 30 --sampler ddim --respacing 5 --overlap 0.5 --seed 9"
    )
    assert options_of(parser().parse_args(argv.split())) == PurifyOptions(
        steps=30, guide="ssim", guide_scale=7, sampler="ddim", respacing=5, overlap=0.5, seed=9
    )
    assert options_of(parser().parse_args(["--images", "x", "--out", "y"])) == PurifyOptions()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--guide-scale", "3"], "a guide scale needs a guide"),
        (["--respacing", "50"], "respacing 50: expected 1 to 40"),
        (["--patching", "upstream", "--overlap", "0.1"], "--overlap needs --patching blend"),
        (["--overlap", "1"], "overlap 1.0"),
        (["--seed", "-1"], "argument --seed: expected a number of 0 or more"),
        ([], "no *.uflow bundle of a diffusion UNet"),
    ],
    ids=["scale without guide", "too many runs", "overlap of upstream", "all overlap", "seed", "no bundle"],
)
def test_what_cannot_be_meant_is_refused(photos, tmp_path, monkeypatch, exit_code, capsys, argv, message) -> None:
    monkeypatch.chdir(tmp_path)
    assert exit_code(main, "--images", photos, "--out", tmp_path / "out", *argv) == ExitCode.USAGE
    assert message in capsys.readouterr().err


def test_images_that_are_not_there(tmp_path: Path, exit_code, capsys) -> None:
    assert exit_code(main, "--images", tmp_path / "nowhere", "--out", tmp_path / "out") == ExitCode.BAD_INPUT
    assert "no such file or folder" in capsys.readouterr().err

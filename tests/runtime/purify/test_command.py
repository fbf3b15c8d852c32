"""`uflow-purify`: runs, interruptions, failures, places of results and options."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from purifying import PHOTO, Smoother, file_purifier
from uflow_edge.runtime.diffusion.options import PurifyOptions
from uflow_edge.runtime.engines import EngineFailed
from uflow_edge.runtime.errors import ExitCode, UsageError
from uflow_edge.runtime.purify.command import main, options_of, parser, purify_images
from uflow_edge.runtime.purify.jobs import plan_jobs
from uflow_edge.runtime.purify.report import DIFFERENCE_GAIN


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_pictures_lines_and_a_report(photos: Path, tmp_path: Path, capsys, caplog) -> None:
    caplog.set_level("INFO", "uflow_edge")
    out, report, lines = tmp_path / "out", tmp_path / "report.html", tmp_path / "results.jsonl"
    before = {path: path.read_bytes() for path in photos.rglob("*.*")}
    code = purify_images(file_purifier(), plan_jobs([photos], out), report=report, jsonl=lines)
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
    assert "13 patches of 64 pixels x 2 steps: about" in caplog.text
    assert "3 purified, 0 finished before, 0 failed" in told
    page = report.read_text()
    assert page.count("data:image/jpeg;base64,") == 9
    assert not re.search(r"(src|href)=\"(?!data:)|https?://|<script", page)
    assert f"amplified {DIFFERENCE_GAIN} times" in page
    assert f"{found[0]['psnr']:.2f}" in page


def test_what_is_finished_is_left_alone(photos: Path, tmp_path: Path) -> None:
    jobs, lines = plan_jobs([photos], tmp_path / "out"), [tmp_path / "1.jsonl", tmp_path / "2.jsonl"]
    purify_images(file_purifier(), jobs, jsonl=lines[0])
    written = {job.result: job.result.stat().st_mtime_ns for job in jobs}
    network = Smoother()
    assert purify_images(file_purifier(network, batch=1), jobs, jsonl=lines[1]) is ExitCode.OK
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
    assert "a.png: exists, but was not made from" in capsys.readouterr().out
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
    code = purify_images(file_purifier(), plan_jobs([photos], tmp_path / "out"), report=report, jsonl=lines)
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


def test_two_sources_of_one_name_keep_their_suffix(photos: Path, tmp_path: Path) -> None:
    shutil.copy(photos / "b.jpg", photos / "a.jpg")
    jobs = plan_jobs([photos], tmp_path / "out")
    names = sorted(job.result.name for job in jobs)
    assert names == ["a.jpg.png", "a.png.png", "b.png", "c.png"]


def test_a_picture_named_twice_is_purified_once(photos: Path, tmp_path: Path) -> None:
    assert len(plan_jobs([photos, photos / "a.png", photos / "deep" / ".." / "b.jpg"], tmp_path / "out")) == 3


@pytest.mark.parametrize("out", ["photos", "photos/purified"])
def test_results_among_the_originals_are_refused(photos: Path, out: str) -> None:
    with pytest.raises(UsageError, match="would be taken for input images"):
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

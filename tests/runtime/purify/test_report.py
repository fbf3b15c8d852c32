"""Numbers and pictures of the report of a purification."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from purifying import PHOTO, file_purifier
from uflow_edge.runtime.purify import quality
from uflow_edge.runtime.purify.jobs import plan_jobs
from uflow_edge.runtime.purify.report import DIFFERENCE_GAIN, MOST_SHOWN, difference_picture, write_report


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

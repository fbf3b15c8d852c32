"""Data sets as people have them: which of their images are good, and what is refused."""

from pathlib import Path

import pytest

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images.layouts import good_images


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def relative(root: Path, images: list[Path]) -> list[str]:
    return [image.relative_to(root).as_posix() for image in images]


MVTEC = ("train/good/0.png", "test/good/1.png", "test/hole/2.png", "ground_truth/hole/2_mask.png")
BTAD = ("train/ok/0.bmp", "test/ok/1.bmp", "test/ko/2.bmp", "ground_truth/ko/2.png")
MVTEC_AD_2 = ("train/good/0.png", "validation/good/1.png", "test_public/bad/2.png", "test_private/3.png")
VISA = ("Data/Images/Normal/0.JPG", "Data/Images/Anomaly/1.JPG", "Data/Masks/Anomaly/1.png")
BESIDE = ("good/0.png", "good/more/1.png", "bad/2.png")
REAL_IAD = ("OK/S1/0.jpg", "NG/S2/1.jpg", "NG/S2/1_mask.png")


@pytest.mark.parametrize(
    ("names", "below", "expected"),
    [
        (MVTEC, "", ["train/good/0.png"]),
        (MVTEC, "train", ["train/good/0.png"]),
        (MVTEC, "test/good", ["test/good/1.png"]),
        (BTAD, "", ["train/ok/0.bmp"]),
        (MVTEC_AD_2, "", ["train/good/0.png"]),
        (VISA, "", ["Data/Images/Normal/0.JPG"]),
        (VISA, "Data", ["Data/Images/Normal/0.JPG"]),
        (VISA, "Data/Images", ["Data/Images/Normal/0.JPG"]),
        (BESIDE, "", ["good/0.png", "good/more/1.png"]),
        (REAL_IAD, "", ["OK/S1/0.jpg"]),
        (("0.png", "monday/1.png", "bottle_label.png"), "", ["0.png", "bottle_label.png", "monday/1.png"]),
    ],
)
def test_the_good_images_of_a_data_set_are_taken(
    tmp_path: Path, names: tuple[str, ...], below: str, expected: list[str], logged: list[str]
) -> None:
    root = make(tmp_path / "part", *names)
    assert relative(root, good_images(root / below)) == expected
    lies_below = (root / expected[0]).parent != root / below
    assert any("a data set" in line for line in logged) == lies_below


@pytest.mark.parametrize(
    ("names", "below", "fault"),
    [
        (MVTEC, "test", "part/test: its name says defects, masks or test images"),
        (MVTEC, "ground_truth/hole", r"2_mask|\*\.png"),
        (MVTEC, "ground_truth", "its name says"),
        (VISA, "Data/Masks", "its name says"),
        (VISA, "Data/Images/Anomaly", "its name says"),
        (("0.png", "defects/1.png"), "", r"defects \(1\)"),
        (("a/0.png", "a/Anomaly/1.png", "b/rejects/2.png"), "", r"a/Anomaly \(1\), .*b/rejects \(1\)"),
        (("0.png", "0_mask.png"), "", r"part/\*\.png \(1\)"),
        (("0.png", "0_GT.png"), "", r"part/\*\.png \(1\)"),
        (("train/0.png",), "", "no train/good"),
        (tuple(f"{name}/{file}" for name in ("bottle", "cable") for file in MVTEC), "", "2 data sets.*bottle.*cable"),
        (tuple(f"mvtec/{name}/{file}" for name in ("a", "b") for file in MVTEC), "", "2 data sets.*mvtec/a.*mvtec/b"),
        (tuple(f"{name}/{file}" for name in ("01", "02") for file in BTAD), "", "2 data sets.*01.*02"),
        (tuple(f"candle/{file}" for file in VISA), "", "1 data sets.*candle"),
    ],
)
def test_what_is_not_only_good_is_refused_by_name(
    tmp_path: Path, names: tuple[str, ...], below: str, fault: str
) -> None:
    root = make(tmp_path / "part", *names)
    with pytest.raises(BadInput, match=fault):
        good_images(root / below)

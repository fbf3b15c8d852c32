"""Every way a mask may be stored, and those that are refused."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from uflow_edge.runtime.errors import BadInput
from uflow_edge.training.dataset import TestImage
from uflow_edge.training.evaluation.ground_truth import labelled_images
from uflow_edge.training.evaluation.masks import read_mask

TRUTH = np.zeros((20, 30), bool)
TRUTH[4:9, 6:20] = True
INK = TRUTH.astype(np.uint8)


def coloured(alpha: np.ndarray, colour: tuple[int, int, int] = (255, 0, 0)) -> Image.Image:
    return Image.fromarray(np.dstack([np.full((*TRUTH.shape, 3), colour, np.uint8), alpha]).astype(np.uint8))


def palette(colours: list[int]) -> Image.Image:
    image = Image.fromarray(INK, "P")
    image.putpalette(colours)
    return image


STORED = {
    "one_bit.png": Image.fromarray(TRUTH),
    "ones.png": Image.fromarray(INK),
    "full.bmp": Image.fromarray(INK * 255),
    "sixteen.png": Image.fromarray(INK.astype(np.uint16)),
    "sixteen_high.tif": Image.fromarray(INK.astype(np.uint16) * 256),
    "thirty_two.tif": Image.fromarray(INK.astype(np.int32) * 70000),
    "float.tif": Image.fromarray(INK.astype(np.float32) / 2),
    "rgb.png": Image.fromarray(np.dstack([INK * 0, INK * 3, INK * 0])),
    "palette.png": palette([0, 0, 0, 0, 0, 9]),
    "palette.gif": palette([0, 0, 0, 200, 0, 9]),
    "opaque.png": Image.fromarray(np.dstack([INK * 255] * 3 + [INK * 0 + 255])),
    "half_everywhere.png": Image.fromarray(np.dstack([INK * 255, INK * 0 + 128]), "LA"),
    "transparent_red.png": coloured(INK * 255),
    "transparent_black.png": coloured(INK * 255, (0, 0, 0)),
    "soft_edge.png": coloured(INK * 3),
    "lossless.webp": Image.fromarray(np.dstack([INK * 255] * 3)),
}


@pytest.mark.parametrize("name", STORED)
def test_a_mask_is_what_was_drawn_however_it_is_stored(tmp_path: Path, name: str) -> None:
    options = {"lossless": True} if name.endswith("webp") else {}
    STORED[name].save(tmp_path / name, **options)
    np.testing.assert_array_equal(read_mask(tmp_path / name), TRUTH)


@pytest.mark.parametrize("channels", [3, 4])
def test_a_mask_of_deep_colour_keeps_its_lowest_bits(tmp_path: Path, channels: int) -> None:
    deep = np.dstack([INK.astype(np.uint16)] * 3 + [np.full(TRUTH.shape, 0xFFFF, np.uint16)])
    cv2.imwrite(str(tmp_path / "deep.png"), deep[:, :, :channels])
    np.testing.assert_array_equal(read_mask(tmp_path / "deep.png"), TRUTH)


@pytest.mark.parametrize(
    ("name", "image", "fault"),
    [
        ("a.jpg", Image.fromarray(INK * 255), "has lossy compression"),
        ("a.webp", Image.fromarray(np.dstack([INK * 255] * 3)), "has lossy compression"),
        ("jpeg.png", None, "has lossy compression"),
        ("blank.png", Image.fromarray(INK * 0), "marks no pixel"),
        ("print.tif", Image.fromarray(np.dstack([INK] * 3)).convert("CMYK"), "has colour mode CMYK"),
        ("nan.tif", Image.fromarray(np.where(TRUTH, np.nan, 0).astype(np.float32)), "not finite"),
        (
            "both.png",
            Image.fromarray(np.dstack([np.eye(20, 30, dtype=np.uint8)] * 3 + [INK * 255])),
            "its background is unclear",
        ),
    ],
)
def test_a_mask_that_could_mean_something_else_is_refused(
    tmp_path: Path, name: str, image: Image.Image | None, fault: str
) -> None:
    (image or Image.fromarray(INK * 255)).save(tmp_path / name, None if image else "JPEG")
    with pytest.raises(BadInput, match=f"{name}: .*{fault}"):
        read_mask(tmp_path / name)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    for name in ("test/good/0.png", "test/hole/0.png", "test/hole/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(INK).save(tmp_path / name)
    (tmp_path / "ground_truth" / "hole").mkdir(parents=True)
    for name in ("0_mask.png", "1_mask.png"):
        Image.fromarray(INK).save(tmp_path / "ground_truth" / "hole" / name)
    return tmp_path


def refused(folder: Path) -> str:
    with pytest.raises(BadInput) as error:
        labelled_images(folder)
    return str(error.value)


def test_two_images_never_share_a_mask_nor_one_has_two(labelled: Path) -> None:
    assert [image.is_good for image in labelled_images(labelled)] == [True, False, False]
    hole, masks = labelled / "test" / "hole", labelled / "ground_truth" / "hole"
    Image.open(hole / "0.png").save(hole / "0.bmp")
    Image.open(masks / "1_mask.png").save(masks / "1_mask.bmp")
    said = refused(labelled)
    assert f"{hole / '0.bmp'} and {hole / '0.png'}: they share the mask {masks / '0_mask.png'}" in said
    assert f"{hole / '1.png'}: it has 2 masks: 1_mask.bmp, 1_mask.png" in said


def test_every_faulty_mask_is_named_before_the_work_starts(labelled: Path) -> None:
    masks = labelled / "ground_truth" / "hole"
    Image.fromarray(INK * 0).save(masks / "0_mask.png")
    (masks / "1_mask.png").write_bytes((masks / "1_mask.png").read_bytes()[:60])
    said = refused(labelled)
    assert "0_mask.png: marks no pixel" in said
    assert "1_mask.png: cannot be read" in said


def test_btads_names_of_good_images_are_understood(labelled: Path) -> None:
    (labelled / "test" / "good").rename(labelled / "test" / "ok")
    assert labelled_images(labelled)[-1] == TestImage(labelled / "test" / "ok" / "0.png", "good")

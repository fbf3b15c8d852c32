from pathlib import Path

import numpy as np
from PIL import Image

from uflow_edge.export.graphs.sample_pictures import parity_images, rounding_pictures
from uflow_edge.runtime.engines.reference import noise_images


def grey_folder(folder: Path, count: int) -> Path:
    folder.mkdir()
    for i in range(count):
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(folder / f"{i:03}.png")
    return folder


def test_of_many_given_pictures_some_are_taken_evenly(tmp_path: Path) -> None:
    many = grey_folder(tmp_path / "many", 125)
    shades = [int(picture[0, 0, 0]) for picture in parity_images(tmp_path / "a.ckpt", [many], 8, "squash")]
    assert shades == list(range(0, 125, 4))


def test_few_given_pictures_are_all_taken_and_nothing_else(tmp_path: Path) -> None:
    few = grey_folder(tmp_path / "few", 3)
    pictures = parity_images(tmp_path / "a.ckpt", [few / "002.png", few / "000.png"], 8, "squash")
    assert [int(picture[0, 0, 0]) for picture in pictures] == [2, 0]


def test_without_pictures_noise_and_what_lies_beside_the_checkpoint_is_taken(tmp_path: Path) -> None:
    folder = grey_folder(tmp_path / "beside", 10)
    pictures = parity_images(folder / "a.ckpt", [], 8, "squash")
    noise = noise_images(8)
    np.testing.assert_array_equal(pictures[: len(noise)], noise)
    assert [int(picture[0, 0, 0]) for picture in pictures[len(noise) :]] == list(range(8))


def test_what_lies_beside_the_checkpoint_and_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    folder = grey_folder(tmp_path / "beside", 3)
    (folder / "001.png").write_bytes(b"no picture")
    pictures = parity_images(folder / "a.ckpt", [], 8, "squash")
    assert [int(picture[0, 0, 0]) for picture in pictures[len(noise_images(8)) :]] == [0, 2]


def test_what_the_checkpoint_carries_takes_the_place_of_noise(tmp_path: Path) -> None:
    carried = [np.full((8, 8, 3), shade, np.uint8) for shade in (7, 9)]
    assert parity_images(tmp_path / "a.ckpt", [], 8, "squash", carried) == carried
    given = grey_folder(tmp_path / "given", 2)
    assert len(parity_images(tmp_path / "a.ckpt", [given], 8, "squash", [*carried, carried[0]])) == 2


def test_weights_are_rounded_by_most_of_what_it_carries(tmp_path: Path) -> None:
    carried = [np.full((8, 8, 3), shade, np.uint8) for shade in range(24)]
    chosen = [int(picture[0, 0, 0]) for picture in rounding_pictures((), 8, "squash", carried)]
    assert len(set(chosen)) == 16 and chosen[0] == 0 and chosen[-1] == 23
    given = grey_folder(tmp_path / "given", 1)
    assert len(rounding_pictures([given], 8, "squash", carried)) == 1

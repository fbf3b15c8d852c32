"""Test pictures of gravel that the bundle has not seen, with holes drawn into some and their masks."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIDE = 96


@pytest.fixture(scope="session")
def labelled_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MVTec layout of 5 good pictures, 3 with a dark hole and 2 with two bright spots each. Read only."""
    from skimage import data

    folder, gravel = tmp_path_factory.mktemp("labelled") / "gravel", data.gravel()
    pieces = [gravel[y : y + SIDE, x : x + SIDE].copy() for x in (0, 96, 192, 288, 384) for y in (384, 416)]
    for i, piece in enumerate(pieces):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        kind = "good" if i < 5 else "hole" if i < 8 else "spots"
        if kind == "hole":
            mask[20 : 40 + 5 * (i - 5), 30:65] = 255
            piece[mask > 0] = 0
        elif kind == "spots":
            mask[10:30, 10:30] = mask[60:80, 55:85] = 255
            piece[mask > 0] = 255
        save(folder / "test" / kind / f"{i:03d}.png", piece)
        if kind != "good":
            save(folder / "ground_truth" / kind / f"{i:03d}_mask.png", mask)
    return folder


@pytest.fixture
def own_labelled_folder(labelled_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return shutil.copytree(labelled_folder, tmp_path / "gravel")


def save(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)

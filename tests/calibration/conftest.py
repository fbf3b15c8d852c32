"""Good and bad pictures of gravel, and a bundle that tests may change."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIDE = 80


def gravel_picture(random: np.random.Generator) -> np.ndarray:
    """A piece of the photograph that no other test trains on, (80, 80) uint8."""
    from skimage import data

    y, x = int(random.integers(384, 512 - SIDE + 1)), int(random.integers(0, 512 - SIDE + 1))
    piece = data.gravel()[y : y + SIDE, x : x + SIDE]
    return np.ascontiguousarray(piece[:, ::-1] if random.random() < 0.5 else piece)


@pytest.fixture(scope="session")
def good_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 good pictures."""
    folder, random = tmp_path_factory.mktemp("good"), np.random.default_rng(0)
    for i in range(60):
        Image.fromarray(gravel_picture(random)).save(folder / f"{i:02d}.png")
    return folder


@pytest.fixture
def bundle_folder(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "gravel.uflow")

"""Images to purify."""

from pathlib import Path

import pytest
from PIL import Image

from purifying import PHOTO


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    Image.fromarray(PHOTO).save(folder / "a.png")
    Image.fromarray(PHOTO[::-1]).save(folder / "b.jpg", quality=95)
    Image.fromarray(PHOTO[:30, :40]).save(folder / "deep" / "c.tif")
    return folder

"""A watched folder whose parts come and go while it is read; test_watched_folder.py has the plain cases."""

import os
import shutil
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from uflow_edge.runtime.sources import SourceLost
from uflow_edge.runtime.sources.folders import WatchedFolder, image_files


@pytest.fixture
def lot(texture_folder: Path, tmp_path: Path) -> Path:
    """A folder with a picture, and with another one in a folder below."""
    pictures = sorted((texture_folder / "train" / "good").iterdir())
    (tmp_path / "lot" / "batch").mkdir(parents=True)
    shutil.copy(pictures[0], tmp_path / "lot")
    shutil.copy(pictures[1], tmp_path / "lot" / "batch")
    return tmp_path / "lot"


def remove_while_listing(gone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program deletes a folder after the one above it was listed, and before it is itself."""
    walk = os.walk

    def walk_on(*arguments, **options):
        for listed in walk(*arguments, **options):
            yield listed
            shutil.rmtree(gone, ignore_errors=True)

    monkeypatch.setattr(os, "walk", walk_on)


def test_a_folder_below_vanishes_while_it_is_listed(lot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remove_while_listing(lot / "batch", monkeypatch)
    frames = WatchedFolder(lot, interval_s=0.01).frames(threading.Event())
    assert next(frames).name == Path("00")
    assert not (lot / "batch").exists()


def test_the_folder_vanishes_while_it_is_listed(lot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = WatchedFolder(lot, interval_s=0.01).frames(threading.Event())
    next(frames)
    remove_while_listing(lot, monkeypatch)
    with pytest.raises(SourceLost, match="this folder has vanished"):
        for _ in frames:
            pass


def test_images_of_one_name_are_told_apart(tmp_path) -> None:
    for name in ("left/good/0.png", "right/good/0.png", "right/good/1.png", "right/good/1.bmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 8, 3), np.uint8))

    def found(*paths: str) -> list[str]:
        return sorted(str(file.name) for file in image_files([tmp_path / path for path in paths]))

    assert found("left/good") == ["0"]
    assert found("left/good", "right/good") == ["1.bmp", "1.png", "left/good/0", "right/good/0"]
    assert found("left/good/0.png", "right/good/0.png") == ["0", "0"]  # given one by one
    assert found("right") == ["good/0", "good/1.bmp", "good/1.png"]
    assert found("left", "left") == ["good/0", "good/0"]  # one file, twice

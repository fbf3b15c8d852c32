"""Folders of images, watched or read once."""

import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.sources import SourceLost
from uflow_edge.runtime.sources.folders import ImageFiles, WatchedFolder, image_files
from waiting import NEVER


def write_image(path: Path, level: int, modified: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 10, 3), level, np.uint8)).save(path)
    os.utime(path, (modified, modified))


def test_unreadable_images_are_reported_and_keep_their_numbers(tmp_path: Path, logged: list[str]) -> None:
    for i in range(4):
        write_image(tmp_path / f"{i}.png", 10 * i, 1e9)
    (tmp_path / "1.png").write_bytes(b"no image")
    images = ImageFiles(image_files([tmp_path]))
    frames = list(images.frames(NEVER))
    assert [(frame.index, str(frame.name), int(frame.image_bgr[0, 0, 0])) for frame in frames] == [
        (0, "0", 0),
        (2, "2", 20),
        (3, "3", 30),
    ]
    assert len(images) == 4
    assert images.name == "4 images"
    assert "1.png: cannot be read as an image" in logged[0]
    assert images.unreadable == len(logged) == 1
    stop = threading.Event()
    some = images.frames(stop)
    next(some)
    stop.set()
    assert list(some) == []


class Visits(threading.Event):
    """A stop event whose every wait is the test's turn to change the folder; after the last turn it is set."""

    def __init__(self, *turns: Callable[[], object]) -> None:
        super().__init__()
        self._turns = deque(turns)

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout, "the folder must be watched at its interval"
        if self._turns:
            self._turns.popleft()()
        else:
            self.set()
        return self.is_set()


def pause() -> None:
    """A turn in which nothing happens."""


def watch(folder: Path, *turns: Callable[[], object]) -> tuple[list[tuple[int, str]], WatchedFolder]:
    watched = WatchedFolder(folder)
    frames = [(frame.index, str(frame.name)) for frame in watched.frames(Visits(*turns))]
    return frames, watched


def test_a_watched_folder_delivers_each_image_once_the_oldest_first(tmp_path: Path) -> None:
    write_image(tmp_path / "b.png", 1, 1000)
    write_image(tmp_path / "a.png", 1, 1000)
    write_image(tmp_path / "z.png", 1, 900)
    frames, watched = watch(
        tmp_path,
        pause,
        lambda: write_image(tmp_path / "deep" / "new.jpg", 1, 2000),
        lambda: write_image(tmp_path / ".hidden.png", 1, 2000),
        lambda: (tmp_path / "notes.txt").write_text("no image"),
        pause,
    )
    assert frames == [(0, "z"), (1, "a"), (2, "b"), (3, "deep/new")]
    assert watched.unreadable == 0


def test_a_watched_image_is_stamped_with_the_time_it_was_written(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 70, 1234.5)
    [frame] = WatchedFolder(tmp_path).frames(Visits(pause), 40)
    assert (frame.captured, frame.index, frame.image_bgr[3, 3, 0]) == (1234.5, 40, 70)
    assert frame.source == str(tmp_path / "a.png")


def test_an_image_that_is_written_slowly_is_delivered_whole(tmp_path: Path) -> None:
    write_image(tmp_path / "whole.png", 200, 1000)
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "whole.png").unlink()
    slow = tmp_path / "slow.png"
    steps: list[str] = []

    def write(part: bytes, moment: int) -> None:
        steps.append("write")
        with slow.open("ab") as file:
            file.write(part)
        os.utime(slow, (moment, moment))

    turns = [lambda: write(content[:40], 1000), pause, pause, lambda: write(content[40:], 1003), pause, pause]
    watched = WatchedFolder(tmp_path)
    for frame in watched.frames(Visits(*turns)):
        assert steps == ["write", "write"]
        assert frame.image_bgr.mean() == 200
        steps.append("delivered")
    assert steps == ["write", "write", "delivered"]
    assert watched.unreadable == 0


def test_an_image_that_stays_broken_is_reported_once_and_takes_one_number(tmp_path: Path, logged: list[str]) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    os.utime(tmp_path / "broken.png", (1000, 1000))
    later = [pause] * 8 + [lambda: write_image(tmp_path / "good.png", 1, 2000)] + [pause] * 8
    frames, watched = watch(tmp_path, *later)
    assert frames == [(1, "good")]
    assert watched.unreadable == len(logged) == 1
    assert "broken.png: cannot be read as an image" in logged[0]


def test_an_image_that_is_written_again_is_delivered_again(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 1, 1000)
    frames, watched = watch(tmp_path, pause, lambda: write_image(tmp_path / "a.png", 2, 2000), pause, pause)
    assert frames == [(0, "a"), (1, "a")]
    assert [frame.index for frame in watched.frames(Visits(pause, pause), 2)] == [], "and not a third time"


def test_what_has_vanished_is_forgotten(tmp_path: Path) -> None:
    def replace(number: int) -> None:
        (tmp_path / f"{number - 1}.png").unlink(missing_ok=True)
        write_image(tmp_path / f"{number}.png", 1, 1000 + number)

    turns = [lambda number=number: replace(number) for number in range(1, 20) for _ in range(2)]
    frames, watched = watch(tmp_path, *turns, pause)
    assert [index for index, _ in frames] == list(range(19))
    assert list(watched._done) == [tmp_path / "19.png"]
    assert watched._waiting == {}


def test_a_watched_folder_that_vanishes_and_returns(tmp_path: Path) -> None:
    folder, away = tmp_path / "in", tmp_path / "away"
    watched = WatchedFolder(folder)
    with pytest.raises(BadInput, match="no such folder"):
        next(watched.frames(NEVER))
    write_image(folder / "a.png", 1, 1000)
    frames = watched.frames(Visits(pause, lambda: folder.rename(away)))
    assert str(next(frames).name) == "a"
    for broken in (frames, watched.frames(NEVER)):
        with pytest.raises(SourceLost, match="vanished"):
            next(broken)
    away.rename(folder)
    write_image(folder / "b.png", 1, 2000)
    assert [str(frame.name) for frame in watched.frames(Visits(pause, pause), 1)] == ["b"]


def test_a_file_of_full_size_that_is_still_being_filled_is_waited_for(tmp_path: Path) -> None:
    whole = tmp_path / "whole.tmp"
    Image.fromarray(np.full((8, 10, 3), 90, np.uint8)).save(whole, "BMP")
    content = whole.read_bytes()
    filling = tmp_path / "a.bmp"

    def write(length: int) -> None:
        filling.write_bytes(content[:length] + bytes(len(content) - length))
        os.utime(filling, (1000, 1000))

    write(100)
    turns = [pause, pause, pause, lambda: write(len(content)), pause]
    [frame] = WatchedFolder(tmp_path).frames(Visits(*turns))
    assert frame.image_bgr.min() == 90
    write(54)  # black from now on, as some pictures are
    [frame] = WatchedFolder(tmp_path).frames(Visits(*[pause] * 8))
    assert frame.image_bgr.max() == 0


def test_what_cannot_be_had_in_a_watched_folder_is_named_once(tmp_path: Path, logged: list[str]) -> None:
    (tmp_path / "gone.png").symlink_to("/nonexistent/x.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "raw.cr2").touch()
    frames, watched = watch(tmp_path, *[pause] * 16)
    assert frames == []
    assert watched.unreadable == 2
    ignored, gone, pipe = sorted(logged)
    assert "a link to /nonexistent/x.png" in gone
    assert "is a named pipe" in pipe
    assert ignored == f"{tmp_path}: ignores .cr2: format not supported, or file not finished"

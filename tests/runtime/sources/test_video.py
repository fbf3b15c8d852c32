"""Video files as sources."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.sources.video import VideoFile
from waiting import NEVER


def write_video(path: Path, frames: int = 5) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 64))
    for i in range(frames):
        writer.write(np.full((64, 96, 3), 20 * i, np.uint8))
    writer.release()
    return path


def test_a_video_is_stamped_as_if_it_were_played(tmp_path: Path) -> None:
    video = VideoFile(write_video(tmp_path / "belt.avi"))
    frames = list(video.frames(NEVER, 10))
    assert [frame.index for frame in frames] == [10, 11, 12, 13, 14]
    assert [str(frame.name) for frame in frames] == [f"frame-{i:06d}" for i in range(10, 15)]
    assert {frame.source for frame in frames} == {video.name} == {str(tmp_path / "belt.avi")}
    assert not video.live
    assert np.diff([frame.captured for frame in frames]) == pytest.approx([0.1] * 4, abs=1e-3)
    levels = [float(frame.image_bgr.mean()) for frame in frames]
    assert levels == pytest.approx([0, 20, 40, 60, 80], abs=3)
    assert len(list(video.frames(NEVER))) == 5, "a video can be read again"


def test_a_video_stops_when_told_to_and_lets_the_file_go(tmp_path: Path) -> None:
    path = write_video(tmp_path / "belt.avi")
    stop = threading.Event()
    frames = VideoFile(path).frames(stop)
    next(frames)
    assert is_open(path)
    stop.set()
    assert list(frames) == []
    assert not is_open(path)
    frames = VideoFile(path).frames(NEVER)
    next(frames)
    frames.close()
    assert not is_open(path)


def is_open(path: Path) -> bool:
    """Whether this process holds the file open."""
    links = (link for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
    return any(os.path.realpath(link) == str(path.resolve()) for link in links)


def test_what_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such video file"):
        next(VideoFile(tmp_path / "absent.avi").frames(NEVER))
    (tmp_path / "text.avi").write_text("text")
    with pytest.raises(BadInput, match="finds no video"):
        next(VideoFile(tmp_path / "text.avi").frames(NEVER))


@pytest.mark.parametrize("share", [0.7, 0.8, 1.0])
def test_a_video_that_was_cut_short_is_said(tmp_path: Path, share: float, logged: list[str]) -> None:
    path = write_video(tmp_path / "belt.avi", 12)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    video = VideoFile(path)
    frames = list(video.frames(NEVER))
    cut = f"{path}: truncated or damaged: only {len(frames)} of the 12 frames that its header claims could be read"
    assert logged == ([f"unreadable: {cut}"] if share < 1 else [])
    assert video.unreadable == len(logged)
    assert (len(frames) < 12) == (share < 1)


def test_a_video_that_is_stopped_was_not_cut_short(tmp_path: Path, logged: list[str]) -> None:
    stop = threading.Event()
    frames = VideoFile(write_video(tmp_path / "belt.avi", 12)).frames(stop)
    next(frames)
    stop.set()
    assert (list(frames), logged) == ([], [])


def test_decoders_do_not_write_between_our_lines(tmp_path: Path) -> None:
    path = write_video(tmp_path / "belt.avi", 12)
    content = bytearray(path.read_bytes())
    content[-1500:-800] = bytes(700)
    path.write_bytes(content)
    code = (
        "from argparse import Namespace\n"
        "from uflow_edge.runtime.cli.command_line import run_command\n"
        "def run(arguments):\n"
        "    import cv2\n"
        f"    video = cv2.VideoCapture({str(path)!r})\n"
        "    while video.read()[0]: pass\n"
        "    cv2.VideoCapture('/dev/video99').read()\n"
        "    return 0\n"
        "run_command(Namespace, run)\n"
    )
    ours = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV_")}
    ended = subprocess.run([sys.executable, "-c", code], env=ours, capture_output=True, text=True, check=True)
    assert ended.stderr == ""

"""Sources without hardware: what a person types, files, folders, the synthetic camera, clocks."""

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from uflow_edge.runtime.errors import BadInput, MissingDependency, UsageError
from uflow_edge.runtime.sources import CameraOptions, SourceLost, parse_camera
from uflow_edge.runtime.sources.clocks import DeviceClock, captured_by_monotonic
from uflow_edge.runtime.sources.folders import ImageFiles, WatchedFolder, image_files
from uflow_edge.runtime.sources.synthetic import SyntheticCamera
from uflow_edge.runtime.sources.video import VideoFile

NEVER = threading.Event()


def write_video(path: Path, frames: int = 5) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 64))
    for i in range(frames):
        writer.write(np.full((64, 96, 3), 20 * i, np.uint8))
    writer.release()
    return path


def test_importing_the_sources_loads_nothing_heavy() -> None:
    code = (
        "import sys, uflow_edge.runtime.sources, uflow_edge.runtime.line.triggers\n"
        "assert not {'cv2', 'numpy', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# What a person types


@given(width=st.integers(1, 400), height=st.integers(1, 400), fps=st.integers(0, 1000))
def test_a_synthetic_camera_is_what_its_address_says(width: int, height: int, fps: int) -> None:
    camera = parse_camera(f"synthetic:{width}x{height}@{fps}")
    assert camera.name == f"synthetic {width}x{height}@{fps}"
    assert camera.live
    frame = next(iter(camera.frames(NEVER, 7)))
    assert frame.image_bgr.shape == (height, width, 3)
    assert frame.index == 7
    again = parse_camera("synthetic:", CameraOptions(width=width, height=height, fps=fps))
    assert again.name == camera.name


@given(st.sampled_from(["{}", "/dev/video{}", "rtsp://10.0.0.{}:554/live", "https://host/{}", "belt-{}.avi"]))
def test_a_camera_is_named_as_it_was_typed(form: str) -> None:
    text = form.format(97)
    camera = parse_camera(text)
    assert camera.name == f"camera {text}"
    assert camera.live


@given(user=st.text("abcß", min_size=1), password=st.text("xyzß!$&*+=%2@:", min_size=1))
def test_a_password_is_never_shown(user: str, password: str) -> None:
    name = parse_camera(f"rtsp://{user}:{password}@camera.local:554/live").name
    assert name == f"camera rtsp://{user}:***@camera.local:554/live"


@given(st.text())
def test_whatever_is_typed_there_is_a_camera_or_one_clear_line(text: str) -> None:
    try:
        assert parse_camera(text).name
    except UsageError as error:
        assert "camera" in str(error) or "gst:" in str(error)
    except MissingDependency as error:
        assert "GStreamer" in str(error) or "'.[genicam]" in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "front",
        "csi://",
        "csi://left",
        "ftp://host/x.avi",
        "rtsp://",
        "rtsp://[half",
        "synthetic:big",
        "synthetic:640x480@",
        "synthetic:0x10",
        "synthetic:99999x10@30",
        "gst:",
    ],
)
def test_what_makes_no_sense(text: str) -> None:
    with pytest.raises(UsageError):
        parse_camera(text)


@pytest.mark.parametrize(
    "options",
    [{"width": 0, "height": 1}, {"width": 640}, {"fps": -1}, {"exposure_us": 0}, {"buffers": 0}, {"silence_s": -1}],
)
def test_options_that_make_no_sense(options: dict) -> None:
    with pytest.raises(UsageError, match="camera option"):
        CameraOptions(**options)


@pytest.mark.parametrize("text", ["csi://0", "gst:videotestsrc", "videotestsrc ! appsink"])
def test_without_gstreamer_it_says_what_to_do(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: False)
    with pytest.raises(MissingDependency, match="needs an OpenCV with GStreamer.*JetPack.*--system-site-packages"):
        parse_camera(text)


def test_without_harvesters_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "harvesters", None)
    monkeypatch.setitem(sys.modules, "harvesters.core", None)
    with pytest.raises(MissingDependency, match=r"'.\[genicam\]"):
        parse_camera("genicam:")


# Video files


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
def test_a_video_that_was_cut_short_is_said(tmp_path: Path, share: float) -> None:
    path, unreadable = write_video(tmp_path / "belt.avi", 12), list[str]()
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    frames = list(VideoFile(path, lambda error: unreadable.append(str(error))).frames(NEVER))
    cut = f"{path}: cut short or damaged: {len(frames)} of the 12 frames that its header claims could be read"
    assert unreadable == ([cut] if share < 1 else [])
    assert (len(frames) < 12) == (share < 1)


def test_a_video_that_is_stopped_was_not_cut_short(tmp_path: Path) -> None:
    stop, unreadable = threading.Event(), list[BadInput]()
    frames = VideoFile(write_video(tmp_path / "belt.avi", 12), unreadable.append).frames(stop)
    next(frames)
    stop.set()
    assert (list(frames), unreadable) == ([], [])


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


# Image files and folders


def write_image(path: Path, level: int, modified: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 10, 3), level, np.uint8)).save(path)
    os.utime(path, (modified, modified))


def test_unreadable_images_are_reported_and_keep_their_numbers(tmp_path: Path) -> None:
    for i in range(4):
        write_image(tmp_path / f"{i}.png", 10 * i, 1e9)
    (tmp_path / "1.png").write_bytes(b"no image")
    unreadable: list[BadInput] = []
    images = ImageFiles(image_files([tmp_path]), unreadable.append)
    frames = list(images.frames(NEVER))
    assert [(frame.index, str(frame.name), int(frame.image_bgr[0, 0, 0])) for frame in frames] == [
        (0, "0", 0),
        (2, "2", 20),
        (3, "3", 30),
    ]
    assert len(images) == 4
    assert images.name == "4 images"
    assert "1.png: cannot be read as an image" in str(unreadable[0])
    assert len(unreadable) == 1
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


def watch(
    folder: Path, *turns: Callable[[], object], **options
) -> tuple[list[tuple[int, str]], list[str], WatchedFolder]:
    unreadable: list[BadInput] = []
    watched = WatchedFolder(folder, unreadable.append, **options)
    frames = [(frame.index, str(frame.name)) for frame in watched.frames(Visits(*turns))]
    return frames, [str(error) for error in unreadable], watched


def test_a_watched_folder_delivers_each_image_once_the_oldest_first(tmp_path: Path) -> None:
    write_image(tmp_path / "b.png", 1, 1000)
    write_image(tmp_path / "a.png", 1, 1000)
    write_image(tmp_path / "z.png", 1, 900)
    frames, unreadable, _ = watch(
        tmp_path,
        pause,
        lambda: write_image(tmp_path / "deep" / "new.jpg", 1, 2000),
        lambda: write_image(tmp_path / ".hidden.png", 1, 2000),
        lambda: (tmp_path / "notes.txt").write_text("no image"),
        pause,
    )
    assert frames == [(0, "z"), (1, "a"), (2, "b"), (3, "deep/new")]
    assert unreadable == []


def test_a_watched_image_is_stamped_with_the_time_it_was_written(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 70, 1234.5)
    [frame] = WatchedFolder(tmp_path, pytest.fail).frames(Visits(pause), 40)
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
    for frame in WatchedFolder(tmp_path, pytest.fail).frames(Visits(*turns)):
        assert steps == ["write", "write"]
        assert frame.image_bgr.mean() == 200
        steps.append("delivered")
    assert steps == ["write", "write", "delivered"]


def test_an_image_that_stays_broken_is_reported_once_and_takes_one_number(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    os.utime(tmp_path / "broken.png", (1000, 1000))
    later = [pause] * 8 + [lambda: write_image(tmp_path / "good.png", 1, 2000)] + [pause] * 8
    frames, unreadable, _ = watch(tmp_path, *later)
    assert frames == [(1, "good")]
    assert len(unreadable) == 1
    assert "broken.png: cannot be read as an image" in unreadable[0]


def test_an_image_that_is_written_again_is_delivered_again(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 1, 1000)
    frames, _, watched = watch(tmp_path, pause, lambda: write_image(tmp_path / "a.png", 2, 2000), pause, pause)
    assert frames == [(0, "a"), (1, "a")]
    assert [frame.index for frame in watched.frames(Visits(pause, pause), 2)] == [], "and not a third time"


def test_what_has_vanished_is_forgotten(tmp_path: Path) -> None:
    def replace(number: int) -> None:
        (tmp_path / f"{number - 1}.png").unlink(missing_ok=True)
        write_image(tmp_path / f"{number}.png", 1, 1000 + number)

    turns = [lambda number=number: replace(number) for number in range(1, 20) for _ in range(2)]
    frames, _, watched = watch(tmp_path, *turns, pause)
    assert [index for index, _ in frames] == list(range(19))
    assert list(watched._done) == [tmp_path / "19.png"]
    assert watched._waiting == {}


def test_a_watched_folder_that_vanishes_and_returns(tmp_path: Path) -> None:
    folder, away = tmp_path / "in", tmp_path / "away"
    watched = WatchedFolder(folder, pytest.fail)
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


# The synthetic camera


def test_a_synthetic_camera_repeats_itself_and_plants_defects_at_its_rate() -> None:
    camera = SyntheticCamera(64, 48, 0, seed=3, defect_rate=0.1)
    twin = SyntheticCamera(64, 48, 0, seed=3, defect_rate=0.1)
    clean = SyntheticCamera(64, 48, 0, seed=3, defect_rate=0)
    other = SyntheticCamera(64, 48, 0, seed=4, defect_rate=0.1)
    defective = [camera.defective(i) for i in range(2000)]
    assert 150 < sum(defective) < 250
    for i in range(100):
        picture = camera.picture(i)
        assert np.array_equal(picture, twin.picture(i))
        assert np.array_equal(picture, clean.picture(i)) != defective[i]
        assert not np.array_equal(picture, other.picture(i))
    assert np.array_equal(clean.picture(1)[:-7], clean.picture(0)[7:]), "the belt moves"


@given(width=st.integers(1, 9), height=st.integers(1, 9))
def test_tiny_synthetic_pictures(width: int, height: int) -> None:
    camera = SyntheticCamera(width, height, defect_rate=1)
    assert [camera.picture(i).shape for i in range(20)] == [(height, width, 3)] * 20


def test_a_synthetic_camera_shows_the_pictures_it_is_given() -> None:
    dark, pale = (np.full((20, 30, 3), grey, np.uint8) for grey in (60, 200))
    camera, sized = SyntheticCamera(defect_rate=0.1), SyntheticCamera(16, 8, defect_rate=0)
    for one in (camera, sized):
        one.show([dark, pale], (40, 60))
    assert (camera.name, sized.name) == ("synthetic 60x40@30", "synthetic 16x8@30")
    assert sized.picture(5).shape == (8, 16, 3)
    for i in range(120):
        picture = camera.picture(i)
        assert picture.shape == (40, 60, 3)
        usual = (picture == (200 if i // 30 % 2 else 60)).all()
        assert usual != camera.defective(i)
    before = camera.picture(7)
    camera.show([], (5, 5))
    np.testing.assert_array_equal(camera.picture(7), before)


def test_a_synthetic_camera_keeps_its_rate() -> None:
    class Clock(threading.Event):
        now = 100.0

        def wait(self, timeout: float | None = None) -> bool:
            self.now += timeout or 0.0
            return self.is_set()

    clock = Clock()
    camera = SyntheticCamera(8, 8, 25, clock=lambda: clock.now)
    moments = []
    for frame in camera.frames(clock):
        moments.append(clock.now)
        clock.now += 0.03  # less than a period: the rate is kept
        if frame.index == 100:
            break
    assert np.diff(moments) == pytest.approx([0.04] * 100)
    for frame in camera.frames(clock):
        moments.append(clock.now)
        clock.now += 0.06  # more: every frame is late, none is lost
        if frame.index == 100:
            break
    assert np.diff(moments[101:]) == pytest.approx([0.06] * 100)


# Clocks


@given(
    origin=st.floats(-1e6, 1e9),
    drift=st.floats(-2e-4, 2e-4),
    delays=st.lists(st.floats(0.005, 0.2), min_size=50, max_size=200),
)
def test_a_device_clock_gives_the_moment_up_to_the_smallest_delay(origin, drift, delays) -> None:
    clock, last = DeviceClock(), 0.0
    for i, delay in enumerate(delays):
        captured = 1.7e9 + i / 25
        arrived = captured + delay
        mapped = clock.captured(origin + i / 25 * (1 + drift), arrived)
        assert mapped <= arrived
        clocks_apart = 2e-3 * i / 25 + 1e-5
        assert mapped - captured >= -clocks_apart
        assert mapped - captured <= min(delays[: i + 1]) + clocks_apart or mapped == last, "time does not run backwards"
        last = mapped


def test_a_device_clock_survives_restarts_and_set_clocks() -> None:
    clock = DeviceClock()
    assert clock.captured(50.0, 1000.2) == 1000.2
    assert clock.captured(51.0, 1001.1) == pytest.approx(1001.1)
    assert clock.captured(52.0, 1002.5) == pytest.approx(1002.1, abs=2e-3)
    assert clock.captured(0.0, 1005.0) == 1005.0, "the device began anew"
    assert clock.captured(1.0, 4606.0) == 4606.0, "the wall clock was set forward"
    assert clock.captured(2.0, 1007.0) == 1007.0, "and back"
    assert clock.captured(2.0, 1007.5) == 1007.5, "a device without a clock"
    assert clock.captured(float("nan"), 1008.0) == 1008.0


def test_a_stamp_of_this_machines_monotonic_clock() -> None:
    assert captured_by_monotonic(499.75, 1000.0, now=500.0) == 999.75
    assert captured_by_monotonic(0.0, 1000.0, now=500.0) == 1000.0, "the driver gives none"
    assert captured_by_monotonic(1.7e9, 1000.0, now=500.0) == 1000.0, "the driver stamps by another clock"


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
    [frame] = WatchedFolder(tmp_path, pytest.fail).frames(Visits(*turns))
    assert frame.image_bgr.min() == 90
    write(54)  # black from now on, as some pictures are
    [frame] = WatchedFolder(tmp_path, pytest.fail).frames(Visits(*[pause] * 8))
    assert frame.image_bgr.max() == 0


def test_what_cannot_be_had_in_a_watched_folder_is_named_once(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to("/nonexistent/x.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "raw.cr2").touch()
    said: list[str] = []
    frames, unreadable, _ = watch(tmp_path, *[pause] * 16, say=said.append)
    assert frames == []
    assert len(unreadable) == 2
    assert "a link to /nonexistent/x.png" in min(unreadable)
    assert "is a named pipe" in max(unreadable)
    assert said == [f"{tmp_path}: leaves out .cr2: not read, or not finished"]

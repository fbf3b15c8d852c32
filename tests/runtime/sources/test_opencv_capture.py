"""V4L2 and GStreamer, as far as OpenCV's side of them goes."""

import time
from contextlib import closing

import cv2
import numpy as np
import pytest

from uflow_edge.runtime.errors import UsageError
from uflow_edge.runtime.sources import CameraOptions, parse_camera
from waiting import NEVER


class FakeCapture:
    """A `cv2.VideoCapture` of a camera that can do 640x480 at 30 frames a second and no manual gain."""

    def __init__(self, device: int | str, backend: int) -> None:
        self.opened, self.set_to, self.released = (device, backend), [], False
        self.state = {cv2.CAP_PROP_FRAME_WIDTH: 640.0, cv2.CAP_PROP_FRAME_HEIGHT: 480.0, cv2.CAP_PROP_FPS: 30.0}

    def isOpened(self) -> bool:
        return True

    def set(self, number: int, value: float) -> bool:
        self.set_to.append(number)
        if number in (cv2.CAP_PROP_GAIN, cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT):
            return False
        self.state[number] = value
        return True

    def get(self, number: int) -> float:
        return time.monotonic() * 1e3 - 50 if number == cv2.CAP_PROP_POS_MSEC else self.state.get(number, -1.0)

    def read(self) -> tuple[bool, np.ndarray]:
        return True, np.full((480, 640), 0x7F00, np.uint16)

    def release(self) -> None:
        self.released = True


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[FakeCapture]:
    made: list[FakeCapture] = []

    def make(device: int | str, backend: int) -> FakeCapture:
        made.append(FakeCapture(device, backend))
        return made[-1]

    monkeypatch.setattr(cv2, "VideoCapture", make)
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: True)
    return made


def test_a_v4l2_camera_is_set_in_order_and_stamped_by_the_driver(
    captures: list[FakeCapture], logged: list[str]
) -> None:
    options = CameraOptions(1920, 1080, 30, "MJPG", exposure_us=5000, gain=7)
    source = parse_camera("/dev/video2", options)
    for _ in range(2):
        with closing(source.frames(NEVER)) as frames:
            frame = next(frames)
    assert frame.image_bgr.shape == (480, 640, 3)
    assert frame.image_bgr.dtype == np.uint8
    assert frame.image_bgr.min() == frame.image_bgr.max() == 0x7F
    assert frame.captured < time.time() - 0.04, "the moment of exposure, not of arrival"
    capture = captures[0]
    assert capture.opened == ("/dev/video2", cv2.CAP_V4L2)
    wanted = [cv2.CAP_PROP_FOURCC, cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS]
    assert [number for number in capture.set_to if number in wanted] == wanted
    assert capture.set_to.index(cv2.CAP_PROP_AUTO_EXPOSURE) < capture.set_to.index(cv2.CAP_PROP_EXPOSURE)
    assert capture.state[cv2.CAP_PROP_EXPOSURE] == 50
    assert capture.state[cv2.CAP_PROP_BUFFERSIZE] == 1
    assert all(capture.released for capture in captures)
    [message] = logged
    assert message == (
        "camera /dev/video2 did not accept all options: width 1920, got 640; height 1080, got 480; gain 7, got -1"
    )


def test_a_v4l2_camera_is_left_as_it_is_unless_asked(captures: list[FakeCapture], logged: list[str]) -> None:
    with closing(parse_camera("3").frames(NEVER)) as frames:
        next(frames)
    assert logged == []
    assert captures[0].opened == (3, cv2.CAP_V4L2)
    assert captures[0].set_to == [cv2.CAP_PROP_BUFFERSIZE]
    with pytest.raises(UsageError, match="four letters"):
        parse_camera("3", CameraOptions(pixel_format="BayerRG8"))


@pytest.mark.parametrize(
    ("text", "pipeline"),
    [
        (
            "csi://1",
            "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM), width=640, height=480, framerate=30000/1000, "
            "format=NV12 ! nvvidconv ! video/x-raw, format=BGRx ! videoconvert ! video/x-raw, format=BGR ! "
            "appsink drop=true max-buffers=1 sync=false",
        ),
        (
            "gst:v4l2src device=/dev/video0",
            "v4l2src device=/dev/video0 ! videoconvert ! video/x-raw, format=BGR ! "
            "appsink drop=true max-buffers=1 sync=false",
        ),
        ("videotestsrc ! appsink drop=true", "videotestsrc ! appsink drop=true"),
    ],
)
def test_gstreamer_pipelines(text: str, pipeline: str, captures: list[FakeCapture], logged: list[str]) -> None:
    with closing(parse_camera(text, CameraOptions(640, 480)).frames(NEVER)) as frames:
        before = time.time()
        assert next(frames).captured >= before - 1
    assert captures[0].opened == (pipeline, cv2.CAP_GSTREAMER)
    assert logged == []


def test_a_csi_camera_is_exposed_as_asked(captures: list[FakeCapture]) -> None:
    with closing(parse_camera("csi://0", CameraOptions(exposure_us=250)).frames(NEVER)) as frames:
        next(frames)
    assert 'sensor-id=0 exposuretimerange="250000 250000" !' in captures[0].opened[0]

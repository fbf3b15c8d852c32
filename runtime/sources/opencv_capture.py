"""Cameras that OpenCV opens: V4L2 devices, GStreamer pipelines, network streams, and video files in their place."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import cv2
import numpy as np

from uflow_edge.runtime.errors import MissingDependency, Unavailable
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.sources.camera import Device
from uflow_edge.runtime.sources.clocks import DeviceClock, captured_by_monotonic
from uflow_edge.runtime.sources.options import CameraOptions, log_refusal

Stamp = Callable[[cv2.VideoCapture], float]

_MANUAL_EXPOSURE: Final = 1  # V4L2_EXPOSURE_MANUAL
_FFMPEG_VARIABLE: Final = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_FFMPEG_OPTIONS: Final = "rtsp_transport;tcp|fflags;nobuffer|flags;low_delay"
_FFMPEG_LOG_LEVEL: Final = ("OPENCV_FFMPEG_LOGLEVEL", "-8")  # quiet, as FFmpeg's messages quote addresses
_LONGEST_TIMEOUT_S: Final = 3600.0


class OpenCvDevice:
    """An open ``cv2.VideoCapture``."""

    def __init__(self, capture: cv2.VideoCapture, stamp: Stamp) -> None:
        self._capture = capture
        self._stamp = stamp

    def read(self) -> tuple[Image, float] | None:
        """The next frame and its capture time; None at the end."""
        there, image = self._capture.read()
        return (as_bgr(np.asarray(image)), self._stamp(self._capture)) if there else None

    def release(self) -> None:
        self._capture.release()


def as_bgr(image: np.ndarray) -> Image:
    """Convert a capture's array, grey or colour, 8 or 16 bits, to (H, W, 3) uint8 BGR; of 16 bits keep the upper 8."""
    if image.dtype == np.uint16:
        image = image >> 8
    image = image.astype(np.uint8, copy=False)
    if image.ndim == 2 or image.shape[2] == 1:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), np.uint8)
    return np.ascontiguousarray(image[:, :, :3])


def open_v4l2(name: str, device: int | str, options: CameraOptions) -> Device:
    """Open a camera by index or device file, and apply the options.

    Raises:
        Unavailable: the camera cannot be opened.
    """
    backend = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
    capture = _opened(name, lambda: cv2.VideoCapture(device, backend))
    settings = _settings(options)
    if options.exposure_us is not None:
        capture.set(cv2.CAP_PROP_AUTO_EXPOSURE, _MANUAL_EXPOSURE)
    for number, value in settings.items():
        capture.set(number, value)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, options.buffers)
    _report_refusals(name, capture, settings)
    return OpenCvDevice(capture, lambda capture: captured_by_monotonic(_position_s(capture), time.time()))


def open_pipeline(name: str, pipeline: str, options: CameraOptions) -> Device:
    """Open a GStreamer pipeline. The capture time is the arrival: OpenCV gives the pipeline's position only.

    Raises:
        Unavailable: the pipeline cannot be opened.
        MissingDependency: OpenCV lacks GStreamer.
    """
    require_gstreamer(name)
    capture = _opened(name, lambda: cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER))
    _report_refusals(name, capture, _shape(options))
    return OpenCvDevice(capture, lambda _: time.time())


def open_network(name: str, url: str, options: CameraOptions) -> Device:
    """Open a network stream, RTSP over TCP, with as little buffering as FFmpeg allows.

    Raises:
        Unavailable: the stream cannot be opened within ``options.silence_s`` seconds.
    """
    os.environ.setdefault(*_FFMPEG_LOG_LEVEL)
    timeout_ms = round(min(options.silence_s, _LONGEST_TIMEOUT_S) * 1e3)
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout_ms]
    with _ffmpeg_options():
        capture = _opened(name, lambda: cv2.VideoCapture(url, cv2.CAP_FFMPEG, timeouts))
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    _report_refusals(name, capture, _shape(options))
    if not url.startswith("rtsp"):
        return OpenCvDevice(capture, lambda _: time.time())  # MJPEG over HTTP has no real timestamps
    clock = DeviceClock()
    return OpenCvDevice(capture, lambda capture: clock.captured(_position_s(capture), time.time()))


def open_file(name: str, path: str) -> Device:
    """Open a video file in place of a camera; it is read as fast as possible.

    Raises:
        Unavailable: the file cannot be opened.
    """
    return OpenCvDevice(_opened(name, lambda: cv2.VideoCapture(path)), lambda _: time.time())


def require_gstreamer(name: str) -> None:
    """Check that OpenCV can open GStreamer pipelines.

    Raises:
        MissingDependency: OpenCV lacks GStreamer, as all builds from PyPI do.
    """
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        raise MissingDependency(
            f"{name} needs an OpenCV with GStreamer; the installed OpenCV {cv2.__version__} lacks it, as all builds "
            "from PyPI do. On JetPack use the system's OpenCV: make the virtual environment with "
            "--system-site-packages, and in it run pip uninstall opencv-python-headless"
        )


def _opened(name: str, make: Callable[[], cv2.VideoCapture]) -> cv2.VideoCapture:
    capture = make()
    if not capture.isOpened():
        capture.release()
        raise Unavailable(
            f"{name} cannot be opened: is it connected, is no other program using it, and may you read it?"
        )
    return capture


def _position_s(capture: cv2.VideoCapture) -> float:
    return capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3


def _settings(options: CameraOptions) -> dict[int, float]:
    """Properties of a V4L2 capture, in the order to set them: the format comes first, as sizes depend on it."""
    settings = {}
    if options.pixel_format is not None:
        settings[cv2.CAP_PROP_FOURCC] = float(cv2.VideoWriter.fourcc(*options.pixel_format))
    settings |= _shape(options)
    if options.exposure_us is not None:
        settings[cv2.CAP_PROP_EXPOSURE] = float(max(round(options.exposure_us / 100), 1))
    if options.gain is not None:
        settings[cv2.CAP_PROP_GAIN] = options.gain
    return settings


def _shape(options: CameraOptions) -> dict[int, float]:
    requested = {
        cv2.CAP_PROP_FRAME_WIDTH: options.width,
        cv2.CAP_PROP_FRAME_HEIGHT: options.height,
        cv2.CAP_PROP_FPS: options.fps,
    }
    return {number: float(value) for number, value in requested.items() if value is not None}


_LABELS: Final = {
    cv2.CAP_PROP_FOURCC: "pixel format",
    cv2.CAP_PROP_FRAME_WIDTH: "width",
    cv2.CAP_PROP_FRAME_HEIGHT: "height",
    cv2.CAP_PROP_FPS: "frames per second",
    cv2.CAP_PROP_EXPOSURE: "exposure in 100 microseconds",
    cv2.CAP_PROP_GAIN: "gain",
}


def _report_refusals(name: str, capture: cv2.VideoCapture, settings: dict[int, float]) -> None:
    refusals = [
        f"{_LABELS[number]} {_readable(number, value)}, got {_readable(number, got)}"
        for number, value in settings.items()
        if abs((got := capture.get(number)) - value) > 0.01 * abs(value)
    ]
    if refusals:
        log_refusal(name, "all options: " + "; ".join(refusals))


def _readable(number: int, value: float) -> str:
    if number != cv2.CAP_PROP_FOURCC:
        return f"{value:g}"
    return int(value).to_bytes(4, "little", signed=value < 0).decode("ascii", "replace").strip("\0 ") or "nothing"


class _Openings:
    """Counts the network streams being opened: FFmpeg reads its options from an environment variable of the process."""

    lock = threading.Lock()
    count = 0


@contextmanager
def _ffmpeg_options() -> Iterator[None]:
    """Set our FFmpeg options meanwhile, unless the user has set others."""
    with _Openings.lock:
        ours = _Openings.count > 0 or _FFMPEG_VARIABLE not in os.environ
        if ours:
            _Openings.count += 1
            os.environ[_FFMPEG_VARIABLE] = _FFMPEG_OPTIONS
    try:
        yield
    finally:
        if ours:
            with _Openings.lock:
                _Openings.count -= 1
                if _Openings.count == 0:
                    del os.environ[_FFMPEG_VARIABLE]

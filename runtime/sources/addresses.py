"""Turns the text of ``--camera`` into a camera."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from uflow_edge.runtime.errors import UsageError
from uflow_edge.runtime.sources.source import Source
from uflow_edge.runtime.text import printable, redacted

if TYPE_CHECKING:
    from uflow_edge.runtime.sources.camera import Camera

_NETWORK: Final = ("rtsp://", "rtsps://", "http://", "https://", "rtmp://", "srt://", "udp://")
_SYNTHETIC: Final = re.compile(r"synthetic:(?:(\d+)x(\d+))?(?:@(\d+(?:\.\d+)?))?", re.ASCII)
_FORMS: Final = (
    "expected 0, /dev/video0, csi://0, rtsp://…, http://…, gst:PIPELINE, genicam:SERIAL, synthetic:640x480 or a "
    "video file in place of a camera"
)


@dataclass(frozen=True, slots=True)
class CameraOptions:
    """Settings of a camera; None keeps the camera's own setting.

    Attributes:
        width, height: in pixels.
        fps: frames per second.
        pixel_format: four letters for V4L2 (``MJPG``, ``YUYV``), a PFNC name for GenICam (``BayerRG8``).
        exposure_us: exposure time in microseconds; switches automatic exposure off.
        gain: in the camera's own unit.
        buffers: number of frames that V4L2 buffers; use more than 1 if the camera misses frames during decoding.
        silence_s: a camera counts as lost after so many seconds without a frame; ``inf`` for a camera with a hardware
            trigger.
    """

    width: int | None = None
    height: int | None = None
    fps: float | None = None
    pixel_format: str | None = None
    exposure_us: float | None = None
    gain: float | None = None
    buffers: int = 1
    silence_s: float = 10.0

    def __post_init__(self) -> None:
        for field in ("width", "height", "exposure_us", "buffers", "silence_s"):
            value = getattr(self, field)
            if value is not None and not value > 0:
                raise UsageError(f"camera option {field}: expected a number above 0, got {value}")
        if self.fps is not None and not 0 <= self.fps < 1e4:
            raise UsageError(f"camera option fps: expected frames per second, 0 to 9999, got {self.fps}")
        if (self.width is None) != (self.height is None):
            raise UsageError("camera options width and height go together: give both or neither")


def parse_camera(
    text: str,
    options: CameraOptions = CameraOptions(),
    report: Callable[[str], None] = lambda message: None,
    *,
    number: int = 1,
) -> Source:
    """Create the camera that a text names; it is not opened yet.

    Args:
        text: an index, a device file, ``csi://0``, a URL, a GStreamer pipeline (``gst:…``, or anything with `` ! ``),
            ``genicam:SERIAL`` (``genicam:`` for the first one found), ``synthetic:WIDTHxHEIGHT@FPS``, or a video file
            in place of a camera.
        options: the camera's settings.
        report: told, once, what the camera did not take.
        number: if above 1, part of the camera's name.

    Raises:
        UsageError: the text has none of these forms.
        MissingDependency: OpenCV lacks GStreamer, or the extra ``genicam`` is not installed.
    """
    name, report = f"camera {redacted(printable(text))}", _once(report)
    if number > 1:
        name += f" ({number})"
    if text.lower().startswith(_NETWORK):
        return _network(name, text, options, report)
    if text.startswith("gst:") or " ! " in text:
        return _pipeline(name, _with_sink(text.removeprefix("gst:").strip()), options, report)
    if text.startswith("csi://"):
        return _pipeline(name, _csi_pipeline(text, options), options, report)
    if text.startswith("genicam:"):
        return _genicam(name, text, options, report)
    if text.startswith("synthetic:"):
        return _synthetic(text, options)
    if text.isascii() and text.isdecimal():
        return _v4l2(name, int(text), options, report)
    if text.startswith("/dev/"):
        return _v4l2(name, text, options, report)
    if "://" not in text and (Path(text).suffix or Path(text).is_file()):
        return _file(name, text, options)
    raise UsageError(f"{name} is unknown: {_FORMS}")


def _v4l2(name: str, device: int | str, options: CameraOptions, report: Callable[[str], None]) -> "Camera":
    from uflow_edge.runtime.sources.camera import Camera
    from uflow_edge.runtime.sources.opencv_capture import open_v4l2

    if options.pixel_format is not None and not (options.pixel_format.isascii() and len(options.pixel_format) == 4):
        raise UsageError(
            f"{name}: expected a pixel format of four letters, such as MJPG or YUYV, got {options.pixel_format}"
        )
    return Camera(name, lambda: open_v4l2(name, device, options, report), silence_s=options.silence_s)


def _pipeline(name: str, pipeline: str, options: CameraOptions, report: Callable[[str], None]) -> "Camera":
    from uflow_edge.runtime.sources.camera import Camera
    from uflow_edge.runtime.sources.opencv_capture import open_pipeline, require_gstreamer

    require_gstreamer(name)
    return Camera(name, lambda: open_pipeline(name, pipeline, options, report), silence_s=options.silence_s)


def _network(name: str, url: str, options: CameraOptions, report: Callable[[str], None]) -> "Camera":
    from uflow_edge.runtime.sources.camera import Camera
    from uflow_edge.runtime.sources.opencv_capture import open_network

    if url.lower() in _NETWORK:
        raise UsageError(f"{name} names no host: expected an address such as rtsp://camera.local/stream")
    try:
        urlsplit(url)
    except ValueError:  # its message may quote the password
        raise UsageError(f"{name} is not a valid URL: check brackets and special characters") from None
    return Camera(name, lambda: open_network(name, url, options, report), silence_s=options.silence_s)


def _file(name: str, path: str, options: CameraOptions) -> "Camera":
    from uflow_edge.runtime.sources.camera import Camera
    from uflow_edge.runtime.sources.opencv_capture import open_file

    return Camera(name, lambda: open_file(name, path), silence_s=options.silence_s, drained=False)


def _genicam(name: str, text: str, options: CameraOptions, report: Callable[[str], None]) -> "Camera":
    from uflow_edge.runtime.sources.camera import Camera
    from uflow_edge.runtime.sources.genicam import open_genicam, require_harvesters

    require_harvesters()
    serial = text.removeprefix("genicam:").strip()
    return Camera(name, lambda: open_genicam(name, serial, options, report), silence_s=options.silence_s)


def _synthetic(text: str, options: CameraOptions) -> Source:
    from uflow_edge.runtime.sources.synthetic import SyntheticCamera

    found = _SYNTHETIC.fullmatch(text)
    if not found:
        raise UsageError(f"camera {text!r}: expected synthetic:WIDTHxHEIGHT@FPS, such as synthetic:640x480@30")
    width, height, fps = found.groups()
    return SyntheticCamera(
        int(width) if width else options.width,
        int(height) if height else options.height,
        float(fps) if fps else 30.0 if options.fps is None else options.fps,
    )


def _csi_pipeline(text: str, options: CameraOptions) -> str:
    """The pipeline for a camera on a Jetson's CSI port; its image processor debayers and controls the exposure."""
    sensor = text.removeprefix("csi://")
    if not (sensor.isascii() and sensor.isdecimal()):
        raise UsageError(f"camera {redacted(text)!r}: expected the number of the sensor, such as csi://0")
    size = f"width={options.width or 1920}, height={options.height or 1080}"
    rate = f"framerate={round((options.fps or 30.0) * 1000)}/1000"
    exposure = ""
    if options.exposure_us is not None:
        nanoseconds = round(options.exposure_us * 1e3)
        exposure = f' exposuretimerange="{nanoseconds} {nanoseconds}"'
    return _with_sink(
        f"nvarguscamerasrc sensor-id={sensor}{exposure} ! video/x-raw(memory:NVMM), {size}, {rate}, format=NV12"
        " ! nvvidconv ! video/x-raw, format=BGRx"
    )


def _with_sink(pipeline: str) -> str:
    """Append a sink for OpenCV that keeps only the newest frame, unless the pipeline has a sink already."""
    if not pipeline:
        raise UsageError("gst: expected a pipeline, such as gst:v4l2src device=/dev/video0")
    if "appsink" in pipeline:
        return pipeline
    return f"{pipeline} ! videoconvert ! video/x-raw, format=BGR ! appsink drop=true max-buffers=1 sync=false"


def _once(report: Callable[[str], None]) -> Callable[[str], None]:
    told: set[str] = set()

    def tell(message: str) -> None:
        if message not in told:
            told.add(message)
            report(message)

    return tell

"""Turns the text of ``--camera`` into a camera."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from uflow_edge.runtime.errors import UsageError
from uflow_edge.runtime.sources.options import CameraOptions
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


def parse_camera(text: str, options: CameraOptions = CameraOptions(), *, number: int = 1) -> Source:
    """Create the camera that a text names; it is not opened yet.

    Args:
        text: an index, a device file, ``csi://0``, a URL, a GStreamer pipeline (``gst:…``, or anything with `` ! ``),
            ``genicam:SERIAL`` (``genicam:`` for the first one found), ``synthetic:WIDTHxHEIGHT@FPS``, or a video file
            in place of a camera.
        number: if above 1, part of the camera's name.

    Raises:
        UsageError: the text has none of these forms.
        MissingDependency: OpenCV lacks GStreamer, or the extra ``genicam`` is not installed.
    """
    name = f"camera {redacted(printable(text))}"
    if number > 1:
        name += f" ({number})"
    if text.lower().startswith(_NETWORK):
        return _network(name, text, options)
    if text.startswith("gst:") or " ! " in text:
        return _pipeline(name, _with_sink(text.removeprefix("gst:").strip()), options)
    if text.startswith("csi://"):
        return _pipeline(name, _csi_pipeline(text, options), options)
    if text.startswith("genicam:"):
        return _genicam(name, text, options)
    if text.startswith("synthetic:"):
        return _synthetic(text, options)
    if text.isascii() and text.isdecimal():
        return _v4l2(name, int(text), options)
    if text.startswith("/dev/"):
        return _v4l2(name, text, options)
    if "://" not in text and (Path(text).suffix or Path(text).is_file()):
        return _file(name, text, options)
    raise UsageError(f"{name} is unknown: {_FORMS}")


def _v4l2(name: str, device: int | str, options: CameraOptions) -> "Camera":
    from uflow_edge.runtime.sources.camera import Camera
    from uflow_edge.runtime.sources.opencv_capture import open_v4l2

    if options.pixel_format is not None and not (options.pixel_format.isascii() and len(options.pixel_format) == 4):
        raise UsageError(
            f"{name}: expected a pixel format of four letters, such as MJPG or YUYV, got {options.pixel_format}"
        )
    return Camera(name, lambda: open_v4l2(name, device, options), silence_s=options.silence_s)


def _pipeline(name: str, pipeline: str, options: CameraOptions) -> "Camera":
    from uflow_edge.runtime.sources.camera import Camera
    from uflow_edge.runtime.sources.opencv_capture import open_pipeline, require_gstreamer

    require_gstreamer(name)
    return Camera(name, lambda: open_pipeline(name, pipeline, options), silence_s=options.silence_s)


def _network(name: str, url: str, options: CameraOptions) -> "Camera":
    from uflow_edge.runtime.sources.camera import Camera
    from uflow_edge.runtime.sources.opencv_capture import open_network

    if url.lower() in _NETWORK:
        raise UsageError(f"{name} names no host: expected an address such as rtsp://camera.local/stream")
    try:
        urlsplit(url)
    except ValueError:  # its message may quote the password
        raise UsageError(f"{name} is not a valid URL: check brackets and special characters") from None
    return Camera(name, lambda: open_network(name, url, options), silence_s=options.silence_s)


def _file(name: str, path: str, options: CameraOptions) -> "Camera":
    from uflow_edge.runtime.sources.camera import Camera
    from uflow_edge.runtime.sources.opencv_capture import open_file

    return Camera(name, lambda: open_file(name, path), silence_s=options.silence_s, drained=False)


def _genicam(name: str, text: str, options: CameraOptions) -> "Camera":
    from uflow_edge.runtime.sources.camera import Camera
    from uflow_edge.runtime.sources.genicam import open_genicam, require_harvesters

    require_harvesters()
    serial = text.removeprefix("genicam:").strip()
    return Camera(name, lambda: open_genicam(name, serial, options), silence_s=options.silence_s)


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

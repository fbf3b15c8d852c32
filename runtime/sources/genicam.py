"""Industrial cameras (GigE Vision, USB3 Vision, CoaXPress) through GenICam and harvesters: extra ``genicam``.

The camera's maker supplies the driver, a GenTL producer (``*.cti``); the standard's environment variable
GENICAM_GENTL64_PATH lists the folders of all producers. Features have the names of the Standard Features Naming
Convention (SFNC), pixel formats those of the Pixel Format Naming Convention (PFNC).
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import cv2
import numpy as np

from uflow_edge.runtime.errors import MissingDependency, Unavailable, UsageError, require
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.sources.camera import Device
from uflow_edge.runtime.sources.clocks import DeviceClock
from uflow_edge.runtime.sources.options import CameraOptions, log_refusal

_EXTRA: Final = "genicam"
_PRODUCERS: Final = "GENICAM_GENTL64_PATH"
_WAIT_S: Final = 0.25

_CHANNELS_AND_CONVERSION: Final[dict[str, tuple[int, int | None]]] = {
    "Mono8": (1, cv2.COLOR_GRAY2BGR),
    "BGR8": (3, None),
    "RGB8": (3, cv2.COLOR_RGB2BGR),
    "BGRa8": (4, cv2.COLOR_BGRA2BGR),
    "RGBa8": (4, cv2.COLOR_RGBA2BGR),
    "BayerRG8": (1, cv2.COLOR_BayerRGGB2BGR),
    "BayerGR8": (1, cv2.COLOR_BayerGRBG2BGR),
    "BayerGB8": (1, cv2.COLOR_BayerGBRG2BGR),
    "BayerBG8": (1, cv2.COLOR_BayerBGGR2BGR),
    "YUV422_8": (2, cv2.COLOR_YUV2BGR_YUYV),
    "YCbCr422_8": (2, cv2.COLOR_YUV2BGR_YUYV),
    "YUV422_8_UYVY": (2, cv2.COLOR_YUV2BGR_UYVY),
}


def require_harvesters() -> ModuleType:
    """The module ``harvesters.core``.

    Raises:
        MissingDependency: the extra is not installed.
    """
    return require("harvesters.core", _EXTRA)


def producer_files() -> list[Path]:
    """All GenTL producers on this machine.

    Raises:
        MissingDependency: there is no producer.
    """
    folders = [Path(folder) for folder in os.environ.get(_PRODUCERS, "").split(os.pathsep) if folder]
    files = [file for folder in folders for file in sorted(folder.glob("*.cti"))]
    if not files:
        raise MissingDependency(
            f"no GenTL producer found: install the camera maker's software; {_PRODUCERS} must name its folder of *.cti "
            f"files, but is {os.environ.get(_PRODUCERS) or 'not set'}"
        )
    return files


def open_genicam(name: str, serial: str, options: CameraOptions) -> Device:
    """Open a camera by serial number, or the first one found, and apply the options.

    Raises:
        Unavailable: there is no such camera, or it is in use.
        MissingDependency: no producer is installed.
    """
    harvester = require_harvesters().Harvester()
    try:
        for file in producer_files():
            harvester.add_file(str(file))
        harvester.update()
        acquirer = _acquirer(harvester, name, serial)
        _configure(acquirer, name, options)
        return GenicamDevice(harvester, acquirer, name)
    except BaseException:
        harvester.reset()
        raise


class GenicamDevice:
    """A camera that acquires frames."""

    def __init__(self, harvester: Any, acquirer: Any, name: str) -> None:
        self._harvester, self._acquirer, self._name = harvester, acquirer, name
        self._lost, self._clock = _errors(), DeviceClock()
        self._unstamped: tuple[type[Exception], ...] = (*self._lost, AttributeError, TypeError)
        acquirer.start()

    def read(self) -> tuple[Image, float] | None:
        """The next complete frame; None if the device is gone.

        Raises:
            TimeoutError: no complete frame came in time.
            UsageError: the pixel format is not supported.
        """
        try:
            buffer = self._acquirer.try_fetch(timeout=_WAIT_S)
            if buffer is None:
                raise TimeoutError
            with buffer:
                return self._image(buffer), self._clock.captured(self._stamp_s(buffer), time.time())
        except self._lost:
            return None

    def release(self) -> None:
        for release in (self._acquirer.destroy, self._harvester.reset):
            with suppress(*self._lost):  # an unplugged camera cannot be stopped
                release()

    def _image(self, buffer: Any) -> Image:
        component = buffer.payload.components[0]
        try:
            return to_bgr(component.data, (component.height, component.width), component.data_format)
        except UsageError as error:
            raise UsageError(f"{self._name}: {error}") from error

    def _stamp_s(self, buffer: Any) -> float:
        try:
            return float(buffer.timestamp_ns) / 1e9
        except self._unstamped:  # a producer older than GenTL 1.5
            return float("nan")


def to_bgr(data: np.ndarray, size: tuple[int, int], pixel_format: str) -> Image:
    """Copy an image out of a buffer that the driver will overwrite.

    Args:
        data: uint8, all bytes of the image; its rows may be padded.
        size: (height, width).
        pixel_format: name by PFNC.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        UsageError: the pixel format is not supported.
    """
    if pixel_format not in _CHANNELS_AND_CONVERSION:
        known = ", ".join(_CHANNELS_AND_CONVERSION)
        raise UsageError(f"pixel format {pixel_format} is not supported; set the camera to one of {known}")
    channels, conversion = _CHANNELS_AND_CONVERSION[pixel_format]
    height, width = size
    rows = data[: data.size // height * height].reshape(height, -1)
    image = np.ascontiguousarray(rows[:, : width * channels].reshape(height, width, channels))
    return image.copy() if conversion is None else np.asarray(cv2.cvtColor(image, conversion), np.uint8)


def _acquirer(harvester: Any, name: str, serial: str) -> Any:
    serials = [str(info.property_dict.get("serial_number")) for info in harvester.device_info_list]
    if not serials or (serial and serial not in serials):
        raise Unavailable(
            f"{name} cannot be opened: is it connected, is no other program using it, and may you read it? "
            f"Found: {', '.join(serials) or 'none'}"
        )
    try:
        with _signals_kept():
            return harvester.create(serials.index(serial) if serial else 0)
    except _errors() as error:
        raise Unavailable(
            f"{name} cannot be opened ({error}): is no other program using it, and may you read it?"
        ) from error


def _configure(acquirer: Any, name: str, options: CameraOptions) -> None:
    features = acquirer.remote_device.node_map
    requested = {
        "PixelFormat": options.pixel_format,
        "Width": options.width,
        "Height": options.height,
        "ExposureTime": options.exposure_us,
        "Gain": options.gain,
        "AcquisitionFrameRate": options.fps,
    }
    needed: dict[str, tuple[str, object]] = {
        "ExposureTime": ("ExposureAuto", "Off"),
        "Gain": ("GainAuto", "Off"),
        "AcquisitionFrameRate": ("AcquisitionFrameRateEnable", True),
    }
    refused: tuple[type[Exception], ...] = (*_errors(), AttributeError, TypeError, ValueError)
    for feature, value in requested.items():
        if value is None:
            continue
        if feature in needed:
            switch, position = needed[feature]
            with suppress(*refused):  # a camera without the switch does not need it
                getattr(features, switch).value = position
        try:
            getattr(features, feature).value = value
        except refused as error:
            why = "it has no such feature" if isinstance(error, AttributeError) else str(error).strip()
            log_refusal(name, f"{feature} {value}: {why}")
    with suppress(*refused):  # not essential: the camera's thread empties the queue
        acquirer.data_streams[0].node_map.StreamBufferHandlingMode.value = "NewestOnly"


def _errors() -> tuple[type[Exception], ...]:
    """The base exceptions of GenTL and GenApi, on which harvesters depends."""
    return (require("genicam.gentl", _EXTRA).GenericException, require("genicam.genapi", _EXTRA).GenericException)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Restore our handler of Ctrl-C, which harvesters replaces when it runs in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

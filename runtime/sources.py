"""Where frames come from: image files, video files, cameras."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from uflow_edge.runtime.errors import BadInput, MissingDependency
from uflow_edge.runtime.images import find_images, read_image
from uflow_edge.runtime.numeric import Image


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture to inspect.

    Attributes:
        image_bgr: (H, W, 3) uint8.
        index: its number in the source, from 0, counting frames that could not be read.
        source: file, camera or stream.
        name: for files made from it: a relative path without suffix.
        captured: when it was there, seconds since the epoch.
    """

    image_bgr: Image
    index: int
    source: str
    name: Path
    captured: float


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file and the name, relative to the folder it was found in, for what is made from it."""

    path: Path
    name: Path


def image_files(paths: Sequence[Path]) -> list[ImageFile]:
    """List image files, those in folders recursively.

    Raises:
        BadInput: a path that does not exist, or a folder without images.
    """
    files = []
    for given in paths:
        for path in find_images([given]):
            name = path.relative_to(given) if given.is_dir() else Path(path.name)
            files.append(ImageFile(path, name.with_suffix("")))
    return files


def frames_of_images(files: Sequence[ImageFile], on_unreadable: Callable[[BadInput], None]) -> Iterator[Frame]:
    """Read image files one by one; what cannot be read is reported and skipped."""
    for index, file in enumerate(files):
        try:
            image = read_image(file.path)
        except BadInput as error:
            on_unreadable(error)
            continue
        yield Frame(np.asarray(image, np.uint8), index, str(file.path), file.name, time.time())


def frames_of_video(path: Path) -> Iterator[Frame]:
    """Frames of a video file, all of them, in order.

    Raises:
        BadInput: missing, or not a video that OpenCV can decode.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such video file")
    capture = cv2.VideoCapture(str(path))
    try:
        delivered = yield from _frames(capture, str(path))
        if not delivered:
            raise BadInput(f"{path}: OpenCV finds no video in this file")
    finally:
        capture.release()


def frames_of_camera(camera: str) -> Iterator[Frame]:
    """Frames of a camera until it stops delivering.

    Args:
        camera: an index (``0``) or a URL (``rtsp://…``).

    Raises:
        MissingDependency: it cannot be opened, or stops delivering.
    """
    capture = cv2.VideoCapture(int(camera)) if camera.isdecimal() else cv2.VideoCapture(camera)
    try:
        if not capture.isOpened():
            raise MissingDependency(
                f"camera {camera} cannot be opened: is it connected, and free, and may you read it?"
            )
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # an old frame is worse than a dropped one
        delivered = yield from _frames(capture, f"camera {camera}")
        raise MissingDependency(f"camera {camera} stopped delivering after {delivered} frames")
    finally:
        capture.release()


def _frames(capture: cv2.VideoCapture, source: str) -> Generator[Frame, None, int]:
    index = 0
    while True:
        there, image = capture.read()
        if not there:
            return index
        yield Frame(np.asarray(image, np.uint8), index, source, Path(f"frame-{index:06d}"), time.time())
        index += 1

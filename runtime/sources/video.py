"""A video file: every frame, in order."""

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.sources.opencv_capture import as_bgr
from uflow_edge.runtime.sources.source import Frame, numbered

logger = logging.getLogger(__name__)


class VideoFile:
    """Delivers every frame; the capture time is the time of opening plus the frame's position in the video.

    If a video ends before the number of frames in its header, it is truncated or damaged; this is reported once, after
    the last frame. A header without a number is not checked.
    """

    live: Final = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self.unreadable = 0

    @property
    def name(self) -> str:
        return str(self._path)

    def frames(self, stop: threading.Event, first: int = 0) -> Iterator[Frame]:
        """Frames from the start of the file, numbered from ``first``.

        Raises:
            BadInput: the file is missing, or OpenCV cannot decode it.
        """
        if not self._path.is_file():
            raise BadInput(f"{self._path}: no such video file")
        capture, started, index = cv2.VideoCapture(self.name), time.time(), first
        try:
            while not stop.is_set():
                there, image = capture.read()
                if not there:
                    break
                captured = started + capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
                yield Frame(as_bgr(np.asarray(image)), index, self.name, numbered(index), captured)
                index += 1
            if stop.is_set():
                return
            if index == first:
                raise BadInput(f"{self._path}: OpenCV finds no video in this file")
            claimed = round(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            if index - first < claimed:
                self.unreadable += 1
                logger.warning(
                    "unreadable: %(video)s: truncated or damaged: only %(read)d of the %(claimed)d frames that its "
                    "header claims could be read",
                    {"video": self._path, "read": index - first, "claimed": claimed},
                )
        finally:
            capture.release()

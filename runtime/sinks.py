"""Where verdicts go: lines of JSON, and pictures."""

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TextIO

import cv2

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.files import replacing
from uflow_edge.runtime.inspector import Inspection
from uflow_edge.runtime.overlay import draw_overlay
from uflow_edge.runtime.sources import Frame
from uflow_edge.runtime.verdict import Verdict

STDOUT = "-"


def open_lines(target: str | None) -> AbstractContextManager[TextIO | None]:
    """A text file for JSON lines, stdout for ``-``, nothing for None.

    Raises:
        BadInput: the file cannot be created.
    """
    if target is None:
        return nullcontext()
    if target == STDOUT:
        return nullcontext(sys.stdout)
    path = Path(target)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error})") from error


def write_line(verdict: Verdict, lines: TextIO) -> None:
    """Append a verdict as one line, whole and at once, so that a reader beside us never sees half of one."""
    lines.write(json.dumps(verdict.as_json()) + "\n")
    lines.flush()


class OverlayFolder:
    """Saves overlay pictures, named after the frames they show; never two under one name."""

    def __init__(self, folder: Path, channels: tuple[int, ...]) -> None:
        self._folder = folder
        self._channels = channels
        self._taken: set[Path] = set()

    def save(self, frame: Frame, inspection: Inspection) -> Path:
        """Draw and write one picture, PNG, and say where.

        Raises:
            BadInput: the folder cannot be written.
        """
        path = self._free_path(self._folder / frame.name)
        ok, encoded = cv2.imencode(".png", draw_overlay(frame.image_bgr, inspection, self._channels))
        assert ok, "OpenCV always encodes 8-bit PNG"
        try:
            with replacing(path) as temporary:
                temporary.write_bytes(encoded.tobytes())
        except OSError as error:
            raise BadInput(f"{path}: cannot be written ({error})") from error
        return path

    def _free_path(self, stem: Path) -> Path:
        candidate, number = stem.with_name(f"{stem.name}.png"), 1
        while candidate in self._taken:
            number += 1
            candidate = stem.with_name(f"{stem.name}-{number}.png")
        self._taken.add(candidate)
        return candidate

"""Pictures of results in a folder, whole or not there at all, within a quota of disk space."""

import errno
import os
import zlib
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import cv2

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.overlay import draw_overlay

if TYPE_CHECKING:
    from uflow_edge.runtime.inspection import Inspection
    from uflow_edge.runtime.sources import Frame

PictureFormat = Literal["png", "jpeg"]
_SUFFIXES: dict[PictureFormat, str] = {"png": ".png", "jpeg": ".jpg"}
_PARTIAL = ".partial-"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

# A comment in each picture tells ours from others, so that a quota never deletes what somebody else put there.
_TEXT = b"tEXtSoftware\0uflow-edge"
_PNG_MARK = (len(_TEXT) - 4).to_bytes(4, "big") + _TEXT + zlib.crc32(_TEXT).to_bytes(4, "big")
_AFTER_PNG_HEADER = 33
_JPEG_MARK = b"\xff\xfe" + (2 + len(b"uflow-edge")).to_bytes(2, "big") + b"uflow-edge"
_AFTER_JPEG_START = 2


class OverlayFolder:
    """Saves overlay pictures, named after the frames they show; never two under one name."""

    def __init__(
        self,
        folder: Path,
        channels: tuple[int, ...],
        *,
        anomalies_only: bool = False,
        picture_format: PictureFormat = "png",
        quota: int | None = None,
    ) -> None:
        """Make the folder, and remove the half pictures of a run that was killed.

        Args:
            folder: pictures of frames with a path for a name go to folders in it.
            channels: of the latents, per scale.
            anomalies_only: save no picture of a good part.
            picture_format: PNG is exact; JPEG (quality 90) is several times smaller and faster.
            quota: bytes that pictures of this and of earlier runs take at most, the oldest are deleted for new ones;
                default, no bound. Only pictures that this program saved are counted and deleted.

        Raises:
            BadInput: the folder cannot be written.
        """
        self.name: Final = str(folder)
        self._folder = folder
        self._channels = channels
        self._anomalies_only = anomalies_only
        self._format = picture_format
        self._quota = quota
        self._saved: _Ledger | None = None
        self._partial = folder / f"{_PARTIAL}{os.getpid()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for leftover in folder.glob(f"{_PARTIAL}*"):
                leftover.unlink(missing_ok=True)
            self._partial.touch()
            self._partial.unlink()
        except OSError as error:
            raise BadInput(f"{folder}: cannot be written ({error})") from error

    def needed(self, frame: "Frame", inspection: "Inspection") -> "tuple[Frame, Inspection] | None":
        """Everything, unless there is nothing to save."""
        return (frame, inspection) if self._wanted(inspection) else None

    def put(self, frame: "Frame", inspection: "Inspection") -> None:
        """Draw and save one picture.

        Raises:
            OSError: it cannot be saved now. When the disk is full and there is a quota, older pictures have made room
                for the next attempt.
            BadInput: the picture alone exceeds the quota.
        """
        if not self._wanted(inspection):
            return
        picture = encode(draw_overlay(frame.image_bgr, inspection, self._channels), self._format)
        if self._quota is None:
            self._write(picture, self._folder / frame.name)
            return
        if len(picture) > self._quota:
            raise BadInput(
                f"{self.name}: a picture of {len(picture)} bytes exceeds the quota of {self._quota}: raise it"
            )
        if self._saved is None:
            self._saved = _Ledger(self._folder)
        self._saved.shrink(self._quota - len(picture))
        try:
            path = self._write(picture, self._folder / frame.name)
        except OSError as error:
            if error.errno in _DISK_FULL:
                self._saved.shrink(self._saved.bytes - len(picture))
            raise
        self._saved.add(path, len(picture))

    def close(self) -> None:
        """Nothing is held open."""

    def _wanted(self, inspection: "Inspection") -> bool:
        return inspection.verdict.anomalous or not self._anomalies_only

    def _write(self, picture: bytes, stem: Path) -> Path:
        """One name for all unfinished pictures, so that a leftover is known as one. Raises OSError."""
        try:
            self._partial.write_bytes(picture)
            stem.parent.mkdir(parents=True, exist_ok=True)
            path = _free_path(stem, _SUFFIXES[self._format])
            self._partial.replace(path)
        except OSError:
            self._partial.unlink(missing_ok=True)
            raise
        return path


class _Ledger:
    """Our pictures in a folder and in those below it, the oldest first."""

    def __init__(self, folder: Path) -> None:
        found = [path for path in folder.rglob("*") if path.suffix in _SUFFIXES.values() and is_ours(path)]
        dated = sorted((path.stat().st_mtime_ns, path) for path in found)
        self._pictures = deque((path, path.stat().st_size) for _, path in dated)
        self.bytes = sum(size for _, size in self._pictures)

    def add(self, path: Path, size: int) -> None:
        """Note a new picture."""
        self._pictures.append((path, size))
        self.bytes += size

    def shrink(self, limit: int) -> None:
        """Delete the oldest until the rest takes at most ``limit`` bytes. Raises OSError."""
        while self._pictures and self.bytes > limit:
            path, size = self._pictures[0]
            path.unlink(missing_ok=True)
            self._pictures.popleft()
            self.bytes -= size


def encode(picture_bgr: Image, picture_format: PictureFormat) -> bytes:
    """(H, W, 3) uint8 as a PNG or JPEG file that says which program made it."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 90] if picture_format == "jpeg" else []
    ok, encoded = cv2.imencode(_SUFFIXES[picture_format], picture_bgr, options)
    assert ok, "OpenCV always encodes 8-bit pictures"
    plain = encoded.tobytes()
    mark, at = (_PNG_MARK, _AFTER_PNG_HEADER) if picture_format == "png" else (_JPEG_MARK, _AFTER_JPEG_START)
    return plain[:at] + mark + plain[at:]


def is_ours(path: Path) -> bool:
    """Whether this program saved that picture."""
    with path.open("rb") as file:
        start = file.read(_AFTER_PNG_HEADER + len(_PNG_MARK))
    return start[_AFTER_PNG_HEADER:] == _PNG_MARK or start[_AFTER_JPEG_START:].startswith(_JPEG_MARK)


def _free_path(stem: Path, suffix: str) -> Path:
    candidate, number = stem.with_name(f"{stem.name}{suffix}"), 1
    while candidate.exists():
        number += 1
        candidate = stem.with_name(f"{stem.name}-{number}{suffix}")
    return candidate

"""Pictures of results in a folder, whole or not there at all, within a quota of disk space."""

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import cv2

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.overlay import draw_overlay
from uflow_edge.runtime.sinks import Provenance, Undeliverable
from uflow_edge.runtime.sinks.claims import Claim
from uflow_edge.runtime.sinks.marks import SUFFIXES, PictureFormat, encode, is_ours
from uflow_edge.runtime.sinks.names import safe_path, short_name
from uflow_edge.runtime.storage.files import ERRORS_OF_ONE_FILE
from uflow_edge.runtime.storage.strict_json import to_json

if TYPE_CHECKING:
    from uflow_edge.runtime.inspection import Inspection
    from uflow_edge.runtime.sources import Frame

_PARTIAL = ".partial-"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


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
        provenance: Provenance | None = None,
    ) -> None:
        """Make the folder, and remove the half pictures of a run that was killed.

        Args:
            folder: pictures of frames with a path for a name go to folders in it.
            channels: of the latents, per scale.
            anomalies_only: save no picture of a good part.
            picture_format: PNG is exact; JPEG (quality 90) is several times smaller and faster.
            quota: bytes that pictures of this and of earlier runs take at most, the oldest are deleted for new ones;
                default, no bound. Only pictures that this program saved are counted and deleted.
            provenance: of the bundle; every picture's comment says it, beside the frame.

        Raises:
            BadInput: the folder cannot be written; or there is a quota, and another process writes there.
        """
        self.name: Final = str(folder)
        self._folder = folder
        self._channels = channels
        self._anomalies_only = anomalies_only
        self._format = picture_format
        self._quota = quota
        self._provenance = provenance
        self._saved: _Ledger | None = None
        self._partial = folder / f"{_PARTIAL}{os.getpid()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._claim = Claim(folder, shared=quota is None)
            if self._claim.renew():
                for leftover in folder.glob(f"{_PARTIAL}*"):
                    leftover.unlink(missing_ok=True)
            self._partial.touch()
            self._partial.unlink()
        except OSError as error:
            raise BadInput(f"{folder}: cannot be written ({error})") from error

    def needed(self, frame: "Frame", inspection: "Inspection") -> "tuple[Frame, Inspection] | None":
        """Everything, unless there is nothing to save."""
        return (frame, inspection) if self._wanted(inspection) else None

    def earlier(self) -> str:
        """A sentence about pictures of earlier runs; empty where there are none."""
        count = sum(1 for _ in _pictures(self._folder))
        more = "are added; where a name is taken, a number is appended, as in part-2"
        return f"{self.name} holds {count} pictures already; new ones {more}" if count else ""

    def put(self, frame: "Frame", inspection: "Inspection") -> None:
        """Draw and save one picture.

        Raises:
            OSError: it cannot be saved now. When the disk is full and there is a quota, older pictures have made room
                for the next attempt.
            Undeliverable: this picture cannot be saved, whatever name it gets, or it alone exceeds the quota.
        """
        if not self._wanted(inspection):
            return
        try:
            drawn = draw_overlay(frame.image_bgr, inspection, self._channels)
            comment = {"source": frame.source, "frame": frame.index, **(self._provenance or {})}
            picture = encode(drawn, self._format, to_json(comment))
        except cv2.error as error:
            raise Undeliverable(f"{self.name}: {frame.source} cannot be drawn ({error.err})") from error
        if self._quota is None:
            self._write(picture, frame)
            return
        if len(picture) > self._quota:
            raise Undeliverable(
                f"{self.name}: a picture of {len(picture)} bytes exceeds the quota of {self._quota}: raise it"
            )
        if self._saved is None:
            self._saved = _Ledger(self._folder)
        self._saved.shrink(self._quota - len(picture))
        try:
            path = self._write(picture, frame)
        except OSError as error:
            if error.errno in _DISK_FULL:
                self._saved.shrink(self._saved.bytes - len(picture))
            raise
        self._saved.add(path, len(picture))

    def close(self) -> None:
        """Nothing is held open."""

    def _wanted(self, inspection: "Inspection") -> bool:
        return inspection.verdict.anomalous or not self._anomalies_only

    def _write(self, picture: bytes, frame: "Frame") -> Path:
        """One name for all unfinished pictures, so that a leftover is known as one. Raises as `put` does."""
        try:
            try:
                self._partial.write_bytes(picture)
            except OSError as error:
                if error.errno == errno.EFBIG:
                    raise Undeliverable(f"{self.name}: the picture of {frame.source} is too large here") from error
                raise
            return self._name_it(frame)
        finally:
            with suppress(OSError):
                self._partial.unlink(missing_ok=True)

    def _name_it(self, frame: "Frame") -> Path:
        wanted, short = safe_path(frame.name), short_name(frame.name)
        for stem in (wanted, wanted.with_name(short), Path(short)):
            try:
                (self._folder / stem).parent.mkdir(parents=True, exist_ok=True)
                path = _free_path(self._folder / stem, SUFFIXES[self._format])
                self._partial.replace(path)
            except OSError as error:
                if error.errno not in ERRORS_OF_ONE_FILE:
                    raise
                trouble = error
            else:
                return path
        raise Undeliverable(
            f"{self.name}: the picture of {frame.source} cannot be saved ({trouble.strerror}: {trouble.filename})"
        )


class _Ledger:
    """Our pictures in a folder and in those below it, the oldest first."""

    def __init__(self, folder: Path) -> None:
        dated = sorted((about.st_mtime_ns, path, about.st_size) for path, about in _pictures(folder) if is_ours(path))
        self._pictures = deque((path, size) for _, path, size in dated)
        self.bytes = sum(size for _, size in self._pictures)

    def add(self, path: Path, size: int) -> None:
        """Note a new picture."""
        self._pictures.append((path, size))
        self.bytes += size

    def shrink(self, limit: int) -> None:
        """Delete the oldest until the rest takes at most ``limit`` bytes. Raises OSError."""
        while self._pictures and self.bytes > limit:
            path, size = self._pictures[0]
            with suppress(IsADirectoryError, NotADirectoryError, PermissionError):  # others put something in its place
                path.unlink(missing_ok=True)
            self._pictures.popleft()
            self.bytes -= size


def _pictures(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Regular files that may be pictures, in a folder and in those below it; links, pipes and folders are none."""
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names if Path(name).suffix in SUFFIXES.values()):
            with suppress(OSError):  # it has vanished
                about = path.lstat()
                if stat.S_ISREG(about.st_mode):
                    yield path, about


def _free_path(stem: Path, suffix: str) -> Path:
    candidate, number = stem.with_name(f"{stem.name}{suffix}"), 1
    while os.path.lexists(candidate):
        number += 1
        candidate = stem.with_name(f"{stem.name}-{number}{suffix}")
    return candidate

"""Saves pictures of results to a folder, complete files only, within a quota of disk space."""

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import cv2

from uflow_edge.runtime.errors import ERRORS_OF_ONE_FILE, BadInput
from uflow_edge.runtime.heat import HeatMap
from uflow_edge.runtime.overlay import draw_overlay
from uflow_edge.runtime.sinks import Provenance, Undeliverable
from uflow_edge.runtime.sinks.claims import Claim
from uflow_edge.runtime.sinks.marks import SUFFIXES, PictureFormat, encode, is_ours
from uflow_edge.runtime.sinks.names import safe_path, short_name
from uflow_edge.runtime.storage.strict_json import to_json

if TYPE_CHECKING:
    from uflow_edge.runtime.inspection import Inspection
    from uflow_edge.runtime.sources import Frame

_PARTIAL = ".partial-"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class OverlayFolder:
    """Saves pictures of frames with heat map and outlines, named after the frames; it never overwrites a file."""

    def __init__(
        self,
        folder: Path,
        channels: tuple[int, ...],
        *,
        anomalies_only: bool = False,
        picture_format: PictureFormat = "png",
        heat_map: HeatMap = "nfa",
        quota: int | None = None,
        provenance: Provenance | None = None,
    ) -> None:
        """Create the folder, and remove the partial files of a run that was killed.

        Args:
            folder: the folder for the pictures; a frame whose name is a path gets a subfolder.
            channels: channels of the latents, per scale.
            picture_format: PNG is lossless; JPEG (quality 90) is several times smaller and faster.
            heat_map: what the colours show; see `overlay.draw_maps`.
            quota: limit in bytes for the pictures of this and earlier runs; the oldest are deleted to make room. None
                for no limit. Only pictures that this program saved are counted and deleted.
            provenance: if given, each picture's comment names the bundle, besides the frame.

        Raises:
            BadInput: the folder cannot be written, or there is a quota and another process writes there.
        """
        self.name: Final = str(folder)
        self._folder = folder
        self._channels = channels
        self._anomalies_only = anomalies_only
        self._format = picture_format
        self._heat_map: HeatMap = heat_map
        self._quota = quota
        self._provenance = provenance
        self._saved: _SavedPictures | None = None
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
        """Needs the whole result, or nothing if no picture is saved."""
        return (frame, inspection) if self._wanted(inspection) else None

    def earlier(self) -> str:
        """A sentence about the pictures of earlier runs; empty if there are none."""
        count = sum(1 for _ in _pictures(self._folder))
        more = "are added; if a name exists already, a number is appended, as in part-2"
        return f"{self.name} already holds {count} pictures; new ones {more}" if count else ""

    def put(self, frame: "Frame", inspection: "Inspection") -> None:
        """Draw and save one picture.

        Raises:
            OSError: the picture cannot be saved now. If the disk is full and there is a quota, older pictures have
                been deleted to make room for the next attempt.
            Undeliverable: the picture cannot be saved under any name, or it alone exceeds the quota.
        """
        if not self._wanted(inspection):
            return
        try:
            drawn = draw_overlay(frame.image_bgr, inspection, self._channels, self._heat_map)
            comment = {"source": frame.source, "frame": frame.index, **(self._provenance or {})}
            picture = encode(drawn, self._format, to_json(comment))
        except cv2.error as error:
            raise Undeliverable(f"{self.name}: {frame.source} cannot be drawn ({error.err})") from error
        if self._quota is None:
            self._write(picture, frame)
            return
        if len(picture) > self._quota:
            raise Undeliverable(
                f"{self.name}: a picture of {len(picture)} bytes exceeds the quota of {self._quota}: raise the quota"
            )
        if self._saved is None:
            self._saved = _SavedPictures(self._folder)
        self._saved.shrink(self._quota - len(picture))
        try:
            path = self._write(picture, frame)
        except OSError as error:
            if error.errno in _DISK_FULL:
                self._saved.shrink(self._saved.bytes - len(picture))
            raise
        self._saved.add(path, len(picture))

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def _wanted(self, inspection: "Inspection") -> bool:
        return inspection.verdict.anomalous or not self._anomalies_only

    def _write(self, picture: bytes, frame: "Frame") -> Path:
        """Write to a fixed temporary name first, so that partial files can be recognised. Raises as `put` does."""
        try:
            try:
                self._partial.write_bytes(picture)
            except OSError as error:
                if error.errno == errno.EFBIG:
                    raise Undeliverable(
                        f"{self.name}: the picture of {frame.source} is too large for this file system"
                    ) from error
                raise
            return self._rename(frame)
        finally:
            with suppress(OSError):
                self._partial.unlink(missing_ok=True)

    def _rename(self, frame: "Frame") -> Path:
        wanted, short = safe_path(frame.name), short_name(frame.name)
        for stem in (wanted, wanted.with_name(short), Path(short)):
            try:
                (self._folder / stem).parent.mkdir(parents=True, exist_ok=True)
                path = _free_path(self._folder / stem, SUFFIXES[self._format])
                self._partial.replace(path)
            except OSError as error:
                if error.errno not in ERRORS_OF_ONE_FILE:
                    raise
                last_error = error
            else:
                return path
        raise Undeliverable(
            f"{self.name}: the picture of {frame.source} cannot be saved ({last_error.strerror}: {last_error.filename})"
        )


class _SavedPictures:
    """The pictures that this program saved to a folder and its subfolders, oldest first."""

    def __init__(self, folder: Path) -> None:
        dated = sorted((about.st_mtime_ns, path, about.st_size) for path, about in _pictures(folder) if is_ours(path))
        self._pictures = deque((path, size) for _, path, size in dated)
        self.bytes = sum(size for _, size in self._pictures)

    def add(self, path: Path, size: int) -> None:
        self._pictures.append((path, size))
        self.bytes += size

    def shrink(self, limit: int) -> None:
        """Delete the oldest pictures until the rest takes at most ``limit`` bytes. Raises OSError."""
        while self._pictures and self.bytes > limit:
            path, size = self._pictures[0]
            with suppress(IsADirectoryError, NotADirectoryError, PermissionError):  # replaced by another program
                path.unlink(missing_ok=True)
            self._pictures.popleft()
            self.bytes -= size


def _pictures(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Regular files with the suffix of a picture, in a folder and its subfolders; no links, pipes or folders."""
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

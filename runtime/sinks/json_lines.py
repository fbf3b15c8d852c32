"""Verdicts as lines of JSON (jsonlines.org): a log that only ever grows by whole lines and never fills the disk."""

import errno
import json
import mmap
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from uflow_edge.runtime.errors import BadInput, ExitCode, UflowEdgeError, UsageError
from uflow_edge.runtime.sinks import Provenance, about, verdict_only
from uflow_edge.runtime.sinks.claims import Claim
from uflow_edge.runtime.storage.strict_json import to_json

if TYPE_CHECKING:
    from uflow_edge.runtime.inspection import Inspection
    from uflow_edge.runtime.sources import Frame
    from uflow_edge.runtime.verdict import Verdict

STANDARD_OUTPUT = "-"
_OUR_START = b'{"frame": '
_OUR_LINE = re.compile(rb'\s*\{\s*"frame"\s*:\s*\d')
_LONGEST_START = 64


class ReaderLeft(UflowEdgeError, BrokenPipeError):
    """Whoever read our standard output has left, as ``head`` does: no fault of ours, and no reason to go on."""

    exit_code = ExitCode.OK


def json_line(verdict: "Verdict", more: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """The verdict, and more fields if there are some, as one line of UTF-8, newline included."""
    return to_json({**verdict.as_json(), **more}).encode() + b"\n"


def open_json_lines(
    target: str, *, max_bytes: int = 100 << 20, files: int = 10, provenance: Provenance | None = None
) -> "JsonLines | JsonLinesToStandardOutput":
    """The sink that ``--json`` names: ``-`` is standard output, anything else a `JsonLines` file.

    Raises:
        BadInput, UsageError: see `JsonLines`.
    """
    if target == STANDARD_OUTPUT:
        return JsonLinesToStandardOutput(provenance)
    return JsonLines(Path(target), max_bytes=max_bytes, files=files, provenance=provenance)


class _VerdictSink:
    """What both have in common."""

    def __init__(self, provenance: Provenance | None) -> None:
        self._provenance = provenance

    def needed(self, frame: "Frame", inspection: "Inspection") -> "tuple[Frame, Inspection]":
        """The verdict and its mask."""
        return verdict_only(frame, inspection, mask=True)

    def earlier(self) -> str:
        """A sentence about results of earlier runs; empty where there are none."""
        return ""

    def close(self) -> None:
        """Nothing is held open."""

    def _line(self, frame: "Frame", inspection: "Inspection") -> bytes:
        return json_line(inspection.verdict, about(frame, self._provenance))


class JsonLines(_VerdictSink):
    """Appends a line a verdict to a file; a full file becomes ``<name>.1``, that one ``<name>.2``, and so on.

    A line goes to the file in one write, and one that the disk has no room for is taken back: readers beside us and
    whoever comes after a SIGKILL find whole lines. (When the process is killed inside the write, the kernel itself can
    cut a line short where it crosses a page; opening the file again mends that, like the traces of a power cut.)

    The file is opened for each line, a matter of 20 µs: it may be renamed or deleted by others at any time.
    """

    def __init__(
        self, path: Path, *, max_bytes: int = 100 << 20, files: int = 10, provenance: Provenance | None = None
    ) -> None:
        """Make the folder, claim the file, and mend what a crash left.

        Args:
            path: the file to append to; made when absent.
            max_bytes: size of a file; only a single line that is longer by itself makes a larger one.
            files: kept at most, the one being written included; the oldest is deleted for a new one.
            provenance: of the bundle; then every line says it, and the name of the frame.

        Raises:
            BadInput: the file cannot be written, it or a file that it was rotated to is not a log of verdicts, or
                another process writes to it.
            UsageError: a bound below 1.
        """
        if max_bytes < 1 or files < 1:
            raise UsageError(f"{path}: a log needs at least 1 byte and 1 file, not {max_bytes} and {files}")
        super().__init__(provenance)
        self.name: Final = str(path)
        self._path = path
        self._max_bytes = max_bytes
        self._files = files
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab"):
                pass
            self._claim = Claim(path)
            mend(path)
            for number in range(1, files + 1):
                _check_ours(self._old(number))
        except OSError as error:
            raise BadInput(f"{path}: cannot be written ({error})") from error
        self._whole = True

    def earlier(self) -> str:
        """How many lines of earlier runs there are; empty where there are none."""
        if not _size(self._path):
            return ""
        with self._path.open("rb") as file:
            count = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
        return f"appending to {self.name}, which holds {count} lines"

    def put(self, frame: "Frame", inspection: "Inspection") -> None:
        """Append one line.

        Raises:
            OSError: it cannot be written now; nothing of it is in the file.
        """
        line = self._line(frame, inspection)
        if not self._whole:
            mend(self._path)
        self._whole = False
        size = _size(self._path)
        if size and size + len(line) > self._max_bytes:
            self._rotate()
        _append(self._path, line)
        self._whole = True
        with suppress(FileNotFoundError):
            self._claim.renew()  # the file may be new: rotated by us, or taken away by others

    def _rotate(self) -> None:
        """Free the file's name. A run that is killed in here leaves a gap in the numbers, which the next one fills."""
        last = self._files - 1
        if last == 0:
            self._path.unlink()
            return
        free = next((number for number in range(1, last) if not self._old(number).exists()), last)
        for number in range(free, 1, -1):
            self._old(number - 1).replace(self._old(number))
        self._path.replace(self._old(1))
        surplus = self._files
        while self._old(surplus).exists():  # from a time when more files were kept
            self._old(surplus).unlink()
            surplus += 1

    def _old(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


class JsonLinesToStandardOutput(_VerdictSink):
    """Writes a line a verdict to standard output."""

    name: Final = "standard output"

    def __init__(self, provenance: Provenance | None = None) -> None:
        super().__init__(provenance)

    def put(self, frame: "Frame", inspection: "Inspection") -> None:
        """Write one line, at once.

        Raises:
            ReaderLeft: nobody reads any more.
        """
        try:
            sys.stdout.buffer.write(self._line(frame, inspection))
            sys.stdout.buffer.flush()
        except BrokenPipeError as error:
            raise ReaderLeft("nobody reads standard output any more") from error


def mend(path: Path) -> None:
    """Complete or cut off a half line that a crash left at the end of a log; does nothing to a whole one.

    Raises:
        BadInput: this is not a log of verdicts; it stays as it is.
        OSError: the file cannot be read or written.
    """
    if _size(path) == 0:
        return
    with path.open("r+b") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            end = content.rfind(b"\n") + 1
            half = content[end:]
        torn = half.rstrip(b"\0")  # a power cut can leave zeros
        if not (_OUR_LINE.match(torn) or _OUR_START.startswith(torn)):
            raise BadInput(f"{path}: not a log of verdicts, for it ends in {half[:20]!r}; name another file")
        if end:
            _check_ours(path)
        if _is_json(half):
            file.seek(0, os.SEEK_END)
            file.write(b"\n")
        elif half:
            file.truncate(end)


def _check_ours(path: Path) -> None:
    """Raises BadInput for a file whose first line is no verdict, OSError for one that cannot be read."""
    if _size(path) == 0:
        return
    with path.open("rb") as file:
        start = file.read(_LONGEST_START)
    if not _OUR_LINE.match(start):
        raise BadInput(f"{path}: not a log of verdicts, for it begins with {start[:20]!r}; name another file")


def _append(path: Path, line: bytes) -> None:
    with path.open("ab", buffering=0) as file:
        before = os.fstat(file.fileno()).st_size
        written = file.write(line)
        if written < len(line):
            file.truncate(before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _size(path: Path) -> int:
    """Bytes in a file; 0 for one that is absent or is a device or a pipe."""
    return path.stat().st_size if path.is_file() else 0


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True

"""Verdicts as JSON lines (jsonlines.org): a log of whole lines only, of bounded size."""

import errno
import json
import mmap
import os
import re
import stat
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
    """The reader of standard output has ended, as ``head`` does: not an error, but the run ends."""

    exit_code = ExitCode.OK


def json_line(verdict: "Verdict", more: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """The verdict and further fields as one line of UTF-8 JSON with its newline."""
    return to_json({**verdict.as_json(), **more}).encode() + b"\n"


def open_json_lines(
    target: str, *, max_bytes: int = 100 << 20, files: int = 10, provenance: Provenance | None = None
) -> "JsonLines | JsonLinesToStandardOutput":
    """The sink that ``--jsonl`` names: ``-`` is standard output, anything else a `JsonLines` file.

    Raises:
        BadInput, UsageError: see `JsonLines`.
    """
    if target == STANDARD_OUTPUT:
        return JsonLinesToStandardOutput(provenance)
    return JsonLines(Path(target), max_bytes=max_bytes, files=files, provenance=provenance)


class _VerdictSink:
    """Common to both kinds of target."""

    def __init__(self, provenance: Provenance | None) -> None:
        self._provenance = provenance

    def needed(self, frame: "Frame", inspection: "Inspection") -> "tuple[Frame, Inspection]":
        return verdict_only(frame, inspection, mask=True)

    def earlier(self) -> str:
        """A sentence about the results of earlier runs; empty if there are none."""
        return ""

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def _line(self, frame: "Frame", inspection: "Inspection") -> bytes:
        return json_line(inspection.verdict, about(frame, self._provenance))


class JsonLines(_VerdictSink):
    """Appends one line per verdict to a file; a full file becomes ``<name>.1``, that one ``<name>.2``, and so on.

    A line is written in one call, and removed again if the disk is full, so readers find whole lines, even after
    SIGKILL. (If the process is killed during the write, the kernel may cut a line short at a page boundary; the next
    start repairs this, as it does after a power cut.)

    The file is opened for each line, which takes 20 µs, so other programs may rename or delete it at any time.
    """

    def __init__(
        self, path: Path, *, max_bytes: int = 100 << 20, files: int = 10, provenance: Provenance | None = None
    ) -> None:
        """Create the folder, lock the file, and repair the file after a crash.

        Args:
            path: the file to append to; created if absent.
            max_bytes: maximum size of a file; a file exceeds it only if a single line does.
            files: maximum number of files, including the current one; the oldest is deleted to make room.
            provenance: if given, every line names the bundle and the frame.

        Raises:
            BadInput: the file cannot be written, it or one of its rotated files is not a log of verdicts, or another
                process writes to it.
            UsageError: a limit below 1.
        """
        if max_bytes < 1 or files < 1:
            raise UsageError(f"{path}: expected at least 1 byte and 1 file for a log, got {max_bytes} and {files}")
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
            repair(path)
            for number in range(1, files + 1):
                _check_ours(self._old(number))
        except OSError as error:
            raise BadInput(f"{path}: cannot be written ({error})") from error
        self._whole = True

    def earlier(self) -> str:
        """A sentence with the number of lines of earlier runs; empty if there are none."""
        if not _size(self._path):
            return ""
        with self._path.open("rb") as file:
            count = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
        return f"appending to {self.name}, which holds {count} lines"

    def put(self, frame: "Frame", inspection: "Inspection") -> None:
        """Append one line.

        Raises:
            OSError: the line cannot be written now; no part of it is in the file.
        """
        line = self._line(frame, inspection)
        if not self._whole:
            repair(self._path)
        self._whole = False
        size = _size(self._path)
        if size and size + len(line) > self._max_bytes:
            self._rotate()
        _append(self._path, line)
        self._whole = True
        with suppress(FileNotFoundError):
            self._claim.renew()  # the file may be new: rotated by us, or removed by another program

    def _rotate(self) -> None:
        """Free the file's name. If the run is killed here, the numbers have a gap, which the next rotation fills."""
        last = self._files - 1
        if last == 0:
            self._path.unlink()
            return
        free = next((number for number in range(1, last) if not self._old(number).exists()), last)
        for number in range(free, 1, -1):
            self._old(number - 1).replace(self._old(number))
        self._path.replace(self._old(1))
        surplus = self._files
        while self._old(surplus).exists():  # an earlier run kept more files
            self._old(surplus).unlink()
            surplus += 1

    def _old(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


class JsonLinesToStandardOutput(_VerdictSink):
    """Writes one line per verdict to standard output."""

    name: Final = "standard output"

    def __init__(self, provenance: Provenance | None = None) -> None:
        super().__init__(provenance)

    def put(self, frame: "Frame", inspection: "Inspection") -> None:
        """Write one line and flush it.

        Raises:
            ReaderLeft: the reader has closed the pipe.
        """
        try:
            sys.stdout.buffer.write(self._line(frame, inspection))
            sys.stdout.buffer.flush()
        except BrokenPipeError as error:
            raise ReaderLeft("the reader of standard output has closed it") from error


def repair(path: Path) -> None:
    """Complete or remove a partial line at the end of a log, as a crash leaves it; keep a complete one.

    Raises:
        BadInput: the file is not a log of verdicts; it stays unchanged.
        OSError: the file cannot be read or written.
    """
    if _size(path) == 0:
        return
    with path.open("r+b") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            end = content.rfind(b"\n") + 1
            partial = content[end:]
        text = partial.rstrip(b"\0")  # a power cut can leave zeros
        if not (_OUR_LINE.match(text) or _OUR_START.startswith(text)):
            raise BadInput(f"{path}: not a log of verdicts, because it ends with {partial[:20]!r}; choose another file")
        if end:
            _check_ours(path)
        if _is_json(partial):
            file.seek(0, os.SEEK_END)
            file.write(b"\n")
        elif partial:
            file.truncate(end)


def _check_ours(path: Path) -> None:
    """Raise BadInput if the first line of the file is not a verdict, OSError if it cannot be read."""
    if _size(path) == 0:
        return
    with path.open("rb") as file:
        start = file.read(_LONGEST_START)
    if not _OUR_LINE.match(start):
        raise BadInput(f"{path}: not a log of verdicts, because it begins with {start[:20]!r}; choose another file")


def _append(path: Path, line: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        before = os.fstat(descriptor).st_size
        if os.write(descriptor, line) < len(line):
            os.ftruncate(descriptor, before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    finally:
        os.close(descriptor)


def _size(path: Path) -> int:
    """Size of a file in bytes; 0 if it is absent, a device or a pipe."""
    try:
        about = path.stat()
    except FileNotFoundError:
        return 0
    return about.st_size if stat.S_ISREG(about.st_mode) else 0


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True

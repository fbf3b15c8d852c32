"""The log of a command: plain lines that leave progress bars whole, or one JSON object per line.

Modules log with ``logging.getLogger(__name__)``. Named values of a message, as in
``logger.warning("%(camera)s is back", {"camera": name})``, become fields of the JSON object.
"""

import logging
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Final, Literal, TextIO

from tqdm import tqdm

from uflow_edge.runtime.cli.process import discard
from uflow_edge.runtime.storage.strict_json import finite, to_json
from uflow_edge.runtime.text import printable, redacted

LogFormat = Literal["text", "json"]

progress_logger: Final = logging.getLogger("uflow_edge.progress")
_PACKAGE: Final = logging.getLogger("uflow_edge")


class LogHandler(logging.Handler):
    """Writes errors and progress to stderr, and other records to the command's stream; JSON goes to stderr only."""

    def __init__(self, stream: Literal["stdout", "stderr"]) -> None:
        super().__init__()
        self._stream = stream
        self._format: LogFormat = "text"
        self._verbose = False

    def use(self, log_format: LogFormat, *, verbose: bool) -> None:
        """Set the format, and whether debug records and tracebacks are shown."""
        self._format, self._verbose = log_format, verbose
        _PACKAGE.setLevel(logging.DEBUG if verbose else logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        trace = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info and self._verbose else ""
        if self._format == "json":
            print_beside_bar(_as_json(record, redacted(trace)), sys.stderr)
            return
        on_stderr = self._stream == "stderr" or record.levelno >= logging.ERROR or record.name == progress_logger.name
        print_beside_bar(record.getMessage(), sys.stderr if on_stderr else sys.stdout)
        if trace:
            print(redacted(trace), end="", file=sys.stderr)


@contextmanager
def logging_to(stream: Literal["stdout", "stderr"]) -> Iterator[LogHandler]:
    """Write the package's log to ``sys.stdout`` or ``sys.stderr`` during the block."""
    before = _PACKAGE.handlers, _PACKAGE.level, _PACKAGE.propagate
    handler = LogHandler(stream)
    _PACKAGE.handlers, _PACKAGE.propagate = [handler], False
    handler.use("text", verbose=False)
    try:
        yield handler
    finally:
        _PACKAGE.handlers, _PACKAGE.propagate = before[0], before[2]
        _PACKAGE.setLevel(before[1])


def print_beside_bar(line: str, file: TextIO) -> None:
    """Print one line without damaging a progress bar; a closed pipe is no error."""
    try:
        if sys.stderr.isatty():
            tqdm.write(printable(line), file=file)
        else:
            print(printable(line), file=file, flush=True)
    except OSError:  # the reader has closed it: the run goes on
        discard(file)


def _as_json(record: logging.LogRecord, trace: str) -> str:
    level = record.levelname.lower()
    named = record.args if isinstance(record.args, Mapping) else {}
    content = {
        "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
        "level": level,
        "logger": record.name,
        "message": printable(record.getMessage()).removeprefix(f"{level}: "),
        **{name: value if isinstance(value, int | float) else printable(value) for name, value in named.items()},
        **({"traceback": trace} if trace else {}),
    }
    return to_json(finite(content))

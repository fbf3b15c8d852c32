"""One style for every ``uflow-…`` command: help, errors in one line, exit codes that mean something."""

import argparse
import logging
import math
import os
import sys
import textwrap
from collections.abc import Callable, Collection, Iterable, Sequence
from importlib.metadata import version
from operator import length_hint
from pathlib import Path
from typing import Any, Literal, NoReturn, TextIO, TypeVar

from tqdm import tqdm

from uflow_edge.runtime.cli.interrupts import signals_interrupt
from uflow_edge.runtime.cli.logs import logging_to, progress_logger
from uflow_edge.runtime.cli.process import discard, make_streams_safe, refuse_small_address_space, silence_decoders
from uflow_edge.runtime.errors import DISTRIBUTION, ExitCode, Stuck, UflowEdgeError
from uflow_edge.runtime.text import printable, redacted

T = TypeVar("T")
logger = logging.getLogger(__name__)

_EXIT_CODES = (
    "exit codes: 0 success, 1 anomaly found (with --fail-on-anomaly), 2 usage, 3 bad input,\n"
    "4 missing package or device, 70 internal error, 130 interrupted"
)
_SECONDS_BETWEEN_LINES = 10.0  # of progress, where no terminal shows a bar
_MOST_THREADS = 4 * (os.cpu_count() or 1)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Wraps descriptions; examples are indented and keep their lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(
            line
            if line.startswith(" ")
            else textwrap.fill(line, width, initial_indent=indent, subsequent_indent=indent)
            for line in text.splitlines()
        )


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, where argparse prints the whole usage before it; refuses empty values."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.register("type", None, nonempty)
        self.register("type", Path, lambda text: Path(nonempty(text)))

    def error(self, message: str) -> NoReturn:
        self.exit(ExitCode.USAGE, f"{self.prog}: error: {redacted(printable(message))} (--help lists all options)\n")


def command_parser(command: str, description: str, examples: Sequence[str]) -> argparse.ArgumentParser:
    """A parser whose ``--help`` starts with what the command is for and ends with lines to copy."""
    listed = "\n".join(f"  {example}" for example in examples)
    parser = _Parser(
        prog=command,
        description=description,
        epilog=f"examples:\n{listed}\n\n{_EXIT_CODES}",
        formatter_class=_Formatter,
    )
    parser.add_argument("--version", action="version", version=f"{DISTRIBUTION} {version(DISTRIBUTION)}")
    parser.add_argument("--verbose", action="store_true", help="show debug lines, and the traceback of an error")
    parser.add_argument(
        "--log-format",
        choices=["text", "json"],
        default="text",
        help="how log lines look; json writes one object per line to stderr (default: text)",
    )
    return parser


def _whole(text: str, least: int, most: int | None = None) -> int:
    try:
        value = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from error
    if value < least or (most is not None and value > most):
        bounds = f"of {least} or more" if most is None else f"from {least} to {most}"
        raise argparse.ArgumentTypeError(f"expected a number {bounds}, got {text}")
    return value


def positive_int(text: str) -> int:
    """A whole number from 1 on, as an argument's type."""
    return _whole(text, 1)


def natural_int(text: str) -> int:
    """A whole number from 0 on, such as a seed, as an argument's type."""
    return _whole(text, 0)


def thread_count(text: str) -> int:
    """Threads of an engine, as an argument's type: more than a few per core only cost memory."""
    value = positive_int(text)
    if value > _MOST_THREADS:
        raise argparse.ArgumentTypeError(f"expected at most {_MOST_THREADS} threads on this machine, got {text}")
    return value


def nonempty(text: str) -> str:
    """Text that says something, as an argument's type: an unset shell variable leaves an empty one."""
    if not text.strip():
        raise argparse.ArgumentTypeError("expected a value, got an empty text")
    return text


def finite_float(text: str) -> float:
    """A number that is neither NaN nor infinite, as an argument's type."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a finite number, got {text!r}")
    return value


def add_reading_options(parser: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    """What holds for all pictures that a command reads; `reading.Reading.of` takes it up."""
    parser.add_argument(
        "--max-megapixels",
        type=positive_int,
        metavar="N",
        help="refuse larger pictures without decoding them (default: 256)",
    )
    parser.add_argument(
        "--bits",
        type=lambda text: _whole(text, 8, 16),
        metavar="N",
        help="bits that the camera uses of the 16 in an image file, such as 12 (default: as in training, or 16)",
    )


def positive_float(text: str) -> float:
    """A finite number above 0, as an argument's type."""
    value = finite_float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value


def share(text: str) -> float:
    """A number above 0 and up to 1, as an argument's type."""
    value = positive_float(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"expected a share above 0 and up to 1, got {text}")
    return value


def width_and_height(text: str) -> tuple[int, int]:
    """Pixels such as ``640x480``, as an argument's type."""
    try:
        width, height = (positive_int(part) for part in text.lower().split("x"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, got {text!r}") from error
    return width, height


def run_command(
    parse: Callable[[], argparse.Namespace],
    run: Callable[[argparse.Namespace], ExitCode],
    log_to: Literal["stdout", "stderr"] = "stdout",
) -> NoReturn:
    """Read the command line, run the command and leave with its exit code; an error becomes one line on stderr.

    Args:
        parse: reads the command line.
        run: does what it asks for.
        log_to: stream of the log; see `logs.LogHandler`.
    """
    make_streams_safe()
    silence_decoders()
    code: ExitCode | None = None
    with signals_interrupt() as interrupted, logging_to(log_to) as log:
        try:
            refuse_small_address_space()
            arguments = parse()
            log.use(getattr(arguments, "log_format", "text"), verbose=getattr(arguments, "verbose", False))
            code = run(arguments)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader of our output has left; Python would complain again while closing it
            discard(sys.stdout)
            code = ExitCode.INTERRUPTED if code is None else code
        except (Exception, KeyboardInterrupt) as error:
            code = ExitCode.INTERRUPTED if interrupted() else _exit_code(error)
            logger.error("interrupted" if code == ExitCode.INTERRUPTED else _explained(error), exc_info=True)
            if isinstance(error, Stuck):
                sys.stdout.flush()
                os._exit(code)  # what Python does at its end would abort below the thread that is stuck
    sys.exit(code)


def _exit_code(error: BaseException) -> ExitCode:
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    if isinstance(error, UflowEdgeError):
        return error.exit_code
    if isinstance(error, OSError):
        return ExitCode.BAD_INPUT
    return ExitCode.MISSING if isinstance(error, ImportError | MemoryError) else ExitCode.INTERNAL


def _explained(error: BaseException) -> str:
    """One line for people."""
    text = redacted(printable(error))
    if isinstance(error, UflowEdgeError | OSError):
        return f"error: {text}"
    if isinstance(error, MemoryError):
        return f"error: out of memory{text and f' ({text})'}"
    if isinstance(error, ImportError):
        return f"error: a package is missing or damaged: {text}"
    return f"internal error: {type(error).__name__}: {text}; please report it, --verbose shows where"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[int]) -> str:
    """Columns as wide as what is in them, those in ``left`` to the left and the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        for cells in (header, *rows)
    )
    return "\n".join(line.rstrip() for line in lines)


class _Lines(tqdm):
    """Progress in whole lines, for logs."""

    @staticmethod
    def status_printer(_: TextIO) -> Callable[[str], None]:
        shown = ""

        def show(line: str) -> None:
            nonlocal shown
            if line != shown:  # a refresh right after an update would say it twice
                progress_logger.info(line)
            shown = line

        return show

    def moveto(self, n: int) -> None:
        """Lines follow each other."""

    def close(self) -> None:
        """What is done says the command itself."""
        self.disable = True


def progress(items: Iterable[T], description: str, total: int | None = None, unit: str = "image") -> "tqdm[T]":
    """Progress on stderr: a bar on a terminal; elsewhere a line now and then, with the time left, if it takes long."""
    total = total or length_hint(items) or None
    if sys.stderr.isatty():
        return tqdm(items, description, total=total, unit=f" {unit}", dynamic_ncols=True)
    return _Lines(
        items,
        description,
        total=total,
        unit=f" {unit}",
        mininterval=_SECONDS_BETWEEN_LINES,
        maxinterval=_SECONDS_BETWEEN_LINES,
        delay=_SECONDS_BETWEEN_LINES,
        bar_format="{desc}:{unit} {n_fmt} of {total_fmt}, {elapsed} so far, {remaining} left{postfix}",
        disable=total is None,  # without an end it would fill a log
    )

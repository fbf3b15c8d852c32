"""Runs every ``uflow-…`` command: one-line errors, exit codes, progress, tables."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from operator import length_hint
from typing import Literal, NoReturn, TextIO, TypeVar

from tqdm import tqdm

from uflow_edge.runtime.cli.interrupts import signals_interrupt
from uflow_edge.runtime.cli.logs import logging_to, progress_logger
from uflow_edge.runtime.cli.process import discard, make_streams_safe, refuse_small_address_space, silence_decoders
from uflow_edge.runtime.errors import ExitCode, Stuck, UflowEdgeError
from uflow_edge.runtime.text import printable, redacted

T = TypeVar("T")
logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 10.0  # of progress, if there is no terminal for a bar


def run_command(
    parse: Callable[[], argparse.Namespace],
    run: Callable[[argparse.Namespace], ExitCode],
    log_to: Literal["stdout", "stderr"] = "stdout",
) -> NoReturn:
    """Parse the command line, run the command and exit with its code; an error becomes one line on stderr."""
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
        except (
            BrokenPipeError
        ):  # the reader of our output has closed it; without `discard` Python would fail again at exit
            discard(sys.stdout)
            code = ExitCode.INTERRUPTED if code is None else code
        except (Exception, KeyboardInterrupt) as error:
            code = ExitCode.INTERRUPTED if interrupted() else _exit_code(error)
            logger.error("interrupted" if code == ExitCode.INTERRUPTED else _explained(error), exc_info=True)
            if isinstance(error, Stuck):
                sys.stdout.flush()
                os._exit(code)  # a normal exit of Python would abort because of the stuck thread
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
    text = redacted(printable(error))
    if isinstance(error, UflowEdgeError | OSError):
        return f"error: {text}"
    if isinstance(error, MemoryError):
        return f"error: out of memory{text and f' ({text})'}"
    if isinstance(error, ImportError):
        return f"error: a package is missing or damaged: {text}"
    return f"internal error: {type(error).__name__}: {text}; please report it, with the output of --verbose"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[int]) -> str:
    """A text table; the columns in ``left`` are aligned to the left, the others to the right."""
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
    """Shows progress as whole lines, for logs."""

    @staticmethod
    def status_printer(_: TextIO) -> Callable[[str], None]:
        shown = ""

        def show(line: str) -> None:
            nonlocal shown
            if line != shown:  # a refresh right after an update would repeat the line
                progress_logger.info(line)
            shown = line

        return show

    def moveto(self, n: int) -> None:
        pass

    def close(self) -> None:
        self.disable = True  # no last line: the command reports its result itself


def progress(items: Iterable[T], description: str, total: int | None = None, unit: str = "image") -> "tqdm[T]":
    """Show progress on stderr: a bar on a terminal; elsewhere, for long work, a line every ten seconds."""
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
        disable=total is None,  # work without a known end would fill the log
    )

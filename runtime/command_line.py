"""One style for every ``uflow-…`` command: help, errors in one line, exit codes that mean something."""

import argparse
import os
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from importlib.metadata import version
from typing import NoReturn, TextIO, TypeVar

from tqdm import tqdm

from uflow_edge.runtime.errors import DISTRIBUTION, ExitCode, UflowEdgeError

T = TypeVar("T")

_EXIT_CODES = (
    "exit codes: 0 good, 1 anomaly found (with --fail-on-anomaly), 2 usage, 3 bad input, 4 missing package or device"
)


def command_parser(command: str, description: str, examples: Sequence[str]) -> argparse.ArgumentParser:
    """A parser whose ``--help`` starts with what the command is for and ends with lines to copy."""
    listed = "\n".join(f"  {example}" for example in examples)
    parser = argparse.ArgumentParser(
        prog=command,
        description=description,
        epilog=f"examples:\n{listed}\n\n{_EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{DISTRIBUTION} {version(DISTRIBUTION)}")
    return parser


def positive_int(text: str) -> int:
    """A whole number from 1 on, as an argument's type."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number of 1 or more, got {text}")
    return value


def width_and_height(text: str) -> tuple[int, int]:
    """Pixels such as ``640x480``, as an argument's type."""
    try:
        width, height = (positive_int(part) for part in text.lower().split("x"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, got {text!r}") from error
    return width, height


def run_command(main: Callable[[], ExitCode]) -> NoReturn:
    """Run a command and leave with its exit code; expected errors become one line on stderr, not a traceback."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has left; Python would complain again while closing it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.OK
    except UflowEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = ExitCode.INTERRUPTED
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        code = ExitCode.BAD_INPUT
    sys.exit(code)


def print_beside_bar(line: str, file: TextIO) -> None:
    """Print a line without tearing a progress bar apart."""
    tqdm.write(line, file=file)


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


def progress(items: Iterable[T], description: str, total: int | None = None, unit: str = "image") -> "tqdm[T]":
    """A progress bar on stderr; silent where nobody watches."""
    return tqdm(items, description, total=total, unit=f" {unit}", disable=not sys.stderr.isatty(), dynamic_ncols=True)

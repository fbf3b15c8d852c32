"""Types of arguments: each converts the typed text, or raises an error that names the expected form."""

import argparse
import math
import os
from typing import NamedTuple

_MOST_THREADS = 4 * (os.cpu_count() or 1)


class PixelSize(NamedTuple):
    """Width and height of a frame, in pixels; its text is ``640x480``."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def nonempty(text: str) -> str:
    """Any text that is not blank; an unset shell variable gives an empty argument."""
    if not text.strip():
        raise argparse.ArgumentTypeError("expected a value, got an empty text")
    return text


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
    """A whole number of 1 or more."""
    return _whole(text, 1)


def natural_int(text: str) -> int:
    """A whole number of 0 or more, such as a seed."""
    return _whole(text, 0)


def bit_depth(text: str) -> int:
    """Bits of a camera's pixels, 8 to 16."""
    return _whole(text, 8, 16)


def thread_count(text: str) -> int:
    """Number of threads of an engine; more than four per core only cost memory."""
    value = positive_int(text)
    if value > _MOST_THREADS:
        raise argparse.ArgumentTypeError(f"expected at most {_MOST_THREADS} threads on this machine, got {text}")
    return value


def finite_float(text: str) -> float:
    """A number that is neither NaN nor infinite."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a finite number, got {text!r}")
    return value


def positive_float(text: str) -> float:
    """A finite number above 0."""
    value = finite_float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value


def share(text: str) -> float:
    """A number above 0 and up to 1."""
    value = positive_float(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"expected a share above 0 and up to 1, got {text}")
    return value


def pixel_size(text: str) -> PixelSize:
    """Pixels such as ``640x480``."""
    try:
        width, height = (positive_int(part) for part in text.lower().split("x"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, got {text!r}") from error
    return PixelSize(width, height)

"""Prepares the process of a command: safe streams, quiet libraries, enough address space."""

import io
import os
import sys
import warnings
from pathlib import Path
from typing import TextIO

from uflow_edge.runtime.errors import MissingDependency

_LEAST_ADDRESS_SPACE = 950 << 20  # bytes; with less, libraries fail to load, or OpenBLAS requests memory forever


def make_streams_safe() -> None:
    """Make sure that every text can be printed, in any encoding, even if a stream was closed before the start."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed before we started
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def discard(stream: TextIO) -> None:
    """Redirect a broken stream to the null device."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def silence_decoders() -> None:
    """Keep FFmpeg, OpenCV and Pillow from writing to our streams: we report unreadable files ourselves.

    This affects modules that are imported or first used from now on. Variables that the user has set stay.
    """
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET
    warnings.filterwarnings("ignore", module=r"PIL\.")


def refuse_small_address_space() -> None:
    """Refuse to run if ``ulimit -v`` leaves too little address space.

    Raises:
        MissingDependency: the limit is too low; the message says how much is needed.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _LEAST_ADDRESS_SPACE:
        raise MissingDependency(
            f"the address space is limited to {limit >> 20} MiB (ulimit -v), but the libraries alone need "
            f"{_LEAST_ADDRESS_SPACE >> 20} MiB; raise the limit"
        )

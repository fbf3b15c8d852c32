"""How a command prepares its process: safe streams, quiet libraries, enough address space."""

import io
import os
import sys
import warnings
from pathlib import Path
from typing import TextIO

from uflow_edge.runtime.errors import MissingDependency

_LEAST_ADDRESS_SPACE = 950 << 20  # bytes; below, libraries cannot be loaded, or OpenBLAS asks for memory without end


def make_streams_safe() -> None:
    """Make sure that no text can fail to be printed, whatever the encoding and even if a stream was closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed before we started
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def discard(stream: TextIO) -> None:
    """Let a stream that cannot be written to lead nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def silence_decoders() -> None:
    """Keep FFmpeg, OpenCV and Pillow from writing between our lines: what they cannot read is reported by us.

    Works for what is imported or first used from now on; values that were set by the user stay.
    """
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET
    warnings.filterwarnings("ignore", module=r"PIL\.")


def refuse_small_address_space() -> None:
    """Refuse what ``ulimit -v`` leaves if it is certain to be too little.

    Raises:
        MissingDependency: it is; the message says how much is needed.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _LEAST_ADDRESS_SPACE:
        raise MissingDependency(
            f"this process may use {limit >> 20} MiB of address space (ulimit -v), and the libraries alone need "
            f"{_LEAST_ADDRESS_SPACE >> 20}: raise the limit"
        )

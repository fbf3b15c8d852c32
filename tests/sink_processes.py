"""Logs and folders of pictures, and scripts that write them in processes of their own."""

import json
import subprocess
import sys
from pathlib import Path

CHANNELS = (4,)
_PREAMBLE = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from factories import result
from sink_processes import CHANNELS, frames_in, names
from uflow_edge.runtime.errors import ExitCode
from uflow_edge.runtime.sinks.json_lines import JsonLines, ReaderLeft, open_json_lines
from uflow_edge.runtime.sinks.overlays import OverlayFolder
"""


def in_subprocess(
    script: str, *arguments: object, prefix: tuple[str, ...] = (), stdin: int = subprocess.DEVNULL
) -> "subprocess.Popen[str]":
    """Start a script that can use what the preamble imports."""
    command = [*prefix, sys.executable, "-c", _PREAMBLE + script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def frames_in(log: Path) -> list[int]:
    """The frames of a log whose lines are all whole."""
    text = log.read_text() if log.exists() else ""
    assert not text or text.endswith("\n")
    return [json.loads(line)["frame"] for line in text.splitlines()]


def logged(log: Path) -> list[int]:
    """The frames of a log and of the files that it was rotated to, the oldest first."""
    files = [log.with_name(f"{log.name}.{number}") for number in range(20, 0, -1)]
    return [frame for path in [*files, log] for frame in frames_in(path)]


def names(folder: Path) -> list[str]:
    """Every file below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

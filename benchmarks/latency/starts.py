"""How long a new ``uflow-infer`` process takes to its first verdict, and how much memory it holds.

Contenders take turns. The operating system has the files in its cache, and numba has compiled its kernels before: one
start that is not counted sees to both.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2

from uflow_edge.benchmarks.latency.contenders import Contender
from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.numeric import Image

_COMMAND = "from uflow_edge.runtime.infer.command import main; main()"  # what ``uflow-infer`` is

# A process counts the memory of the one that starts it as its own until it has begun. So a small one starts it.
_LAUNCHER = """
import resource, subprocess, sys, time
started = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)
line = process.stdout.readline()
seconds = time.perf_counter() - started
process.stdout.read()
code = process.wait()
used = resource.getrusage(resource.RUSAGE_CHILDREN)
unit = 1 if sys.platform == "darwin" else 1024
print(seconds, used.ru_maxrss * unit / 1e6, used.ru_utime + used.ru_stime)
sys.exit(code or not line.startswith(b"{"))
"""


@dataclass(frozen=True, slots=True)
class Start:
    """The cost of one start.

    Attributes:
        seconds: until the first verdict.
        megabytes: the most resident memory.
        processor_seconds: of all processors, until the process had ended.
    """

    seconds: float
    megabytes: float
    processor_seconds: float


def start_infer(options: Sequence[str], **environment: str) -> Start:
    """Start ``uflow-infer`` and wait until it has ended.

    Args:
        options: of its command line, which name what it inspects; ``--jsonl -`` is added.

    Raises:
        BadInput: the process failed; the message contains its errors.
    """
    command = [sys.executable, "-c", _LAUNCHER, sys.executable, "-c", _COMMAND, *options, "--jsonl", "-"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    if done.returncode != 0:
        raise BadInput(f"uflow-infer as a new process failed ({' '.join(done.stderr.split())})")
    return Start(*map(float, done.stdout.split()))


def measure_starts(
    contenders: Sequence[Contender], frame: Image, count: int, threads: int | None
) -> list[tuple[Start, ...]]:
    """Start a process for every contender in turn.

    Args:
        frame: (H, W, 3) uint8 BGR, the first that it inspects.
        count: starts per contender; with 0, nothing is started.

    Raises:
        BadInput: a process failed; the message contains its errors.
    """
    found: list[list[Start]] = [[] for _ in contenders]
    with TemporaryDirectory() as folder:
        picture = Path(folder) / "frame.png"
        cv2.imwrite(str(picture), frame)
        for _ in progress(range(count + 1 if count else 0), "cold starts", unit="start"):
            for contender, starts in zip(contenders, found, strict=True):
                starts.append(_start(contender, picture, threads))
    return [tuple(starts[1:]) for starts in found]


def _start(contender: Contender, picture: Path, threads: int | None) -> Start:
    options = ["--bundle", str(contender.bundle), "--images", str(picture)]
    options += ["--backend", contender.backend, "--precision", contender.precision]
    options += [] if threads is None else ["--threads", str(threads)]
    try:
        return start_infer(options)
    except BadInput as error:
        raise BadInput(f"{contender.name}: {error}") from error

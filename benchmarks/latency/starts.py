"""From nothing to the first verdict: ``uflow-infer`` as a new process, as benchmarks/cold_start.py times it.

The operating system has the files in its cache, and numba has compiled its kernels before: one start that is not
counted sees to both.
"""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2

from uflow_edge.benchmarks.latency.contenders import Contender
from uflow_edge.runtime.command_line import progress
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.numeric import Image

_COMMAND = "from uflow_edge.runtime.command import main; main()"  # what ``uflow-infer`` is

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
print(seconds, used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6)
sys.exit(code or not line.startswith(b"{"))
"""


@dataclass(frozen=True, slots=True)
class Starts:
    """Of one contender.

    Attributes:
        seconds: of each start, until the first verdict.
        megabytes: resident at most, of each.
    """

    seconds: tuple[float, ...]
    megabytes: tuple[float, ...]


def measure_starts(
    bundle: Path, contenders: Sequence[Contender], frame: Image, count: int, threads: int | None
) -> list[Starts]:
    """Start a process for every contender in turn, ``count`` times.

    Args:
        bundle: its folder.
        contenders: what is started.
        frame: (H, W, 3) uint8 BGR, the first that it sees.
        count: of the starts; with 0, nothing is started.
        threads: of the engine.

    Raises:
        BadInput: a process failed; the message has what it said.
    """
    found: list[list[tuple[float, float]]] = [[] for _ in contenders]
    with TemporaryDirectory() as folder:
        picture = Path(folder) / "frame.png"
        cv2.imwrite(str(picture), frame)
        for start in progress(range(count + 1 if count else 0), "cold starts", unit="start"):
            for contender, results in zip(contenders, found, strict=True):
                result = _start(bundle, contender, picture, threads)
                if start > 0:
                    results.append(result)
    return [
        Starts(tuple(seconds for seconds, _ in results), tuple(megabytes for _, megabytes in results))
        for results in found
    ]


def _start(bundle: Path, contender: Contender, picture: Path, threads: int | None) -> tuple[float, float]:
    options = ["--bundle", str(bundle), "--images", str(picture), "--json", "-"]
    options += ["--backend", contender.backend, "--precision", contender.precision]
    options += [] if threads is None else ["--threads", str(threads)]
    command = [sys.executable, "-c", _LAUNCHER, sys.executable, "-c", _COMMAND, *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise BadInput(f"{contender.name}: uflow-infer as a new process failed ({' '.join(done.stderr.split())})")
    seconds, megabytes = map(float, done.stdout.split())
    return seconds, megabytes

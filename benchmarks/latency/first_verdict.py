"""From nothing to the first verdict: ``uflow-infer`` as a new process."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from uflow_edge.runtime.errors import BadInput

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
    """What one start took.

    Attributes:
        seconds: until the first verdict.
        megabytes: resident, at most.
        processor_seconds: of all processors, until it had ended.
    """

    seconds: float
    megabytes: float
    processor_seconds: float


def start_infer(options: Sequence[str], **environment: str) -> Start:
    """Start ``uflow-infer`` and wait until it has ended.

    Args:
        options: of its command line, which name what it inspects; ``--jsonl -`` is added.
        environment: variables to start it with beside our own.

    Raises:
        BadInput: it failed; the message has what it said.
    """
    command = [sys.executable, "-c", _LAUNCHER, sys.executable, "-c", _COMMAND, *options, "--jsonl", "-"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    if done.returncode != 0:
        raise BadInput(f"uflow-infer as a new process failed ({' '.join(done.stderr.split())})")
    return Start(*map(float, done.stdout.split()))

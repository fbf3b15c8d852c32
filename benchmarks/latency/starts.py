"""How long every contender takes from nothing to its first verdict, in new processes that take turns.

The operating system has the files in its cache, and numba has compiled its kernels before: one start that is not
counted sees to both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2

from uflow_edge.benchmarks.latency.contenders import Contender
from uflow_edge.benchmarks.latency.first_verdict import Start, start_infer
from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.numeric import Image


@dataclass(frozen=True, slots=True)
class Starts:
    """Of one contender.

    Attributes:
        seconds: of each start, until the first verdict.
        megabytes: resident at most, of each.
    """

    seconds: tuple[float, ...]
    megabytes: tuple[float, ...]


def measure_starts(contenders: Sequence[Contender], frame: Image, count: int, threads: int | None) -> list[Starts]:
    """Start a process for every contender in turn, ``count`` times.

    Args:
        contenders: what is started.
        frame: (H, W, 3) uint8 BGR, the first that it sees.
        count: of the starts; with 0, nothing is started.
        threads: of the engine.

    Raises:
        BadInput: a process failed; the message has what it said.
    """
    found: list[list[Start]] = [[] for _ in contenders]
    with TemporaryDirectory() as folder:
        picture = Path(folder) / "frame.png"
        cv2.imwrite(str(picture), frame)
        for turn in progress(range(count + 1 if count else 0), "cold starts", unit="start"):
            for contender, starts in zip(contenders, found, strict=True):
                start = _start(contender, picture, threads)
                if turn > 0:
                    starts.append(start)
    return [
        Starts(tuple(start.seconds for start in starts), tuple(start.megabytes for start in starts)) for starts in found
    ]


def _start(contender: Contender, picture: Path, threads: int | None) -> Start:
    options = ["--bundle", str(contender.bundle), "--images", str(picture)]
    options += ["--backend", contender.backend, "--precision", contender.precision]
    options += [] if threads is None else ["--threads", str(threads)]
    try:
        return start_infer(options)
    except BadInput as error:
        raise BadInput(f"{contender.name}: {error}") from error

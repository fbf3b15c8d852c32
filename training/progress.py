"""The progress of a fit: its display, its log, and the file of its state; quick to import, for command lines."""

import csv
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from uflow_edge.runtime.cli.command_line import progress as progress_bar
from uflow_edge.runtime.storage.files import replacing
from uflow_edge.runtime.text import duration

if TYPE_CHECKING:
    from tqdm import tqdm

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a fit after a step.

    Attributes:
        step, steps: steps done, and the largest number of steps.
        loss: loss of this step's batch. For a flow, in nats per latent; for a UNet, the mean squared error of the
            predicted noise, which is 1 if no noise is predicted.
        held_out: loss of the last evaluation on held-out images; None before the first.
    """

    step: int
    steps: int
    loss: float
    held_out: float | None


class Epoch(NamedTuple):
    """What was measured when an epoch of a flow's fit ended; a row of its log.

    Attributes:
        epoch: number of epochs so far; 0 before the first step.
        loss: mean loss of the epoch's images, as in `Progress`; None before the first step.
        held_out: loss of the held-out images.
        judged: what the judge said, lower is better; by default the same as ``held_out``.
        best: the epoch so far that was judged best.
        seconds: wall-clock time that the epoch took, judge included.
    """

    epoch: int
    loss: float | None
    held_out: float
    judged: float
    best: int
    seconds: float


class FitBar:
    """Shows the progress of a fit: a bar on a terminal, a line per epoch; without epochs, a line every ten seconds."""

    def __init__(self, doing: str, epochs: int | None = None) -> None:
        self._doing = doing
        self._epochs = epochs
        self._bar: tqdm[object] | None = None
        self._seen = 0.0

    def update(self, progress: Progress) -> None:
        """Show a step."""
        before, self._seen = self._seen, time.monotonic()
        if self._bar is None:
            self._bar = progress_bar((), self._doing, progress.steps, "step")
            self._bar.initial = progress.step - 1
            self._bar.disable |= self._epochs is not None and not sys.stderr.isatty()
        elif progress.step == self._bar.initial + 2:  # the first step warms up
            left = (self._seen - before) * (progress.steps - progress.step)
            logger.info(f"about {duration(left)} for {progress.steps - progress.step} more steps")
        self._bar.n = progress.step
        held_out = "" if progress.held_out is None else f", held-out {progress.held_out:.4f}"
        self._bar.set_postfix_str(f"loss {progress.loss:.4f}{held_out}", refresh=False)
        self._bar.update(0)

    def end_epoch(self, epochs: Sequence[Epoch]) -> None:
        """Print a line about the last of these epochs."""
        last = epochs[-1]
        begin = "before the first step: " if last.loss is None else f"epoch {last.epoch} of {self._epochs}: "
        loss = "" if last.loss is None else f"loss {last.loss:.4f}, "
        judged = "" if last.judged == last.held_out else f", judged {last.judged:.4f}"
        best = "best so far" if last.best == last.epoch else f"best after epoch {last.best}"
        logger.info(f"{begin}{loss}held-out {last.held_out:.4f}{judged}, {duration(last.seconds)}, {best}")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def write_log(file: Path, epochs: Sequence[Epoch]) -> None:
    """Write all epochs as CSV, a row each below the names of the columns, in one rename."""
    with replacing(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([Epoch._fields, *epochs])


def log_file(out: Path) -> Path:
    """The file of a fit's log, beside its result."""
    return out.with_name(out.name + ".csv")


def resume_file(out: Path) -> Path:
    """The file of a training's state, beside its result."""
    return out.with_name(out.name + ".resume")


def run_fit(train: Callable[[FitBar], T], doing: str, out: Path, epochs: int | None = None) -> T | None:
    """Show the progress of a training; None if it was interrupted, after a line that tells how to continue it."""
    bar = FitBar(doing, epochs)
    try:
        return train(bar)
    except KeyboardInterrupt:
        bar.close()
        print_interrupted(out)
        return None
    finally:
        bar.close()


def print_interrupted(out: Path) -> None:
    """Tell the user how to continue an interrupted training."""
    state = resume_file(out)
    if state.exists():
        line = f"stopped; nothing is lost: the same command continues from {state}"
    else:
        line = "stopped before the first step: the same command starts again"
    logger.error(line)

"""The progress of a fit, its display, and the file of its state; quick to import, for command lines."""

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from uflow_edge.runtime.cli.command_line import progress as progress_bar
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


class FitBar:
    """Shows loss, held-out loss and remaining time: as a bar on a terminal, as lines elsewhere."""

    _SECONDS_BETWEEN_LINES = 10.0

    def __init__(self, doing: str, epochs: int | None = None) -> None:
        self._doing = doing
        self._epochs = epochs
        self._bar: tqdm[object] | None = None
        self._held_out: float | None = None
        self._seen = self._printed = 0.0

    def update(self, progress: Progress) -> None:
        before, self._seen = self._seen, time.monotonic()
        if self._bar is None:
            self._bar = progress_bar((), self._doing, progress.steps, "step")
            self._bar.initial = progress.step - 1
        elif progress.step == self._bar.initial + 2:  # the first step warms up
            left = (self._seen - before) * (progress.steps - progress.step)
            line = f"training runs on the CPU: about {duration(left)} for {progress.steps - progress.step} more steps"
            logger.info(line)
        self._bar.n = progress.step
        begun = -(-progress.step * (self._epochs or 0) // progress.steps)
        epoch = f"epoch {begun} of {self._epochs}, " if self._epochs else ""
        held_out = "" if progress.held_out is None else f", held-out {progress.held_out:.4f}"
        self._bar.set_postfix_str(f"{epoch}loss {progress.loss:.4f}{held_out}", refresh=False)
        self._bar.update(0)
        self._print_after_an_epoch(progress)

    def _print_after_an_epoch(self, progress: Progress) -> None:
        """Print a line to a log after an epoch, at most one every ten seconds."""
        if progress.held_out == self._held_out or sys.stderr.isatty():
            return
        self._held_out = progress.held_out
        if self._bar is not None and (
            progress.step == progress.steps or self._seen > self._printed + self._SECONDS_BETWEEN_LINES
        ):
            self._printed = self._seen
            self._bar.refresh()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def resume_file(out: Path) -> Path:
    """The file of a training's state, beside its result."""
    return out.with_name(out.name + ".resume")


def run_fit(train: Callable[..., T], doing: str, out: Path, epochs: int | None = None) -> T | None:
    """Show the progress of a training; None if it was interrupted, after a line that tells how to continue it."""
    bar = FitBar(doing, epochs)
    try:
        return train(on_step=bar.update)
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

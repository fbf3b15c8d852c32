"""Where a fit stands, and the bar that shows it; light to import, for command lines."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from uflow_edge.runtime.command_line import progress as progress_bar

if TYPE_CHECKING:
    from tqdm import tqdm


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the fit stands, after a step.

    Attributes:
        step, steps: done, and at most to do.
        loss: of what this step has seen. Of a flow, nats a latent; of a UNet, the mean squared error of the predicted
            noise, which costs 1 to predict as none.
        held_out: the same on held-out images after the last look at them; None before.
    """

    step: int
    steps: int
    loss: float
    held_out: float | None


class FitBar:
    """A progress bar: loss, held-out loss, time left."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._bar: tqdm[object] | None = None

    def update(self, progress: Progress) -> None:
        """Show where the fit stands."""
        if self._bar is None:
            self._bar = progress_bar((), self._doing, progress.steps, "step")
            self._bar.initial = progress.step - 1
        self._bar.n = progress.step
        held_out = "" if progress.held_out is None else f", held-out {progress.held_out:.4f}"
        self._bar.set_postfix_str(f"loss {progress.loss:.4f}{held_out}", refresh=False)
        self._bar.update(0)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

"""Chooses what a flow starts at, and when to stop, by defects drawn into held-out images."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from uflow_edge.export.network.uflow import UFlow
from uflow_edge.runtime.images.files import read_image, spread
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.resize.cpu import model_input
from uflow_edge.training.judge.judge import Drawn, drawn_images
from uflow_edge.training.judge.trials import Trial

logger = logging.getLogger(__name__)

FEWEST_IMAGES = 10
"""With fewer held-out images, chance would decide, and nothing is judged."""
_MOST_IMAGES = 64
"""More held-out images cost time and change little."""
HEAD = ("scales", "pooling", "standardised by", "found")
_LISTED = 6


@dataclass(frozen=True, slots=True)
class Exam:
    """Held-out good images, and the same images with each kind of pseudo-defect.

    Attributes:
        good: (S, S, 3) uint8 RGB each, at the model's input size.
    """

    good: Sequence[Image]
    drawn: dict[str, list[Drawn]]

    @classmethod
    def of(cls, paths: Sequence[Path], side: int, seed: int) -> "Exam":
        """Draw into at most 64 of the images."""
        good = [model_input(read_image(path), side) for path in spread(paths, _MOST_IMAGES)]
        return cls(good, drawn_images(good, seed))

    @property
    def counts(self) -> dict[str, int]:
        """Number of images of each kind, in the order of `images`."""
        return {kind: len(self.good) for kind in ("good", *self.drawn)}

    @property
    def images(self) -> list[Image]:
        """All of them: the good ones, then those of each kind."""
        return [*self.good, *(one.image for some in self.drawn.values() for one in some)]


def best_of(trials: Sequence[Trial]) -> Trial:
    """The trial that finds most; of equals the first, which is the default."""
    return max(trials, key=lambda trial: trial.found)


def log_trials(trials: Sequence[Trial]) -> None:
    """Write the best trials as a table to the log."""
    rows = [HEAD, *trial_rows(trials)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows[: _LISTED + 1]:
        logger.info("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    if len(trials) > _LISTED:
        logger.info(f"{len(trials) - _LISTED} more find less of the defects that were drawn; --report FILE lists all")


def trial_rows(trials: Sequence[Trial]) -> list[list[str]]:
    """Cells below `HEAD`, the best trial first."""
    return [
        [
            "joint" if trial.joint else "separate",
            str(trial.pooling),
            trial.standardization,
            f"{trial.found:.4f}",
        ]
        for trial in sorted(trials, key=lambda trial: -trial.found)
    ]


def with_backbone_of(other: UFlow, network: UFlow) -> UFlow:
    """The network with the backbone, and on the device, of another one."""
    network.feature_extractor.extractor.load_state_dict(other.feature_extractor.extractor.state_dict())
    return network.to(next(other.flow.parameters()).device)

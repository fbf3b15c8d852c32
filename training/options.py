"""The choices of a training, free of torch, so that the command line can offer them before it is loaded."""

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from uflow_edge.runtime.errors import UsageError
from uflow_edge.runtime.numeric import Image

Couplings: TypeAlias = Literal["additive", "affine"]
COUPLINGS: tuple[Couplings, ...] = get_args(Couplings)

Standardization: TypeAlias = Literal["whiten", "position", "channel", "none"]
StandardizationChoice: TypeAlias = Literal["auto", "whiten", "position", "channel", "none"]
STANDARDIZATION_CHOICES: tuple[StandardizationChoice, ...] = get_args(StandardizationChoice)

HOLD_OUT = 0.1
"""Share of the images that is not fitted, unless another is asked for."""

CacheChoice: TypeAlias = Literal["auto", "memory", "disk"]
CACHE_CHOICES: tuple[CacheChoice, ...] = get_args(CacheChoice)


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """How to fit.

    Attributes:
        learning_rate: of Adam, at the first step.
        batch_size: images a step.
        epochs: passes over the images, at most.
        patience: epochs without a better held-out likelihood after which to stop.
        seed: of initial weights, permutations and the order of images.
        couplings: ``additive`` fits the shifts of the coupling blocks and leaves their scales at 1. The Jacobian is
            then the same for every image, so the energies, which are all that detection sees, are the likelihood.
            ``affine`` fits both, as the paper does, and an unusual image can hide its energy in the scales.
    """

    learning_rate: float = 1e-3
    batch_size: int = 8
    epochs: int = 30
    patience: int = 8
    seed: int = 0
    couplings: Couplings = "additive"

    def __post_init__(self) -> None:
        for name in ("learning_rate", "batch_size", "epochs", "patience"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name.replace('_', ' ')} {getattr(self, name):g}: expected more than 0")


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Random changes of training images; none by default, for most of them are anomalies on some line.

    Attributes:
        horizontal_flip, vertical_flip: mirror every second image.
        crop: smallest side of a random crop, as a fraction of the image; 1 does not crop.
    """

    horizontal_flip: bool = False
    vertical_flip: bool = False
    crop: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise UsageError(f"crop {self.crop}: expected a fraction of the image's side, above 0 and up to 1")

    @property
    def is_none(self) -> bool:
        """Whether images stay as they are, so that their features can be cached."""
        return self == Augmentation()

    def apply(self, frame: Image, random: np.random.Generator) -> Image:
        """Change one (H, W, 3) image."""
        side = random.uniform(self.crop, 1.0)
        height, width = (max(round(n * side), 1) for n in frame.shape[:2])
        top = int(random.integers(frame.shape[0] - height + 1))
        left = int(random.integers(frame.shape[1] - width + 1))
        flips = random.random(2) < 0.5
        frame = frame[top : top + height, left : left + width]
        frame = frame[:, ::-1] if self.horizontal_flip and flips[0] else frame
        return frame[::-1] if self.vertical_flip and flips[1] else frame

"""The options of a training, without torch, so that the command line starts quickly."""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import numpy as np

from uflow_edge.export.network.architecture import Architecture
from uflow_edge.runtime.errors import UsageError
from uflow_edge.runtime.numeric import Image

Couplings: TypeAlias = Literal["additive", "affine"]
COUPLINGS: tuple[Couplings, ...] = get_args(Couplings)

Standardization: TypeAlias = Literal["whiten", "position", "channel", "none"]
StandardizationChoice: TypeAlias = Literal["auto", "whiten", "position", "channel", "none"]
STANDARDIZATION_CHOICES: tuple[StandardizationChoice, ...] = get_args(StandardizationChoice)

ScalesChoice: TypeAlias = Literal["auto", "joint", "separate"]
SCALES_CHOICES: tuple[ScalesChoice, ...] = get_args(ScalesChoice)
LARGEST_WHITENING = 64 * 2**20
"""Size limit in bytes of the whitening matrices with ``auto``, because they become part of the model."""
WINDOW = 5
"""Pixels of joint features over which a calibration averages energies by default."""

TRIED_POOLINGS = (1, 3, 5)
"""What is tried unless the pooling is given."""

HOLD_OUT = 0.1
"""Default share of the images that is held out."""

DeviceChoice: TypeAlias = Literal["auto", "cpu", "cuda"]

CacheChoice: TypeAlias = Literal["auto", "memory", "disk"]
CACHE_CHOICES: tuple[CacheChoice, ...] = get_args(CacheChoice)


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """How to fit.

    Attributes:
        learning_rate: Adam's learning rate at the first step.
        patience: stop after so many epochs without a better held-out likelihood.
        seed: seed of initial weights, permutations and the order of images.
        couplings: ``additive`` fits the shifts of the coupling blocks and keeps their scales at 1. The Jacobian is then
            the same for all images, so the energies, which decide alone, give the exact likelihood. ``affine`` fits
            both, as in the paper; then the scales can lower the energy of an unusual image.
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


def with_scales(architecture: Architecture, choice: ScalesChoice, window: int | None = None) -> Architecture:
    """The architecture with its scales joint or separate; ``auto`` joins them if they can be whitened together.

    Args:
        window: of energies; None: 5 pixels for joint features, none for separate ones.
    """
    if choice == "auto":
        possible = architecture.backbone.fixed_input_size is None
        joint = possible and replace(architecture, joint=True).whitening_bytes <= LARGEST_WHITENING
    else:
        joint = choice == "joint"
    side = architecture.tapped[-1].side
    if window is None:
        window = min(WINDOW, side - 1 + side % 2) if joint else 1
    return replace(architecture, joint=joint, window=window)


def alternatives(
    architecture: Architecture, choice: ScalesChoice, pooling: int | None, window: int | None
) -> list[Architecture]:
    """The architectures with other features that these options leave open; see `with_scales`.

    The window is not among what is tried, because pseudo-defects do not tell which one is best (docs/training.md).
    """
    if architecture.backbone.fixed_input_size is not None:
        return []
    scales: tuple[ScalesChoice, ...] = ("joint", "separate") if choice == "auto" and architecture.joint else (choice,)
    poolings = (
        [side for side in TRIED_POOLINGS if side <= architecture.tapped[-1].side] if pooling is None else [pooling]
    )
    possible = [
        with_scales(replace(architecture, pooling=side, window=1), joint, window)
        for joint in scales
        for side in poolings
    ]
    return [one for one in possible if one != architecture]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Random changes of training images; none by default, as on many lines such changes are anomalies.

    Attributes:
        horizontal_flip, vertical_flip: mirror an image with probability ½.
        crop: smallest side of a random crop, as a fraction of the image's side; 1 for no crop.
    """

    horizontal_flip: bool = False
    vertical_flip: bool = False
    crop: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise UsageError(f"crop {self.crop}: expected a fraction of the image's side, above 0 and up to 1")

    @property
    def is_none(self) -> bool:
        """Whether images do not change, so that their features can be cached."""
        return self == Augmentation()

    def apply(self, image: Image, random: np.random.Generator) -> Image:
        """Change one (H, W, 3) image."""
        side = random.uniform(self.crop, 1.0)
        height, width = (max(round(n * side), 1) for n in image.shape[:2])
        top = int(random.integers(image.shape[0] - height + 1))
        left = int(random.integers(image.shape[1] - width + 1))
        flips = random.random(2) < 0.5
        image = image[top : top + height, left : left + width]
        image = image[:, ::-1] if self.horizontal_flip and flips[0] else image
        return image[::-1] if self.vertical_flip and flips[1] else image

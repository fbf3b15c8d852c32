"""The manifest of a diffusion UNet's bundle, whose graphs predict the noise in a noisy picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.bundle.manifest import Count, Manifest, Side, Signature, Tensor

ScheduleName: TypeAlias = Literal["linear", "cosine"]
SCHEDULES: tuple[ScheduleName, ...] = get_args(ScheduleName)


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetManifest(Manifest):
    """The manifest of a diffusion UNet.

    Attributes:
        image_size: S, side of the square patches in pixels.
        channels: C of a patch; 3, RGB in [-1, 1].
        learned_variance: whether the network also returns the variance of a step, between its two bounds.
        noisiest_step: index of the last step that the network has learned; None: all.
    """

    kind: ClassVar[str] = "unet"
    noun: ClassVar[str] = "diffusion UNet"
    option: ClassVar[str] = "--unet"

    image_size: Side
    channels: Count
    learned_variance: bool
    schedule: ScheduleName = "linear"
    steps: Count = 1000
    noisiest_step: Count | None = None

    @property
    def signature(self) -> Signature:
        """``sample`` and ``timestep`` (the index of the step, from 0) to ``noise`` and, if learned, ``variance``.

        ``variance`` lies between -1 and 1 where the logarithm of the variance lies between that of the posterior and
        that of the step itself (Nichol and Dhariwal, 2021, equation 15); it is not clamped.
        """
        patch = (self.channels, self.image_size, self.image_size)
        outputs = ("noise", "variance") if self.learned_variance else ("noise",)
        return Signature(
            (Tensor("sample", patch), Tensor("timestep", ())), tuple(Tensor(name, patch) for name in outputs)
        )

    def plausible(self, outputs: Sequence[NDArray[np.float32]]) -> bool:
        """Any finite numbers are plausible noise."""
        return True

    def check(self) -> None:
        Manifest.check(self)
        if self.noisiest_step is not None and self.noisiest_step >= self.steps:
            raise ValueError(f"noisiest_step: expected less than {self.steps} steps, got {self.noisiest_step}")

"""The options of training a diffusion UNet, without torch, so that the command line starts quickly."""

from dataclasses import dataclass

from uflow_edge.runtime.errors import UsageError

SCHEDULE_STEPS = 1000
"""Steps of the linear noise schedule of Ho et al., "Denoising Diffusion Probabilistic Models" (2020)."""


@dataclass(frozen=True, slots=True)
class DiffusionOptions:
    """How to train.

    Attributes:
        image_size: side of the patches in pixels; a multiple of 2 ** (levels - 1).
        channels: channels of each level of the UNet, finest first; multiples of 8.
        blocks: residual blocks per level.
        noisiest_step: index of the noisiest step that the network learns. Purification starts at a low step (40 in the
            paper), and without the noisier steps the network learns to denoise within minutes. Such a network must not
            be used to generate images.
        learning_rate: Adam's learning rate after the warm-up; it falls to zero along a cosine.
        batch_size: patches per step.
        average: decay of the running average of the weights, per step; the average is saved.
        report_every: steps between two evaluations on held-out patches, each of which also saves the state.
        seed: seed of initial weights, patches and noise.
    """

    image_size: int = 64
    channels: tuple[int, ...] = (32, 32, 64)
    blocks: int = 1
    noisiest_step: int = 63
    learning_rate: float = 2e-3
    batch_size: int = 16
    steps: int = 1200
    average: float = 0.99
    report_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "batch_size", "steps", "blocks", "report_every"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name.replace('_', ' ')} {getattr(self, name):g}: expected more than 0")
        if not self.channels or any(width < 8 or width % 8 for width in self.channels):
            raise UsageError(f"channels {self.channels}: expected one multiple of 8 per level")
        if self.image_size < 1 or self.image_size % 2 ** (len(self.channels) - 1):
            raise UsageError(
                f"image size {self.image_size}: expected a multiple of {2 ** (len(self.channels) - 1)}, "
                f"for a UNet of {len(self.channels)} levels"
            )
        if not 0 < self.noisiest_step < SCHEDULE_STEPS:
            raise UsageError(f"noisiest step {self.noisiest_step}: expected 1 to {SCHEDULE_STEPS - 1}")
        if not 0 <= self.average < 1:
            raise UsageError(f"average {self.average}: expected a weight of at least 0 and below 1")

"""The choices of training a diffusion UNet, free of torch, so that the command line offers them before it loads."""

from dataclasses import dataclass

from uflow_edge.runtime.errors import UsageError

SCHEDULE_STEPS = 1000
"""Of the linear noise schedule of Ho et al., "Denoising Diffusion Probabilistic Models" (2020)."""


@dataclass(frozen=True, slots=True)
class DiffusionOptions:
    """How to train.

    Attributes:
        image_size: side of the patches, pixels; a multiple of 2 ** (levels - 1).
        channels: of each level of the UNet, finest first; multiples of 8.
        blocks: residual blocks a level.
        noisiest_step: largest step index of the schedule that the network learns; purifying never asks for more than
            it starts from (40 in the paper), and a network that need not learn to paint from pure noise learns to
            denoise within minutes. It must not be used to generate images.
        learning_rate: of Adam, after warming up; it falls to zero along a cosine.
        batch_size: patches a step.
        steps: of the fit.
        average: weight that the running average of the weights keeps at each step; the average is what is saved.
        report_every: steps between two looks at held-out patches, each of which also saves the state.
        seed: of initial weights, patches and noise.
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
            raise UsageError(f"channels {self.channels}: expected one multiple of 8 a level")
        if self.image_size < 1 or self.image_size % 2 ** (len(self.channels) - 1):
            raise UsageError(
                f"image size {self.image_size}: expected a multiple of {2 ** (len(self.channels) - 1)}, "
                f"for a UNet of {len(self.channels)} levels"
            )
        if not 0 < self.noisiest_step < SCHEDULE_STEPS:
            raise UsageError(f"noisiest step {self.noisiest_step}: expected 1 to {SCHEDULE_STEPS - 1}")
        if not 0 <= self.average < 1:
            raise UsageError(f"average {self.average}: expected a weight from 0 up to, but not including, 1")

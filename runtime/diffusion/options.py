"""The options of purification with Diff-CF and Diff-CFG (Tailanian et al., WACV 2024)."""

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from uflow_edge.runtime.diffusion.patches import DEFAULT_OVERLAP, PATCHINGS, Layout, Patching
from uflow_edge.runtime.diffusion.sampling import Sampler
from uflow_edge.runtime.diffusion.similarity import GUIDES, Guide
from uflow_edge.runtime.errors import UsageError

Guidance: TypeAlias = Literal["none"] | Guide
GUIDANCES: tuple[Guidance, ...] = ("none", *GUIDES)
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)

# With a small network and 40 steps, these gave 2 to 4 dB more PSNR to the original photograph than no guide.
DEFAULT_GUIDE_SCALES: dict[Guide, float] = {"ssim": 50.0, "mse": 200.0, "corr": 50.0}


@dataclass(frozen=True, slots=True)
class PurifyOptions:
    """How images are purified.

    Attributes:
        steps: amount of noise, as an index into the schedule: t in the paper, which recommends 40 of 1000.
        guide: measure of similarity by which the result is kept close to the original; ``none`` is Diff-CF, the others
            are Diff-CFG.
        guide_scale: strength of the guide; None for `DEFAULT_GUIDE_SCALES`. It multiplies the gradient times
            the number of values in a patch, so that it does not depend on the size of the patches; the numbers of
            Diff-CF must be divided by that number (196,608 for patches of 256 pixels).
        sampler: ``ddpm`` draws noise at each step; ``ddim`` does not, and tolerates longer steps.
        respacing: evaluations of the network per patch, at most ``steps``; None for ``steps``.
        patching: how patches are cut, see `patches`.
        overlap: overlap of patches with ``blend``, as a share of their side.
        batch: patches per run of the network.
        seed: seed of the noise, for images that are purified without a seed of their own.

    Raises:
        UsageError: on construction, if an option is out of range or contradicts another.
    """

    steps: int = 40
    guide: Guidance = "none"
    guide_scale: float | None = None
    sampler: Sampler = "ddpm"
    respacing: int | None = None
    patching: Patching = "blend"
    overlap: float = DEFAULT_OVERLAP
    batch: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (("guide", GUIDANCES), ("sampler", SAMPLERS), ("patching", PATCHINGS)):
            if getattr(self, name) not in known:
                raise UsageError(f"{name} {getattr(self, name)!r}: expected one of {', '.join(known)}")
        if self.steps < 1:
            raise UsageError(f"noise {self.steps}: expected step 1 or later of the schedule")
        if self.respacing is not None and not 1 <= self.respacing <= self.steps:
            raise UsageError(f"respacing {self.respacing}: expected 1 to {self.steps}, the step of the noise")
        if self.guide_scale is not None and self.guide == "none":
            raise UsageError("a guide scale needs a guide: expected ssim, mse or corr, got none")
        if self.guide_scale is not None and not 0 <= self.guide_scale < np.inf:
            raise UsageError(f"guide scale {self.guide_scale}: expected 0 or more")
        if self.batch < 1 or self.seed < 0:
            raise UsageError(f"batch {self.batch}, seed {self.seed}: expected 1 or more, and 0 or more")
        Layout.of((1, 1), 1, self.patching, self.overlap)

    @property
    def evaluations(self) -> int:
        """Evaluations of the network per patch."""
        return self.respacing or self.steps

    @property
    def scale(self) -> float:
        """Strength of the guide; 0 without a guide."""
        if self.guide == "none":
            return 0.0
        return DEFAULT_GUIDE_SCALES[self.guide] if self.guide_scale is None else self.guide_scale

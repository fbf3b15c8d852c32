"""The amount of noise at each step of a diffusion, and the quantities that samplers derive from it.

Sources: DDPM (Ho et al. 2020, equations 4 to 7) for the linear schedule and the posterior q(x_{i-1} | x_i, x_0);
Improved DDPM (Nichol and Dhariwal 2021, equation 17 and section 4) for the cosine schedule and for fewer steps.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.bundle.unet import SCHEDULES, ScheduleName
from uflow_edge.runtime.errors import UsageError

Curve: TypeAlias = NDArray[np.float64]
"""One number per step."""

_LARGEST_COSINE_BETA = 0.999


@dataclass(frozen=True, slots=True, eq=False)
class NoiseSchedule:
    """Arrays over the steps of a schedule, from the cleanest (index 0) to the noisiest; float64, read-only.

    Attributes:
        timesteps: the network's input at each index: the step in the schedule that the network was trained with.
        betas: variance of the noise that one step adds.
        alphas_cumprod: ᾱ, the remaining share of the image's variance.
        alphas_cumprod_prev: ᾱ one step earlier; 1 at index 0.
        sqrt_alphas_cumprod: weight of the image in a noisy sample.
        sqrt_one_minus_alphas_cumprod: weight of the noise in a noisy sample.
        sqrt_recip_alphas_cumprod: √(1/ᾱ), for the backward steps.
        sqrt_recipm1_alphas_cumprod: √(1/ᾱ − 1) = √(1 − ᾱ)/√ᾱ, the noise relative to the image.
        posterior_variance: variance of x_{i-1} given x_i and x_0; 0 at index 0.
        posterior_log_variance_clipped: logarithm of the posterior variance, with the value of index 1 at index 0.
        log_betas: logarithm of `betas`, the largest variance of a step.
        posterior_mean_coef1: weight of x_0 in the posterior mean.
        posterior_mean_coef2: weight of x_i in the posterior mean.
    """

    timesteps: NDArray[np.int64]
    betas: Curve
    alphas_cumprod: Curve
    alphas_cumprod_prev: Curve
    sqrt_alphas_cumprod: Curve
    sqrt_one_minus_alphas_cumprod: Curve
    sqrt_recip_alphas_cumprod: Curve
    sqrt_recipm1_alphas_cumprod: Curve
    posterior_variance: Curve
    posterior_log_variance_clipped: Curve
    log_betas: Curve
    posterior_mean_coef1: Curve
    posterior_mean_coef2: Curve

    @classmethod
    def make(cls, name: ScheduleName, steps: int = 1000) -> "NoiseSchedule":
        """A complete schedule.

        Raises:
            UsageError: the name is unknown, or there are too few steps, so that one step would add too much noise.
        """
        if name not in SCHEDULES:
            raise UsageError(f"noise schedule {name!r}: expected one of {', '.join(SCHEDULES)}")
        if steps < 1:
            raise UsageError(f"a noise schedule of {steps} steps: expected 1 or more")
        betas = _linear_betas(steps) if name == "linear" else _cosine_betas(steps)
        if betas.max() >= 1:
            raise UsageError(f"a {name} noise schedule of {steps} steps: expected 21 or more")
        return cls._keeping(np.arange(steps), np.cumprod(1 - betas, dtype=np.float64))

    def __len__(self) -> int:
        return self.timesteps.size

    def respaced(self, count: int, below: int | None = None) -> "NoiseSchedule":
        """A schedule with fewer, evenly spaced steps over the same range of noise.

        Args:
            count: number of steps to keep, always with the first and the last; a single one is the last.
            below: cover only the first ``below`` steps; None for all.

        Raises:
            UsageError: the count is not between 1 and the number of steps.
        """
        covered = len(self) if below is None else below
        if not 1 <= count <= covered <= len(self):
            raise UsageError(f"{count} of {covered} steps of a schedule of {len(self)}: expected 1 to {covered}")
        kept = np.rint(np.linspace(0, covered - 1, count)).astype(np.int64) if count > 1 else np.array([covered - 1])
        return self._keeping(self.timesteps[kept], self.alphas_cumprod[kept])

    @classmethod
    def _keeping(cls, timesteps: NDArray[np.int64], alphas_cumprod: Curve) -> "NoiseSchedule":
        """Compute all arrays from ᾱ at the kept steps, with the operations in the order of the original sampler."""
        betas = 1 - alphas_cumprod / np.append(1.0, alphas_cumprod[:-1])
        kept = np.cumprod(1 - betas)
        previous = np.append(1.0, kept[:-1])
        variance = betas * (1 - previous) / (1 - kept)
        # A schedule of one step has no index 1, so its own variance is used.
        positive = np.append(variance[1:2] if len(kept) > 1 else betas, variance[1:])
        arrays = {
            "timesteps": timesteps.copy(),
            "betas": betas,
            "alphas_cumprod": kept,
            "alphas_cumprod_prev": previous,
            "sqrt_alphas_cumprod": np.sqrt(kept),
            "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - kept),
            "sqrt_recip_alphas_cumprod": np.sqrt(1 / kept),
            "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / kept - 1),
            "posterior_variance": variance,
            "posterior_log_variance_clipped": np.log(positive),
            "log_betas": np.log(betas),
            "posterior_mean_coef1": betas * np.sqrt(previous) / (1 - kept),
            "posterior_mean_coef2": (1 - previous) * np.sqrt(1 - betas) / (1 - kept),
        }
        for array in arrays.values():
            array.flags.writeable = False
        return cls(**arrays)


def _linear_betas(steps: int) -> Curve:
    """From 1e-4 to 0.02 for 1000 steps, scaled so that any number of steps adds the same noise in total."""
    scale = 1000 / steps
    return np.linspace(scale * 1e-4, scale * 0.02, steps)


def _cosine_betas(steps: int) -> Curve:
    def left(time: Curve) -> Curve:
        return np.asarray(np.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2)

    times = np.arange(steps + 1) / steps
    return np.minimum(1 - left(times[1:]) / left(times[:-1]), _LARGEST_COSINE_BETA)

"""One step of a diffusion, forwards or backwards, on a batch; each sample may be at another step.

Sources: DDPM (Ho et al. 2020), with the learned variance of Improved DDPM (Nichol and Dhariwal 2021, equation 15);
guidance as in Dhariwal and Nichol 2021, algorithms 1 and 2; DDIM (Song et al. 2021, equation 12 with σ = 0).

A `Batch` is (N, C, H, W) float32, in [-1, 1] without noise. ``index`` is (N,) into the arrays of a schedule.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.diffusion.schedule import Curve, NoiseSchedule

Batch: TypeAlias = NDArray[np.float32]
Index: TypeAlias = NDArray[np.int64]
Sampler: TypeAlias = Literal["ddpm", "ddim"]


class NoisePredictor(Protocol):
    """A diffusion network."""

    def __call__(self, sample: Batch, timestep: NDArray[np.float32], /) -> tuple[Batch, ...]:
        """Predict the noise in a batch.

        Args:
            sample: (N, C, S, S).
            timestep: (N,) float32, whole numbers: steps of the schedule that the network was trained with.

        Returns:
            The noise, (N, C, S, S). If the network has learned the variance, also an array of the same shape that gives
            its logarithm, from -1 (variance of the posterior) to 1 (variance of the forward step).
        """


@dataclass(frozen=True, slots=True)
class Denoised:
    """The network's estimate of the sample one step cleaner.

    Attributes:
        start: estimate of the image without noise, clipped to [-1, 1].
        log_variance: logarithm of its variance; (N, C, H, W), or (N, 1, 1, 1) if the network has not learned it.
    """

    start: Batch
    mean: Batch
    log_variance: Batch


def add_noise(schedule: NoiseSchedule, start: Batch, index: Index, noise: Batch) -> Batch:
    """The sample at a step, from the image without noise: q(x_i | x_0)."""
    return np.asarray(
        _at(schedule.sqrt_alphas_cumprod, index) * start + _at(schedule.sqrt_one_minus_alphas_cumprod, index) * noise
    )


def denoise(schedule: NoiseSchedule, predict: NoisePredictor, sample: Batch, index: Index) -> Denoised:
    """Run the network, and derive the distribution of the sample one step cleaner: p(x_{i-1} | x_i).

    If the network has not learned the variance, that of the posterior is used.
    """
    noise, *learned = predict(sample, schedule.timesteps[index].astype(np.float32))
    low = _at(schedule.posterior_log_variance_clipped, index)
    start = np.clip(_start(schedule, sample, index, noise), -1, 1)
    return Denoised(
        start=start,
        mean=_at(schedule.posterior_mean_coef1, index) * start + _at(schedule.posterior_mean_coef2, index) * sample,
        log_variance=_between(low, _at(schedule.log_betas, index), learned[0]) if learned else low,
    )


def ddpm_step(denoised: Denoised, index: Index, noise: Batch | None, pull: Batch | None = None) -> Batch:
    """Draw the sample one step cleaner.

    Args:
        index: the samples' steps; at index 0 the result is the mean itself.
        noise: a normal draw; may be None if every index is 0.
        pull: gradient of the guide; None without a guide.
    """
    mean = denoised.mean if pull is None else denoised.mean + np.exp(denoised.log_variance) * pull
    if noise is None:
        return np.asarray(mean, np.float32)
    inside = (index > 0).astype(np.float32).reshape(-1, 1, 1, 1)
    return np.asarray(mean + inside * np.exp(np.float32(0.5) * denoised.log_variance) * noise)


def ddim_step(
    schedule: NoiseSchedule, denoised: Denoised, sample: Batch, index: Index, pull: Batch | None = None
) -> Batch:
    """The sample one step cleaner without a draw: less of the same noise."""
    start = denoised.start
    deviation = _at(schedule.sqrt_one_minus_alphas_cumprod, index)
    noise: Batch = np.asarray((sample - _at(schedule.sqrt_alphas_cumprod, index) * start) / deviation)
    if pull is not None:
        noise = np.asarray(noise - deviation * pull)
        start = _start(schedule, sample, index, noise)
    before = schedule.alphas_cumprod_prev
    return np.asarray(_at(np.sqrt(before), index) * start + _at(np.sqrt(1 - before), index) * noise)


def _start(schedule: NoiseSchedule, sample: Batch, index: Index, noise: Batch) -> Batch:
    return np.asarray(
        _at(schedule.sqrt_recip_alphas_cumprod, index) * sample
        - _at(schedule.sqrt_recipm1_alphas_cumprod, index) * noise
    )


def _between(low: Batch, high: Batch, where: Batch) -> Batch:
    """Interpolate from ``low`` at -1 to ``high`` at 1; not clipped, as in training."""
    share = (where + 1) / 2
    return np.asarray(share * high + (1 - share) * low)


def _at(curve: Curve, index: Index) -> Batch:
    """(N, 1, 1, 1) float32."""
    return curve[index].astype(np.float32).reshape(-1, 1, 1, 1)

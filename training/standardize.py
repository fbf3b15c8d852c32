"""Standardisation of the features before the flow, kept in the extractor's own layer normalisation.

The affine part of ``LayerNorm([C, H, W])`` holds one gain and one offset for each channel and pixel. Trained along
with the flow, as upstream does, the gain is a way to cheat: the flow's Jacobian does not count it, so shrinking it
raises the likelihood of everything. Set once from the training images and left alone, it gives the flow features of
mean 0 and variance 1, and upstream's code can still load it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from uflow_edge.export.network import FeatureExtractor
from uflow_edge.training.features import Features

Standardization: TypeAlias = Literal["position", "channel", "none"]
STANDARDIZATIONS: tuple[Standardization, ...] = get_args(Standardization)

_BATCH = 16
_PRIOR_IMAGES = 8
"""How many images' worth of weight the channel's own variance has in a pixel's."""
_SMALLEST_VARIANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and variance of one scale's features, broadcastable to (C, H, W), float32."""

    mean: Tensor
    variance: Tensor

    def negative_log_likelihood(self, features: Tensor) -> float:
        """Sum over (N, C, H, W) features of the Gaussian negative log-likelihood, without its constant, in nats."""
        return float(
            (0.5 * ((features - self.mean) ** 2 / self.variance + self.variance.log())).sum(dtype=torch.float64)
        )


def standardize(
    extractor: FeatureExtractor, fit: Features, held_out: Features, choice: Standardization | Literal["auto"] = "auto"
) -> Standardization:
    """Set gain and offset of every scale's layer normalisation.

    ``position`` takes mean and variance of each channel at each pixel: right for parts that lie aligned. ``channel``
    takes them over all pixels: right for textures. ``auto`` takes whichever makes the held-out images likelier.

    Args:
        extractor: changed in place.
        fit: images to take the moments from.
        held_out: other good images, to choose by.

    Returns:
        What was chosen.
    """
    if choice == "none":
        return choice
    by_position = _moments_by_position(fit)
    candidates: dict[Standardization, list[Moments]] = {
        "position": by_position,
        "channel": [_by_channel(moments) for moments in by_position],
    }
    chosen = _likeliest(candidates, held_out) if choice == "auto" else choice
    for (gain, offset), moments in zip(extractor.affine(), candidates[chosen], strict=True):
        gain.data.copy_(moments.variance.rsqrt().expand_as(gain))
        offset.data.copy_(-moments.mean * gain)
    return chosen


def _likeliest(candidates: dict[Standardization, list[Moments]], features: Features) -> Standardization:
    costs = dict.fromkeys(candidates, 0.0)
    for batch in _batches(features):
        for name, scales in candidates.items():
            costs[name] += sum(m.negative_log_likelihood(f) for m, f in zip(scales, batch, strict=True))
    return min(costs, key=costs.__getitem__)


def _batches(features: Features) -> Iterator[tuple[Tensor, ...]]:
    for start in range(0, len(features), _BATCH):
        yield features.batch(np.arange(start, min(start + _BATCH, len(features))), epoch=0)


def _moments_by_position(features: Features) -> list[Moments]:
    """Per channel and pixel, the variance shrunk towards the channel's, so that few images do not make wild gains."""
    n = len(features)
    sums: list[Tensor] = []
    squares: list[Tensor] = []
    for batch in _batches(features):
        if not sums:
            sums = [torch.zeros(f.shape[1:], dtype=torch.float64) for f in batch]
            squares = [torch.zeros_like(s) for s in sums]
        for total, square, f in zip(sums, squares, batch, strict=True):
            total += f.sum(0, dtype=torch.float64)
            square += f.double().square().sum(0)
    result = []
    for total, square in zip(sums, squares, strict=True):
        mean = total / n
        variance = (square / n - mean**2).clamp_min(0)
        of_channel = variance.mean(dim=(1, 2), keepdim=True)
        shrunk = (n * variance + _PRIOR_IMAGES * of_channel) / (n + _PRIOR_IMAGES)
        result.append(Moments(mean.float(), shrunk.clamp_min(_SMALLEST_VARIANCE).float()))
    return result


def _by_channel(moments: Moments) -> Moments:
    """The same features' mean and variance over all pixels of a channel."""
    mean = moments.mean.mean(dim=(1, 2), keepdim=True)
    spread = (moments.mean - mean).square().mean(dim=(1, 2), keepdim=True)
    return Moments(mean, moments.variance.mean(dim=(1, 2), keepdim=True) + spread)

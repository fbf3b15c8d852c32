"""What the features are made to look like before the flow: mean 0, variance 1, and where it can be had, uncorrelated.

Mean and variance are kept in the extractor's own layer normalisation, whose affine part holds one gain and one offset
for each channel and pixel. Trained along with the flow, as upstream does, the gain is a way to cheat: the flow's
Jacobian does not count it, so shrinking it raises the likelihood of everything. Set once from the training images and
left alone, it gives the flow a fair start, and upstream's code can still load it.

Whitening adds one C x C matrix for each pixel. The flow's own convolutions are the same everywhere, so on parts that
lie aligned they cannot learn which channels go together *here*; the covariances can (Defard et al., "PaDiM", 2021).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uflow_edge.export.network.architecture import Architecture
from uflow_edge.export.network.uflow import UFlow, whiten
from uflow_edge.runtime.errors import UsageError
from uflow_edge.training.features import Features
from uflow_edge.training.options import Standardization, StandardizationChoice

LARGEST_WHITENING = 64 * 2**20
"""Bytes of matrices beyond which ``auto`` does not consider them: they travel with the model."""

_BATCH = 16
_PRIOR_IMAGES = 32
"""How many images' worth of weight the whole map has in one pixel's variance and correlations."""
_SMALLEST_VARIANCE = 1e-4
_RIDGE = 0.01
"""Of the correlations, so that channels that repeat each other do not blow up."""


@dataclass(frozen=True, slots=True)
class Normal:
    """A normal law of one scale's features.

    Attributes:
        mean, variance: broadcastable to (C, H, W), float32.
        whitening: (H*W, C, C) float32, symmetric, of the standardised features; None where channels are taken as
            independent.
    """

    mean: Tensor
    variance: Tensor
    whitening: Tensor | None = None

    def negative_log_likelihood(self, features: Tensor) -> float:
        """Sum over (N, C, H, W) features, without the law's constant, in nats."""
        scores = (features - self.mean) * self.variance.rsqrt()
        log_volume = 0.5 * self.variance.log().expand(features.shape[1:]).sum(dtype=torch.float64)
        if self.whitening is not None:
            scores = whiten(scores, self.whitening)
            log_volume -= torch.linalg.slogdet(self.whitening.double()).logabsdet.sum()
        return float(0.5 * scores.square().sum(dtype=torch.float64) + len(features) * log_volume)


def suited(network: UFlow, choice: StandardizationChoice) -> StandardizationChoice:
    """The choice, or ``none`` for ``auto`` where there is no layer normalisation of ours to keep the moments in.

    Raises:
        UsageError: the extractor has none, and something else than ``none`` is asked for.
    """
    if network.feature_extractor.feature_normalizations:
        return choice
    if choice not in ("auto", "none"):
        raise UsageError(
            f"standardising by {choice}: the backbones of {network.architecture.extractor} normalise their features "
            "themselves, and the flow takes them as they are; leave it out, or say none"
        )
    return "none"


def standardize(
    network: UFlow, fit: Features, held_out: Features, choice: StandardizationChoice = "auto"
) -> Standardization:
    """Set the network's layer normalisation, and its whitening if that is chosen, from training images.

    ``position`` takes mean and variance of each channel at each pixel, ``whiten`` the covariance of the channels there
    too: right for parts that lie aligned. ``channel`` takes mean and variance over all pixels: right for textures.
    ``auto`` takes whichever makes the held-out images likeliest.

    Args:
        network: changed in place.
        fit: images to take the moments from.
        held_out: other good images, to choose by.

    Returns:
        What was chosen.
    """
    if choice == "none":
        return choice
    candidates = dict(_candidates(network.architecture, fit, choice))
    chosen = _likeliest(candidates, held_out)
    for (gain, offset), normal in zip(network.feature_extractor.affine(), candidates[chosen], strict=True):
        gain.data.copy_(normal.variance.rsqrt().expand_as(gain))
        offset.data.copy_(-normal.mean * gain)
    matrices = [normal.whitening for normal in candidates[chosen] if normal.whitening is not None]
    if matrices:
        network.set_whitening(matrices)
    return chosen


def whitening_bytes(architecture: Architecture) -> int:
    """Size of the matrices that whitening adds to a model."""
    return sum(4 * scale.side**2 * scale.channels**2 for scale in architecture.features)


def _candidates(
    architecture: Architecture, fit: Features, choice: StandardizationChoice
) -> Iterator[tuple[Standardization, list[Normal]]]:
    by_position = _by_position(fit)
    if choice in ("auto", "position"):
        yield "position", by_position
    if choice in ("auto", "channel"):
        yield "channel", [_by_channel(normal) for normal in by_position]
    if choice == "whiten" or (choice == "auto" and whitening_bytes(architecture) <= LARGEST_WHITENING):
        yield "whiten", _whitened(fit, by_position)


def _likeliest(candidates: dict[Standardization, list[Normal]], features: Features) -> Standardization:
    costs = dict.fromkeys(candidates, 0.0)
    for name, normals in candidates.items() if len(candidates) > 1 else ():
        for batch in _batches(features):
            costs[name] += sum(n.negative_log_likelihood(f) for n, f in zip(normals, batch, strict=True))
    return min(costs, key=costs.__getitem__)


def _batches(features: Features) -> Iterator[tuple[Tensor, ...]]:
    for start in range(0, len(features), _BATCH):
        yield features.batch(np.arange(start, min(start + _BATCH, len(features))), epoch=0)


def _by_position(features: Features) -> list[Normal]:
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
        result.append(Normal(mean.float(), shrunk.clamp_min(_SMALLEST_VARIANCE).float()))
    return result


def _by_channel(normal: Normal) -> Normal:
    """The same features' mean and variance over all pixels of a channel."""
    mean = normal.mean.mean(dim=(1, 2), keepdim=True)
    spread = (normal.mean - mean).square().mean(dim=(1, 2), keepdim=True)
    return Normal(mean, normal.variance.mean(dim=(1, 2), keepdim=True) + spread)


def _whitened(features: Features, normals: list[Normal]) -> list[Normal]:
    """The same laws with the correlations of the channels at each pixel, shrunk towards those of the whole map."""
    n = len(features)
    products: list[Tensor] = []
    for batch in _batches(features):
        scores = [(f - normal.mean) * normal.variance.rsqrt() for normal, f in zip(normals, batch, strict=True)]
        by_pixel = [score.flatten(2).permute(2, 1, 0) for score in scores]  # (H*W, C, N)
        added = [torch.bmm(s, s.transpose(1, 2)) for s in by_pixel]
        products = [total + new for total, new in zip(products, added, strict=True)] if products else added
    result = []
    for normal, product in zip(normals, products, strict=True):
        correlation = product / n
        of_map = correlation.mean(dim=0, keepdim=True)
        shrunk = (n * correlation + _PRIOR_IMAGES * of_map) / (n + _PRIOR_IMAGES)
        values, vectors = torch.linalg.eigh(shrunk + _RIDGE * torch.eye(shrunk.shape[1]))
        matrices = (vectors * values.rsqrt().unsqueeze(1)) @ vectors.transpose(1, 2)
        result.append(Normal(normal.mean, normal.variance, matrices.contiguous()))
    return result

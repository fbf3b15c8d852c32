"""Standardises features before the flow: mean 0, variance 1 and, with whitening, uncorrelated channels.

Mean and variance are stored in the extractor's own layer normalisation, whose affine part has one gain and one offset
per channel and pixel. If the gain is trained with the flow, as upstream does, it distorts the fit: the flow's Jacobian
does not include the gain, so a smaller gain raises every likelihood. Here it is computed once from the training images
and then fixed, which upstream's code can still load.

Whitening adds one C x C matrix per pixel. The flow's convolutions are the same at every pixel, so on aligned parts they
cannot learn the correlations of a particular place; the covariances can (Defard et al., "PaDiM", 2021). With joint
features they are also those between scales.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uflow_edge.export.network.architecture import Architecture
from uflow_edge.export.network.extractors import FeatureExtractor
from uflow_edge.export.network.joint import JointExtractor
from uflow_edge.export.network.uflow import UFlow, whiten
from uflow_edge.runtime.errors import UsageError
from uflow_edge.training.features import Features
from uflow_edge.training.options import LARGEST_WHITENING, Standardization, StandardizationChoice

_BATCH = 16
_PRIOR_IMAGES = 8
"""Weight of a channel's variance over the whole map in its variance at a pixel, in images."""
_SMALLEST_VARIANCE = 1e-4
"""Of the channel's, so that a pixel that never changes gets no extreme gain."""
_RIDGE = 0.01
"""Added to the diagonal of the correlations, so that redundant channels are not amplified."""


@dataclass(frozen=True, slots=True)
class Normal:
    """The normal law of the features of one scale.

    Attributes:
        mean, variance: broadcastable to (C, H, W), float32.
        whitening: (H*W, C, C) float32, symmetric, for the standardised features; None for independent channels.
        log_determinant: of all whitening matrices together, in nats; 0 without them.
    """

    mean: Tensor
    variance: Tensor
    whitening: Tensor | None = None
    log_determinant: float = 0.0

    def scores(self, features: Tensor) -> Tensor:
        """Standardised, and whitened if channels depend on each other; (N, C, H, W) both."""
        scores = (features - self.mean) * self.variance.rsqrt()
        return scores if self.whitening is None else whiten(scores, self.whitening)

    def negative_log_likelihood(self, features: Tensor) -> float:
        """Sum over (N, C, H, W) features, without the law's constant, in nats."""
        log_volume = 0.5 * float(self.variance.log().expand(features.shape[1:]).sum(dtype=torch.float64))
        energy = float(self.scores(features).square().sum(dtype=torch.float64))
        return 0.5 * energy + len(features) * (log_volume - self.log_determinant)


def supported_choice(network: UFlow, choice: StandardizationChoice) -> StandardizationChoice:
    """The choice, or ``none`` for ``auto`` if the extractor has no layer normalisation of ours to store the moments.

    Raises:
        UsageError: the extractor has none, and the choice is neither ``auto`` nor ``none``.
    """
    if network.feature_extractor.affine():
        return choice
    if choice not in ("auto", "none"):
        raise UsageError(
            f"--standardize {choice}: the backbones of {network.architecture.extractor} normalise their features "
            "themselves; leave the option out, or use --standardize none"
        )
    return "none"


def standardize(
    network: UFlow, fit: Features, held_out: Features, choice: StandardizationChoice = "auto"
) -> Standardization:
    """Set the network's standardisation, and its whitening if chosen, from training images.

    ``position`` uses mean and variance of each channel at each pixel, ``whiten`` also the covariance of the channels
    there: both suit aligned parts. ``channel`` uses mean and variance over all pixels and suits textures. ``auto``
    chooses the one with the best likelihood of the held-out images.

    Args:
        network: changed in place.
        fit: features of the images that give the moments.
        held_out: features of other good images, which decide ``auto``.

    Returns:
        The choice.
    """
    if choice == "none":
        return choice
    extractor = network.feature_extractor
    if isinstance(extractor, JointExtractor):
        standardize_taps(extractor, fit)
    candidates = dict(normal_laws(extractor, network.architecture, fit, choice))
    chosen = _likeliest(candidates, extractor, held_out)
    for (gain, offset), normal in zip(extractor.affine(), candidates[chosen], strict=True):
        _set_affine(gain, offset, normal)
    matrices = [normal.whitening for normal in candidates[chosen] if normal.whitening is not None]
    if matrices:
        network.set_whitening(matrices)
    return chosen


def standardize_taps(extractor: JointExtractor, fit: Features) -> None:
    """Set the gains and offsets of tapped features, before they are joined, from each pixel's moments."""
    for affine, normal in zip(extractor.tap_affines, _by_position(_batches(fit)), strict=True):
        gain, offset = affine.parameters()
        _set_affine(gain, offset, normal)


def normal_laws(
    extractor: FeatureExtractor, architecture: Architecture, fit: Features, choice: StandardizationChoice
) -> Iterator[tuple[Standardization, list[Normal]]]:
    """The laws of prepared features to choose from, finest scale first: all that ``auto`` considers, or the choice."""
    by_position = _by_position(_prepared(extractor, fit))
    if choice in ("auto", "position"):
        yield "position", by_position
    if choice in ("auto", "channel"):
        yield "channel", [_by_channel(normal) for normal in by_position]
    if choice == "whiten" or (choice == "auto" and architecture.whitening_bytes <= LARGEST_WHITENING):
        yield "whiten", _whitened(extractor, fit, by_position)


def _set_affine(gain: Tensor, offset: Tensor, normal: Normal) -> None:
    scale = normal.variance.rsqrt().expand_as(gain)  # moments are in host memory
    gain.data.copy_(scale)
    offset.data.copy_(-normal.mean * scale)


def _likeliest(
    candidates: dict[Standardization, list[Normal]], extractor: FeatureExtractor, features: Features
) -> Standardization:
    costs = dict.fromkeys(candidates, 0.0)
    for name, normals in candidates.items() if len(candidates) > 1 else ():
        for batch in _prepared(extractor, features):
            costs[name] += sum(n.negative_log_likelihood(f) for n, f in zip(normals, batch, strict=True))
    return min(costs, key=costs.__getitem__)


def _batches(features: Features) -> Iterator[tuple[Tensor, ...]]:
    for start in range(0, len(features), _BATCH):
        yield features.batch(np.arange(start, min(start + _BATCH, len(features))), epoch=0)


def _prepared(extractor: FeatureExtractor, features: Features) -> Iterator[tuple[Tensor, ...]]:
    device = next(extractor.parameters()).device
    for batch in _batches(features):
        with torch.no_grad():
            prepared = extractor.prepare([feature.to(device) for feature in batch])
        yield tuple(feature.cpu() for feature in prepared)


def _by_position(batches: Iterator[tuple[Tensor, ...]]) -> list[Normal]:
    """Per channel and pixel; the variance is shrunk towards the channel's, as few images would give extreme gains."""
    n = 0
    sums: list[Tensor] = []
    squares: list[Tensor] = []
    for batch in batches:
        n += len(batch[0])
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
        smallest = (_SMALLEST_VARIANCE * of_channel).clamp_min(1e-12)  # a channel may be dead
        shrunk = (n * variance + _PRIOR_IMAGES * of_channel) / (n + _PRIOR_IMAGES)
        result.append(Normal(mean.float(), torch.maximum(shrunk, smallest).float()))
    return result


def _by_channel(normal: Normal) -> Normal:
    """Mean and variance over all pixels of a channel, from those per pixel."""
    mean = normal.mean.mean(dim=(1, 2), keepdim=True)
    spread = (normal.mean - mean).square().mean(dim=(1, 2), keepdim=True)
    return Normal(mean, normal.variance.mean(dim=(1, 2), keepdim=True) + spread)


def _whitened(extractor: FeatureExtractor, fit: Features, normals: list[Normal]) -> list[Normal]:
    """Add the whitening per pixel, from the correlations of the channels there.

    Shrinking them towards those of the whole map raises the held-out likelihood and finds fewer defects; shrinking them
    as Ledoit and Wolf (2004) do gains nothing. See docs/training.md.
    """
    n = len(fit)
    products: list[Tensor] = []
    for batch in _prepared(extractor, fit):
        scores = [normal.scores(f) for normal, f in zip(normals, batch, strict=True)]
        by_pixel = [score.flatten(2).permute(2, 1, 0) for score in scores]  # (H*W, C, N)
        added = [torch.bmm(s, s.transpose(1, 2)) for s in by_pixel]
        products = [total + new for total, new in zip(products, added, strict=True)] if products else added
    result = []
    for normal, product in zip(normals, products, strict=True):
        with _one_thread():
            values, vectors = torch.linalg.eigh(product / n + _RIDGE * torch.eye(product.shape[1]))
        matrices = (vectors * values.rsqrt().unsqueeze(1)) @ vectors.transpose(1, 2)
        log_determinant = -0.5 * float(values.double().log().sum())
        result.append(Normal(normal.mean, normal.variance, matrices.contiguous(), log_determinant))
    return result


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small matrices gain nothing from threads, which take a hundred times as long where another program runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

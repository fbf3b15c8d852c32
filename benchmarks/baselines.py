"""Two detectors without gradient training, on the same features of the same backbone that the flow is given."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from uflow_edge.export.network.extractors import pooled
from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.training.features import Features

_RIDGE = 0.01
_MEMORY_SHARE = 0.05
_BATCH = 16


def stacked(features: Features, pooling: int) -> Tensor:
    """All scales of all images, pooled, layer-normalised, and enlarged to the finest one: (N, ΣC_i, H, W)."""
    tapped = features.batch(np.arange(len(features)), epoch=0)
    maps = [F.layer_norm(m, m.shape[1:]) for m in (pooled(feature, pooling) for feature in tapped)]
    size = maps[0].shape[2:]
    coarser = [F.interpolate(m, size, mode="bilinear", align_corners=False) for m in maps[1:]]
    return torch.cat([maps[0], *coarser], dim=1)


def gaussian_scores(good: Tensor, test: Tensor) -> list[float]:
    """A normal law with full covariance at each pixel; an image scores its largest Mahalanobis distance.

    After Defard et al., "PaDiM: a Patch Distribution Modeling Framework", 2021.

    Args:
        good, test: (N, C, H, W), standardised by channel.
    """
    by_pixel = good.flatten(2).permute(2, 0, 1)  # (H*W, N, C)
    mean = by_pixel.mean(dim=1, keepdim=True)
    centred = by_pixel - mean
    covariance = torch.bmm(centred.transpose(1, 2), centred) / (len(good) - 1)
    root = torch.linalg.cholesky(covariance + _RIDGE * torch.eye(good.shape[1]))
    scores: list[float] = []
    for batch in progress(test.split(_BATCH), "normal laws", unit="batch"):
        distance = batch.flatten(2).permute(2, 1, 0) - mean.transpose(1, 2)  # (H*W, C, N)
        squared = torch.linalg.solve_triangular(root, distance, upper=False).square().sum(dim=1)
        scores += squared.amax(dim=0).tolist()
    return scores


def nearest_neighbour_scores(good: Tensor, test: Tensor, seed: int) -> list[float]:
    """A memory of patches of good images, anywhere in them; an image scores its largest distance to it.

    After Roth et al., "Towards Total Recall in Industrial Anomaly Detection" (PatchCore), 2022, with a random memory.

    Args:
        good, test: (N, C, H, W), standardised by channel.
    """
    patches = good.permute(0, 2, 3, 1).flatten(0, 2)
    chosen = np.random.default_rng(seed).choice(len(patches), int(len(patches) * _MEMORY_SHARE), replace=False)
    memory = patches[chosen]
    scores = []
    for image in progress(test, "nearest neighbours", len(test)):
        query = image.flatten(1).T
        scores.append(float(torch.cdist(query, memory).amin(dim=1).amax()))
    return scores


def standardized_by_channel(good: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Both with the good images' mean 0 and variance 1 in each channel."""
    mean, std = good.mean(dim=(0, 2, 3), keepdim=True), good.std(dim=(0, 2, 3), keepdim=True)
    return (good - mean) / std, (test - mean) / std

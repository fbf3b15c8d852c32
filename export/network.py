"""The U-Flow network: frozen features, their normalisation, the flow; and the graph that is exported of it.

Module names follow the authors' checkpoints, so that theirs load here and ours load there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import cast

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uflow_edge.export.architecture import EXTRACTORS, Architecture
from uflow_edge.export.flow import build_flow, ordered_latents
from uflow_edge.runtime.nfa.block import exceedance_threshold


class FeatureExtractor(nn.Module):
    """Multi-scale features of a frozen timm backbone, layer-normalised over [C, H, W] (paper, section 3.1)."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.pooling = architecture.pooling
        self.extractor = timm.create_model(
            EXTRACTORS[architecture.extractor].timm_name,
            pretrained=False,
            features_only=True,
            out_indices=architecture.taps,
        ).requires_grad_(False)
        self.feature_normalizations = nn.ModuleList(
            nn.LayerNorm([scale.channels, scale.side, scale.side]) for scale in architecture.features
        ).requires_grad_(False)
        self.feature_whitenings = nn.ModuleList(
            Whitening(scale.side**2, scale.channels) for scale in architecture.features if architecture.whitening
        ).requires_grad_(False)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, S, S) normalised RGB to one (N, C_i, H_i, W_i) a scale, finest first."""
        return self.normalize(self.raw_features(image))

    def raw_features(self, image: Tensor) -> tuple[Tensor, ...]:
        """Features before the layer normalisation, pooled."""
        features = self.extractor(image)
        if self.pooling > 1:
            features = [
                F.avg_pool2d(f, self.pooling, stride=1, padding=self.pooling // 2, count_include_pad=False)
                for f in features
            ]
        return tuple(features)

    def normalize(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Layer normalisation of every scale, gain and offset included, and whitening if there is one."""
        return self._whiten(norm(f) for norm, f in zip(self.feature_normalizations, features, strict=True))

    def standardize(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The rest of `normalize` for features that are layer-normalised but lack gain and offset."""
        return self._whiten(f * gain + offset for (gain, offset), f in zip(self.affine(), features, strict=True))

    def _whiten(self, features: Iterable[Tensor]) -> tuple[Tensor, ...]:
        if not self.feature_whitenings:
            return tuple(features)
        return tuple(whitening(f) for whitening, f in zip(self.feature_whitenings, features, strict=True))

    def affine(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Gain and offset of every scale's layer normalisation, (C_i, H_i, W_i) each."""
        norms = [cast(nn.LayerNorm, norm) for norm in self.feature_normalizations]
        return tuple((norm.weight, norm.bias) for norm in norms)

    def train(self, mode: bool = True) -> "FeatureExtractor":
        """Stay in evaluation mode: the extractor is frozen, its batch statistics too."""
        return super().train(False)


class Whitening(nn.Module):
    """One matrix a pixel that takes the correlations out of the channels there; our addition to U-Flow."""

    def __init__(self, pixels: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(channels).expand(pixels, channels, channels).contiguous())

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W)."""
        return whiten(features, self.weight)


def whiten(features: Tensor, matrices: Tensor) -> Tensor:
    """Multiply the channels at each pixel with that pixel's matrix: (N, C, H, W) and (H*W, C, C) to (N, C, H, W)."""
    by_pixel = torch.bmm(matrices, features.flatten(2).permute(2, 1, 0))  # (H*W, C, N)
    return by_pixel.permute(2, 1, 0).reshape(features.shape)


class UFlow(nn.Module):
    """Images to latents that follow N(0, 1) where the image looks like the training images."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.feature_extractor = FeatureExtractor(architecture)
        self.flow = build_flow(architecture)

    def set_whitening(self, matrices: Sequence[Tensor]) -> None:
        """Whiten the features from now on, (H_i*W_i, C_i, C_i) a scale, finest first."""
        self.architecture = replace(self.architecture, whitening=True)
        modules = [Whitening(m.shape[0], m.shape[1]) for m in matrices]
        for module, matrix in zip(modules, matrices, strict=True):
            module.weight.data.copy_(matrix)
        self.feature_extractor.feature_whitenings = nn.ModuleList(modules).requires_grad_(False)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, S, S) normalised RGB to latents z_i (N, C_i, H_i, W_i), finest first."""
        return self.latents(self.feature_extractor(image), jac=False)[0]

    def latents(self, features: Sequence[Tensor], jac: bool) -> tuple[tuple[Tensor, ...], Tensor]:
        """Normalised features to latents and, with ``jac``, the log-determinant of the Jacobian (N,)."""
        return ordered_latents(self.flow, tuple(features), jac)


class EnergyGraph(nn.Module):
    """What is exported: the resized picture in, sufficient statistics of the latents out.

    Cast, layout and normalisation of the picture are inside, so they travel with the weights.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: UFlow, exceedance_probability: float) -> None:
        super().__init__()
        self.network = network
        self.threshold = exceedance_threshold(exceedance_probability)
        extractor = EXTRACTORS[network.architecture.extractor]
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (extractor.mean, extractor.std))
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)

    def normalized(self, image: Tensor) -> Tensor:
        """(N, S, S, 3) uint8 RGB to (N, 3, S, S) float32 as the extractor expects it."""
        return image.permute(0, 3, 1, 2).float() * self.scale + self.shift

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(N, S, S, 3) uint8 RGB to energies, then exceedance counts, each (N, H_i, W_i) float32, finest first."""
        squares = [z.square() for z in self.network(self.normalized(image))]
        energies = [square.sum(dim=1) for square in squares]
        exceedances = [(square >= self.threshold).float().sum(dim=1) for square in squares]
        return (*energies, *exceedances)

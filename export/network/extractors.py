"""Frozen backbones that turn an image into feature maps for the flow (paper, section 3.1)."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uflow_edge.export.network.architecture import Architecture
from uflow_edge.export.network.backbones import EXTRACTORS, timm_features
from uflow_edge.export.wording import brief, one_line
from uflow_edge.runtime.errors import BadInput

_BLOCK = re.compile(r"extractor\.blocks\.(\d+)\.")
_FINEST_NORMALIZATION = "feature_extractor.feature_normalizations.0.weight"


class FeatureExtractor(nn.Module):
    """Multi-scale features of a frozen timm backbone, layer-normalised over [C, H, W] (paper, section 3.1).

    Module names follow the authors' checkpoints.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.pooling = architecture.pooling
        self.add_backbone(architecture)
        self.feature_whitenings = nn.ModuleList(
            Whitening(scale.side**2, scale.channels) for scale in architecture.features if architecture.whitening
        ).requires_grad_(False)

    def add_backbone(self, architecture: Architecture) -> None:
        """Create the modules that `tapped` and `normalize` run; called once, on construction."""
        known = architecture.backbone
        backbone = timm_features(known.timm_name, out_indices=[tap - known.finest_level for tap in architecture.taps])
        last = backbone.feature_info.module_name()[-1]
        if last.startswith("blocks.") and hasattr(backbone, "blocks"):  # timm keeps, and runs, blocks that no tap reads
            del backbone.blocks[int(last.split(".")[1]) + 1 :]
        self.extractor = backbone.eval().requires_grad_(False)
        if architecture.extractor not in EXTRACTORS:
            self._check_maps(architecture)
        self.feature_normalizations = nn.ModuleList(
            nn.LayerNorm([scale.channels, scale.side, scale.side]) for scale in architecture.features
        ).requires_grad_(False)

    def _check_maps(self, architecture: Architecture) -> None:
        """Run a network of timm once, since not all of them have the maps that timm states, or take every size."""
        side, expected = architecture.input_size, [(1, s.channels, s.side, s.side) for s in architecture.tapped]
        try:
            with torch.no_grad():
                found = [tuple(f.shape) for f in self.extractor(torch.zeros(1, 3, side, side))]
        except Exception as error:  # every network has its own way to say no
            raise BadInput(
                f"{architecture.extractor} does not take input size {side}: {one_line(str(error))}"
            ) from error
        if found != expected:
            raise BadInput(
                f"{architecture.extractor} gives feature maps of shapes {brief(found)} at input size {side}; expected "
                f"{brief(expected)}, as convolutional networks give them"
            )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, S, S) normalised RGB to the features that enter the flow, (N, C_i, H_i, W_i), finest first."""
        return self.normalize(self.pool(self.tapped(image)))

    def tapped(self, image: Tensor) -> tuple[Tensor, ...]:
        """Features as the backbone gives them, finest first."""
        return tuple(self.extractor(image))

    def pool(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Average over a window around each pixel, which holds only the map's own pixels at its border."""
        return tuple(pooled(feature, self.pooling) for feature in features)

    def prepare(self, tapped: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Tapped features, pooled and layer-normalised without gain and offset, as `standardize` expects them."""
        return tuple(F.layer_norm(feature, feature.shape[1:]) for feature in self.pool(tapped))

    def normalize(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Layer normalisation of every scale, gain and offset included, and whitening if there is one."""
        return self._whiten(norm(f) for norm, f in zip(self.feature_normalizations, features, strict=True))

    def standardize(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Gain, offset and whitening of features that `prepare` gave: what enters the flow."""
        return self._whiten(f * gain + offset for (gain, offset), f in zip(self.affine(), features, strict=True))

    def _whiten(self, features: Iterable[Tensor]) -> tuple[Tensor, ...]:
        if not self.feature_whitenings:
            return tuple(features)
        return tuple(whitening(f) for whitening, f in zip(self.feature_whitenings, features, strict=True))

    def affine(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Gain and offset of every scale's layer normalisation, (C_i, H_i, W_i) each."""
        norms = [cast(nn.LayerNorm, norm) for norm in self.feature_normalizations]
        return tuple((norm.weight, norm.bias) for norm in norms)

    def last_normalization(self, level: int) -> "nn.LayerNorm | PixelAffine":
        """The layer whose gain and offset are the last thing that happens to a scale's features before whitening."""
        return cast(nn.LayerNorm, self.feature_normalizations[level])

    def leaves_out(self, name: str) -> bool:
        """Whether a weight in a checkpoint belongs to a part of the backbone that nothing reads."""
        block, blocks = _BLOCK.match(name), getattr(self.extractor, "blocks", None)
        return block is not None and blocks is not None and int(block[1]) >= len(blocks)

    def train(self, mode: bool = True) -> "FeatureExtractor":
        """Stay in evaluation mode: the extractor is frozen, its batch statistics too."""
        return super().train(False)


def trained_size(extractor: str, weights: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """Height and width of the input, read off the normalisation of the finest features, where there is one."""
    known, found = EXTRACTORS[extractor], weights.get(_FINEST_NORMALIZATION)
    if known.fixed_input_size is not None or found is None or found.ndim != 3:
        return None
    stride = 2 ** (known.taps[0] + 1)
    return found.shape[1] * stride, found.shape[2] * stride


def pooled(features: Tensor, side: int) -> Tensor:
    """Means over side x side pixels around each pixel of (N, C, H, W); at the border, over those that are there."""
    if side == 1:
        return features
    return F.avg_pool2d(features, side, stride=1, padding=side // 2, count_include_pad=False)


class PixelAffine(nn.Module):
    """A gain and an offset for each channel at each pixel, (C, H, W) each, like the end of a layer normalisation."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(*shape))
        self.bias = nn.Parameter(torch.zeros(*shape))

    def forward(self, features: Tensor) -> Tensor:
        return features * self.weight + self.bias


class Whitening(nn.Module):
    """One matrix a pixel that takes the correlations out of the channels there; our addition to U-Flow."""

    def __init__(self, pixels: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(channels).expand(pixels, channels, channels).contiguous())

    def forward(self, features: Tensor) -> Tensor:
        return whiten(features, self.weight)


def whiten(features: Tensor, matrices: Tensor) -> Tensor:
    """Multiply the channels at each pixel with that pixel's matrix: (N, C, H, W) and (H*W, C, C) to (N, C, H, W)."""
    by_pixel = torch.bmm(matrices, features.flatten(2).permute(2, 1, 0))  # (H*W, C, N)
    return by_pixel.permute(2, 1, 0).reshape(features.shape)

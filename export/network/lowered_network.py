"""The whole network rewritten for inference: the lowered flow, on features in the form that it expects."""

from copy import deepcopy
from typing import cast

import torch
from timm.utils.model import reparameterize_model
from torch import Tensor, nn

from uflow_edge.export.network.channels import Affine
from uflow_edge.export.network.extractors import FeatureExtractor, Whitening
from uflow_edge.export.network.lowering import lower_flow
from uflow_edge.export.network.uflow import UFlow


class LoweredUFlow(nn.Module):
    """Images to the latents of a `UFlow`, their channels in another order."""

    def __init__(self, network: UFlow) -> None:
        super().__init__()
        self.architecture = network.architecture
        self.feature_extractor = deepcopy(network.feature_extractor)
        # Branches that timm can join, as those of RepViT and MobileOne, become one convolution: 5 to 10 % faster.
        reparameterize_model(self.feature_extractor, inplace=True)
        self.flow = lower_flow(network.flow, network.architecture)
        for level, required in enumerate(self.flow.entering):
            _absorb(self.feature_extractor, level, required)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, S, S) normalised RGB to latents (N, C_i, H_i, W_i), finest first."""
        latents: tuple[Tensor, ...] = self.flow(*self.feature_extractor(image))
        return latents


@torch.no_grad()
def lower(network: UFlow) -> LoweredUFlow:
    """Rewrite a network for inference; the original is not changed.

    Args:
        network: in evaluation mode, with hard permutations.
    """
    return LoweredUFlow(network).eval().requires_grad_(False)


def _absorb(extractor: FeatureExtractor, level: int, required: Affine) -> None:
    """Change the affine end of a feature normalisation so that its channels come as the flow expects them."""
    norm = extractor.last_normalization(level)  # of [C], or of [C, H, W]
    by_channel = (-1, *[1] * (norm.weight.ndim - 1))
    gain, offset = required.gain.view(by_channel), required.offset.view(by_channel)
    if not extractor.feature_whitenings:
        norm.weight.data, norm.bias.data = (norm.weight / gain).float(), ((norm.bias - offset) / gain).float()
        return
    whitening = cast(Whitening, extractor.feature_whitenings[level])
    matrices = whitening.weight.double() / required.gain.view(1, -1, 1)
    offset = -(required.offset / required.gain).view(-1, 1, 1)
    extractor.feature_whitenings[level] = _OffsetWhitening(matrices.transpose(1, 2).float(), offset.float())


class _OffsetWhitening(nn.Module):
    """A `Whitening` whose channels come as the flow expects them.

    Its input stays standardised, because FP16 rounds numbers near 0 the least. Channels come last in between, as in
    engines that compute channels-last, so that no transposition is left.
    """

    weight: Tensor
    offset: Tensor

    def __init__(self, weight: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)  # (H*W, C, C), from the right
        self.register_buffer("offset", offset)  # (C, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        batch, channels, height, width = features.shape
        by_pixel = features.permute(2, 3, 0, 1).reshape(height * width, batch, channels)
        whitened = torch.bmm(by_pixel, self.weight).reshape(height, width, batch, channels)
        return whitened.permute(2, 3, 0, 1) + self.offset

"""The authors' extractor `mcait`: two vision transformers (CaiT), each at a resolution of its own (paper, table 6)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from uflow_edge.export.network.architecture import Architecture
from uflow_edge.export.network.extractors import FeatureExtractor


@dataclass(frozen=True, slots=True)
class Backbone:
    """One of the two: its module name here, its name in timm, how many of its blocks are run, and how many it has."""

    module: str
    timm_name: str
    blocks: int
    blocks_in_timm: int


FINE = Backbone("extractor1", "cait_m48_448", 41, 48)
COARSE = Backbone("extractor2", "cait_s24_224", 21, 24)
COARSE_INPUT_SIZE = 224
_PART = re.compile(r"(?P<module>extractor[12])\.(blocks\.(?P<block>\d+)|blocks_token_only|head)\.")


class McaitExtractor(FeatureExtractor):
    """CaiT-M48 on the image and CaiT-S24 on the image at half its side: (N, 768, 28, 28) and (N, 384, 14, 14).

    Blocks and heads that nothing reads are not created; checkpoints hold them all the same (`leaves_out`).
    """

    extractor1: nn.Module
    extractor2: nn.Module
    halve: Tensor

    def add_backbone(self, architecture: Architecture) -> None:
        for backbone in (FINE, COARSE):
            model = timm.create_model(
                backbone.timm_name, pretrained=False, depth=backbone.blocks, depth_token_only=0, num_classes=0
            )
            self.add_module(backbone.module, model.requires_grad_(False))
        self.feature_normalizations = nn.ModuleList()  # the backbones have their own
        # On the CPU whatever the default device: no checkpoint brings it, so it must not wait for its values on "meta".
        with torch.device("cpu"):
            halve = resize_matrix(architecture.input_size, COARSE_INPUT_SIZE)
        self.register_buffer("halve", halve, persistent=False)

    def tapped(self, image: Tensor) -> tuple[Tensor, ...]:
        """Features after each backbone's own layer normalisation, over channels."""
        # A fixed resize is a product with one constant matrix a side: exact, and every engine takes it.
        half = self.halve @ image @ self.halve.T
        return _features(self.extractor1, image), _features(self.extractor2, half)

    def prepare(self, tapped: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(tapped)

    def normalize(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Whitening, if there is one: the features are normalised already."""
        return self._whiten(features)

    def standardize(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Likewise: they lack neither gain nor offset."""
        return self._whiten(features)

    def last_normalization(self, level: int) -> nn.LayerNorm:
        """The backbone's own, over channels alone."""
        return cast(nn.LayerNorm, (self.extractor1, self.extractor2)[level].norm)

    def leaves_out(self, name: str) -> bool:
        """Whether a weight belongs to a classifier, or to a block after the last that is run."""
        part = _PART.match(name)
        if part is None:
            return False
        backbone = next(known for known in (FINE, COARSE) if known.module == part["module"])
        return part["block"] is None or backbone.blocks <= int(part["block"]) < backbone.blocks_in_timm


def _features(model: Any, image: Tensor) -> Tensor:
    tokens: Tensor = model.norm(model.blocks(model.patch_embed(image) + model.pos_embed))  # (N, H*W, C)
    height, width = model.patch_embed.grid_size
    return tokens.transpose(1, 2).reshape(-1, tokens.shape[2], height, width)


def resize_matrix(size: int, to: int) -> Tensor:
    """The bicubic resize with aligned corners, along one axis, as a matrix (to, size).

    Keys' kernel with a = -0.75 on the four nearest samples, those beyond the ends repeated, without antialiasing: what
    torch's ``interpolate(mode="bicubic", align_corners=True)`` does.
    """
    # In float32, for torch's positions are rounded like that: by up to 1e-5 samples, 2e-4 in the result.
    position = (torch.arange(to) * torch.tensor((size - 1) / (to - 1))).double()
    left = position.floor()
    matrix = torch.zeros(to, size, dtype=torch.float64)
    for offset in (-1, 0, 1, 2):
        distance = (position - left - offset).abs()
        sample = (left + offset).clamp(0, size - 1).long()
        matrix.scatter_add_(1, sample[:, None], _keys(distance)[:, None])
    return matrix.float()


def _keys(distance: Tensor, a: float = -0.75) -> Tensor:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, 0.0))

"""Features of all taps in one map, so that one law describes what the scales say together; our addition to U-Flow.

Scales that are judged apart cannot help each other: a weak one raises false alarms, and what one sees is surprising
only given what the other sees. So the maps are averaged down to the coarsest one and stacked, and the covariances of
whitening also hold between scales, as in Defard et al., "PaDiM", 2021.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uflow_edge.export.network.architecture import Architecture
from uflow_edge.export.network.extractors import FeatureExtractor, PixelAffine


class JointExtractor(FeatureExtractor):
    """One (N, ΣC_i, H, W) map at the coarsest stride.

    Features are standardised at each pixel before the layer normalisation. So what the latter takes out is how much
    the image as a whole differs from the training images, in all channels and places alike; of features as they are,
    it would be the contrast of a few channels. Pooling and averaging follow it.
    """

    def add_backbone(self, architecture: Architecture) -> None:
        super().add_backbone(architecture)
        joint = architecture.features[0]
        self.sides = [scale.side // joint.side for scale in architecture.tapped]
        self.feature_normalizations = nn.ModuleList()
        self.tap_affines = nn.ModuleList(
            PixelAffine((scale.channels, scale.side, scale.side)) for scale in architecture.tapped
        ).requires_grad_(False)
        self.joint_affine = PixelAffine((joint.channels, joint.side, joint.side)).requires_grad_(False)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.standardize(self.prepare(self.tapped(image)))

    def prepare(self, tapped: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Tapped features, standardised, layer-normalised, pooled, averaged down and stacked."""
        scores = (affine(f) for affine, f in zip(self.tap_affines, tapped, strict=True))
        pooled = self.pool([F.layer_norm(score, score.shape[1:]) for score in scores])
        averaged = [f if side == 1 else F.avg_pool2d(f, side) for f, side in zip(pooled, self.sides, strict=True)]
        return (torch.cat(averaged, dim=1),)

    def affine(self) -> tuple[tuple[Tensor, Tensor], ...]:
        return ((self.joint_affine.weight, self.joint_affine.bias),)

    def last_normalization(self, level: int) -> PixelAffine:
        return self.joint_affine

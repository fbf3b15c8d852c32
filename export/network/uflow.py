"""The U-Flow network: frozen features, their normalisation and the flow; and the graph that is exported.

Module names follow the authors' checkpoints, so that theirs load here and ours load there.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from uflow_edge.export.network.architecture import Architecture
from uflow_edge.export.network.backbones import Normalization
from uflow_edge.export.network.extractors import FeatureExtractor, Whitening, whiten
from uflow_edge.export.network.flow import build_flow, ordered_latents
from uflow_edge.export.network.joint import JointExtractor
from uflow_edge.export.network.mcait import McaitExtractor
from uflow_edge.runtime.engines import Outputs
from uflow_edge.runtime.nfa.block import exceedance_threshold
from uflow_edge.runtime.numeric import Image

if TYPE_CHECKING:
    from uflow_edge.export.network.lowered_network import LoweredUFlow

__all__ = ["EnergyGraph", "FeatureExtractor", "UFlow", "build_extractor", "torch_runner", "whiten"]


def build_extractor(architecture: Architecture) -> FeatureExtractor:
    """The extractor of an architecture, its weights not yet loaded."""
    if architecture.extractor == "mcait":
        return McaitExtractor(architecture)
    return JointExtractor(architecture) if architecture.joint else FeatureExtractor(architecture)


class UFlow(nn.Module):
    """Images to latents that follow N(0, 1) where the image looks like the training images."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.feature_extractor = build_extractor(architecture)
        self.flow = build_flow(architecture)

    def set_whitening(self, matrices: Sequence[Tensor]) -> None:
        """Whiten the features from now on, with (H_i*W_i, C_i, C_i) per scale, finest first."""
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
    """The exported graph: from the resized picture to sufficient statistics of the latents.

    Cast, layout and normalisation of the picture are inside, so they travel with the weights.

    Args:
        network: in evaluation mode, as trained or lowered.
        normalization: of the picture; default, what the extractor's ImageNet weights expect.
        exceedance_probability: p at which exceedances are counted, for the block NFA; default, energies alone.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        network: "UFlow | LoweredUFlow",
        normalization: Normalization | None = None,
        exceedance_probability: float | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.threshold = None if exceedance_probability is None else exceedance_threshold(exceedance_probability)
        known = normalization or network.architecture.backbone.normalization
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (known.mean, known.std))
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)

    def normalized(self, image: Tensor) -> Tensor:
        """(N, S, S, 3) uint8 RGB to (N, 3, S, S) float32 as the extractor expects it."""
        # Cast first: TensorRT-RTX transposes floating point, but not uint8.
        return image.float().permute(0, 3, 1, 2) * self.scale + self.shift

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(N, S, S, 3) uint8 RGB to energies, then exceedances, if counted; (N, H_i, W_i) float32, finest first."""
        squares = [z * z for z in self.network(self.normalized(image))]
        energies = [square.sum(dim=1) for square in squares]
        if self.threshold is None:
            return tuple(energies)
        exceedances = [(square >= self.threshold).float().sum(dim=1) for square in squares]
        return (*energies, *exceedances)


def torch_runner(graph: EnergyGraph) -> Callable[[Image], Outputs]:
    """A function that runs a graph in torch, as engines do: (N, S, S, 3) uint8 RGB to its outputs."""

    def run(images: Image) -> Outputs:
        with torch.no_grad():
            return tuple(output.numpy() for output in graph(torch.from_numpy(images)))

    return run

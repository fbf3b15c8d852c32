"""The pipeline of the authors, in PyTorch as it comes: the picture through PIL, torchvision and FrEIA to a verdict.

Our own writing throughout, after the paper and after what the authors' code was seen to compute: the network that
checkpoints load into (`uflow_edge.export.network.uflow`), unlowered, and the tree NFA of `python_tree`. Its numbers are
those of the authors' code; its time is not (docs/peers.md).
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image as Pil
from torch import Tensor
from torchvision import transforms

from uflow_edge.benchmarks.studies.peers.python_tree import tree_score
from uflow_edge.export.checkpoints.checkpoint import Checkpoint
from uflow_edge.runtime.numeric import FloatMap, Image


@dataclass(frozen=True, slots=True)
class EagerVerdict:
    """What the pipeline finds.

    Attributes:
        likelihood: anomaly map, (S, S) float32 in [0, 1].
        score: −log10 NFA, (S, S) float32.
        energies: that the score was computed from, per scale, finest first, (H_i, W_i) float32.
    """

    likelihood: FloatMap
    score: FloatMap
    energies: tuple[FloatMap, ...]

    @property
    def anomalous(self) -> bool:
        """Fewer than one detection expected by chance."""
        return bool((self.score > 0).any())


class EagerPipeline:
    """Pictures to verdicts with the network of a checkpoint.

    Args:
        checkpoint: as loaded.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.side = checkpoint.architecture.input_size
        self.channels = tuple(scale.channels for scale in checkpoint.architecture.latents)
        self._network = checkpoint.network().eval()
        normalization = checkpoint.normalization
        self._transform = transforms.Compose(
            [
                transforms.Resize((self.side, self.side)),
                transforms.ToTensor(),
                transforms.Normalize(normalization.mean, normalization.std),
            ]
        )

    def inspect(self, picture_rgb: Image) -> EagerVerdict:
        """(H, W, 3) uint8 RGB to a verdict."""
        latents = self.latents(self.tensor(picture_rgb))
        energies = self.energies(latents)
        score = tree_score(energies, self.channels, self.side)
        return EagerVerdict(self._likelihood(latents), score, tuple(energies))

    def tensor(self, picture_rgb: Image) -> Tensor:
        """(H, W, 3) uint8 RGB to (1, 3, S, S) float32, resized and normalised."""
        tensor: Tensor = self._transform(Pil.fromarray(picture_rgb).convert("RGB"))
        return tensor[None]

    def latents(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """The network alone."""
        with torch.no_grad():
            latents: tuple[Tensor, ...] = self._network(tensor)
            return latents

    def energies(self, latents: tuple[Tensor, ...]) -> list[FloatMap]:
        """Sums of squares over channels, (H_i, W_i) float32 each."""
        return [np.asarray(latent.square().sum(dim=1)[0].numpy(), np.float32) for latent in latents]

    def _likelihood(self, latents: tuple[Tensor, ...]) -> FloatMap:
        size = (self.side, self.side)
        grown = [
            F.interpolate(torch.exp(-0.5 * latent.square().mean(dim=1, keepdim=True)), size=size, mode="bilinear")
            for latent in latents
        ]
        return np.asarray(1 - torch.stack(grown).mean(dim=0)[0, 0].numpy(), np.float32)

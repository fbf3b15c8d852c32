"""The other side of `upstream_peer`: answers (`answering`) under an interpreter that has what the authors' code needs.

The code is imported from a checkout of theirs and run as it is. What it cannot do by itself is arranged from here, and
none of it is inside what is timed:

- weights come from a checkpoint, so timm is kept from downloading others;
- backbones that their list lacks go to their extractor for ResNets, which takes whatever timm has, less the blocks that
  no tap reads; pictures are then normalised as that backbone expects;
- their tree is walked recursively, a level of grey a call, so Python's limit is lifted.
"""

import platform
import sys
import time
from importlib import import_module
from importlib.metadata import version
from typing import Any
from unittest import mock

import numpy as np

_RECURSIONS = 100_000
_LIBRARIES = ("torch", "timm", "numpy", "scikit-image", "networkx")


class Peer:
    """The authors' pipeline.

    Args:
        checkout: of their repository.
    """

    def __init__(self, checkout: str) -> None:
        sys.path.insert(0, checkout)
        sys.setrecursionlimit(_RECURSIONS)

    def versions(self) -> dict[str, str]:
        """Of Python and of what decides how fast their code is."""
        return {"Python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}

    def load(
        self, checkpoint: str, backbone: str, input_size: int, flow_steps: int,
        mean: list[float], std: list[float], threads: int,
    ) -> dict[str, Any]:  # fmt: skip
        """Their network with the weights of a checkpoint, and their preprocessing."""
        import timm
        import torch

        names = ("datamodule", "feature_extraction", "model")
        datamodule, feature_extraction, model = (import_module(f"src.{name}") for name in names)
        torch.set_num_threads(threads)
        create = timm.create_model

        def create_bare(*arguments: Any, **options: Any) -> Any:
            created: Any = create(*arguments, **{**options, "pretrained": False})
            last = created.feature_info.module_name()[-1]
            if last.startswith("blocks."):
                del created.blocks[int(last.removeprefix("blocks.")) + 1 :]
            return created

        build = model.get_feature_extractor
        if backbone not in feature_extraction.AVAILABLE_EXTRACTORS:
            build = feature_extraction.ResNetFeatureExtractor
        with mock.patch("timm.create_model", create_bare), mock.patch.object(model, "get_feature_extractor", build):
            self._network = model.UFlow(input_size, flow_steps, backbone)
        self._network.from_pretrained(checkpoint)
        self._network.eval()
        self._side = input_size
        with mock.patch.multiple(datamodule, MEAN=torch.tensor(mean), STD=torch.tensor(std)):
            self._transform = datamodule.MVTecDataset(".", "no category", input_size).image_transform
        return {}

    def take(self, file: str) -> dict[str, Any]:
        """Keep pictures, (N, H, W, 3) uint8 RGB."""
        self._pictures = np.load(file)
        return {"pictures": len(self._pictures)}

    def inspect(self, indices: list[int], save: str | None = None) -> dict[str, Any]:
        """Pictures to verdicts in one batch, and the seconds of every stage; maps are written after the clock stops."""
        import torch
        from PIL import Image
        from src.nfa_tree import compute_nfa_anomaly_score_tree  # type: ignore[import-not-found]

        pictures = self._pictures[indices]
        times = [time.perf_counter()]
        images = torch.stack([self._transform(Image.fromarray(picture).convert("RGB")) for picture in pictures])
        times.append(time.perf_counter())
        with torch.no_grad():
            latents, _ = self._network(images)
        times.append(time.perf_counter())
        likelihood = 1 - self._network.get_probability(latents, self._side)
        times.append(time.perf_counter())
        score = compute_nfa_anomaly_score_tree(latents, self._side)
        anomalous = (score > 0).flatten(1).any(dim=1).tolist()
        times.append(time.perf_counter())
        if save is not None:
            energies = {f"energy_{i}": latent.square().sum(dim=1).numpy() for i, latent in enumerate(latents)}
            np.savez(save, likelihood=likelihood[:, 0].numpy(), score=score[:, 0].numpy(), **energies)
        return {"seconds": np.diff(times).tolist(), "anomalous": anomalous}

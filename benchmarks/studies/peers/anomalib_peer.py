"""anomalib's U-Flow in anomalib's ``OpenVINOInferencer``, driven from here, with the weights of one of our checkpoints.

anomalib needs much that this project does not, so it may live in an environment of its own: `AnomalibPeer` starts the
interpreter that has it and talks to it (`anomalib_process`). The two processes work in turn, never at once.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uflow_edge.benchmarks.studies.peers.peer_process import PeerProcess, what_is_missing
from uflow_edge.export.checkpoints.checkpoint import load_checkpoint
from uflow_edge.export.checkpoints.tensors import save_tensors
from uflow_edge.runtime.errors import MissingDependency
from uflow_edge.runtime.numeric import FloatMap, Image

_NEEDED = "import anomalib.models, anomalib.deploy, lightning, onnxscript, openvino"
_OURS, _THEIRS = "feature_extractor.extractor.", "feature_extractor.feature_extractor."


class AnomalibPeer(PeerProcess):
    """An interpreter with anomalib in it. Use it in a ``with`` statement.

    Args:
        folder: where it works, and what it writes.
        python: the interpreter; default, this one.

    Raises:
        MissingDependency: it has no anomalib, or not all that anomalib's U-Flow and OpenVINO need.
    """

    def __init__(self, folder: Path, python: Path | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        interpreter = str(python or sys.executable)
        if missing := what_is_missing(interpreter, _NEEDED, folder):
            raise MissingDependency(
                f"anomalib's U-Flow does not run in {interpreter} ({missing}). Name one that has it with "
                "--anomalib-python PATH; it needs: pip install 'anomalib[openvino]'"
            )
        super().__init__("anomalib", interpreter, "anomalib_process", folder=folder)

    def export(self, checkpoint: Path, sizes: Sequence[int]) -> dict[str, Any]:
        """Let anomalib save and export a U-Flow with the weights of our checkpoint.

        Args:
            checkpoint: of resnet18, tapped as the authors do, not whitened.
            sizes: sides of the square pictures that models are to take.

        Returns:
            ``checkpoint``, the one anomalib saved; ``models``, its OpenVINO models by size; ``anomalib``, its version.
        """
        read = load_checkpoint(checkpoint, "resnet18")
        weights = self._folder / "weights.pth"
        save_tensors({name.replace(_OURS, _THEIRS, 1): value for name, value in read.weights.items()}, weights)
        return self.ask(
            "export",
            weights=str(weights),
            input_size=read.architecture.input_size,
            mean=read.normalization.mean,
            std=read.normalization.std,
            sizes=list(sizes),
            folder=str(self._folder),
        )

    def load(self, name: str, model: str, config: dict[str, Any]) -> str:
        """Open a model under a name, with settings of OpenVINO's; the precision it then computes in."""
        return str(self.ask("load", name=name, model=model, config=config)["precision"])

    def take(self, name: str, pictures_rgb: Sequence[Image]) -> None:
        """Give it pictures of one size, (H, W, 3) uint8 RGB each, under a name."""
        file = self._folder / f"{name}.npy"
        np.save(file, np.stack(pictures_rgb))
        self.ask("pictures", name=name, file=str(file))

    def seconds(self, model: str, pictures: str, index: int) -> float:
        """What it takes it from a picture to its anomaly map, by its own clock."""
        return float(self.ask("predict", model=model, pictures=pictures, index=index)["seconds"])

    def anomaly_map(self, model: str, pictures: str, index: int) -> FloatMap:
        """What it finds, (S, S) float32."""
        file = self._folder / "map.npy"
        self.ask("predict", model=model, pictures=pictures, index=index, save=str(file))
        return np.asarray(np.load(file), np.float32)

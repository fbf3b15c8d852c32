"""The other side of `anomalib_peer`: answers (`answering`) under an interpreter that has anomalib.

``export`` builds anomalib's ``Uflow``, fills it with weights, saves the checkpoint as Lightning does, and exports it
with anomalib's own ``to_openvino`` for each size of picture. ``predict`` runs anomalib's ``OpenVINOInferencer`` once
and tells how long it took.
"""

import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np


class Peer:
    """What has been exported and loaded so far."""

    def __init__(self) -> None:
        self._pictures: dict[str, Any] = {}
        self._inferencers: dict[str, Any] = {}

    def export(
        self, weights: str, input_size: int, mean: list[float], std: list[float], sizes: list[int], folder: str
    ) -> dict[str, Any]:
        """A checkpoint and an OpenVINO model a size of picture.

        Args:
            weights: state dict under anomalib's names, as torch saves it.
            input_size: of the network.
            mean, std: of the pictures' normalisation.
            sizes: sides of the square pictures that models are to take.
            folder: to write to.
        """
        import anomalib
        import lightning
        import timm
        import torch
        from anomalib.models import Uflow
        from anomalib.pre_processing import PreProcessor
        from torchvision.transforms.v2 import Compose, Normalize, Resize

        create = timm.create_model
        transform = Compose([Resize((input_size, input_size), antialias=True), Normalize(mean=mean, std=std)])
        with mock.patch("timm.create_model", lambda *a, **k: create(*a, **{**k, "pretrained": False})):
            model = Uflow(backbone="resnet18", pre_processor=PreProcessor(transform))  # its weights follow below
        model.model.load_state_dict(torch.load(weights, weights_only=True))
        model.eval()
        checkpoint = Path(folder) / "anomalib.ckpt"
        trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        trainer.strategy.connect(model)
        trainer.save_checkpoint(checkpoint)
        models = {str(size): str(model.to_openvino(folder, f"uflow_{size}", input_size=(size, size))) for size in sizes}
        return {"anomalib": anomalib.__version__, "checkpoint": str(checkpoint), "models": models}

    def load(self, name: str, model: str, config: dict[str, Any]) -> dict[str, Any]:
        """Open a model under a name, with settings of OpenVINO's; tells the precision it then computes in."""
        from anomalib.deploy import OpenVINOInferencer

        inferencer = OpenVINOInferencer(model, device="CPU", config=config)
        self._inferencers[name] = inferencer
        return {"precision": inferencer.model.get_property("INFERENCE_PRECISION_HINT").to_string()}

    def pictures(self, name: str, file: str) -> dict[str, Any]:
        """Keep pictures, (N, H, W, 3) uint8 RGB, under a name."""
        self._pictures[name] = np.load(file)
        return {"pictures": len(self._pictures[name])}

    def predict(self, model: str, pictures: str, index: int, save: str | None = None) -> dict[str, Any]:
        """From picture to anomaly map; the map is written to ``save``, after the clock has stopped."""
        picture = self._pictures[pictures][index]
        started = time.perf_counter()
        batch = self._inferencers[model].predict(picture)
        seconds = time.perf_counter() - started
        if save is not None:
            np.save(save, np.asarray(batch.anomaly_map).squeeze())
        return {"seconds": seconds, "score": float(np.asarray(batch.pred_score).squeeze())}

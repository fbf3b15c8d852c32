"""The authors' training options for each category of MVTec AD: ``uflow-train --config bottle``.

Source: ``configs/<category>.yaml`` and ``train.py`` of the authors' repository, github.com/mtailanian/uflow. For
hazelnut and screw their first revision has 200 epochs and a later one 500; the latter is used. Learning rate and batch
size were tuned for their extractor and couplings, not for ours.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PublishedConfig:
    """The options that differ between categories; `options` adds the common ones.

    Attributes:
        learning_rate: Adam's learning rate at the first step.
    """

    learning_rate: float
    batch_size: int
    epochs: int = 200

    def options(self) -> dict[str, object]:
        """All options of ``uflow-train`` that differ from our defaults, by name."""
        return {
            "extractor": "mcait",
            "input-size": 448,
            "flow-steps": 4,
            "learning-rate": self.learning_rate,
            "batch": self.batch_size,
            "epochs": self.epochs,
            "patience": 20,  # theirs is for the AUROC of test images, ours for the held-out likelihood
            "couplings": "affine",
            "standardize": "none",
            "scales": "separate",
        }


CONFIGS: dict[str, PublishedConfig] = {
    "bottle": PublishedConfig(1.1289990475381853e-4, 23),
    "cable": PublishedConfig(1.616039111268198e-3, 14),
    "capsule": PublishedConfig(1.2118892498142058e-3, 14),
    "carpet": PublishedConfig(3.163419554150971e-5, 13),
    "grid": PublishedConfig(3.6224837438852e-5, 12, 500),
    "hazelnut": PublishedConfig(1.3268898640895934e-3, 21, 500),
    "leather": PublishedConfig(6.124723659154866e-4, 15, 500),
    "metal_nut": PublishedConfig(8.148858311570219e-4, 11),
    "pill": PublishedConfig(1.0756100354690954e-3, 11),
    "screw": PublishedConfig(4.155987052838602e-4, 11, 500),
    "tile": PublishedConfig(6.045754779719109e-3, 30),
    "toothbrush": PublishedConfig(1.287312814913699e-4, 21),
    "transistor": PublishedConfig(1.12129043027424e-3, 20, 400),
    "wood": PublishedConfig(2.466546120460351e-4, 22, 500),
    "zipper": PublishedConfig(4.55246818236177e-5, 24),
}

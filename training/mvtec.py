"""How the authors trained on each category of MVTec AD: ``uflow-train --config bottle``.

Source: ``configs/<category>.yaml`` and ``train.py`` of the authors' repository, github.com/mtailanian/uflow. For
hazelnut and screw their first revision says 200 epochs, a later one 500, which is taken. Learning rate and batch size
belong to their extractor and couplings; nobody has tuned them for ours.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Published:
    """What differs from category to category; `options` adds what they share.

    Attributes:
        learning_rate: of Adam, at the first step.
        batch_size: images a step.
        epochs: passes over the images, at most.
    """

    learning_rate: float
    batch_size: int
    epochs: int = 200

    def options(self) -> dict[str, object]:
        """Every choice of ``uflow-train`` that they made otherwise than we do, by the name of its option."""
        return {
            "extractor": "mcait",
            "input-size": 448,
            "flow-steps": 4,
            "learning-rate": self.learning_rate,
            "batch": self.batch_size,
            "epochs": self.epochs,
            "patience": 20,  # they watch the AUROC of test images with it, we the likelihood of held-out good ones
            "couplings": "affine",
            "standardize": "none",
        }


CONFIGS: dict[str, Published] = {
    "bottle": Published(1.1289990475381853e-4, 23),
    "cable": Published(1.616039111268198e-3, 14),
    "capsule": Published(1.2118892498142058e-3, 14),
    "carpet": Published(3.163419554150971e-5, 13),
    "grid": Published(3.6224837438852e-5, 12, 500),
    "hazelnut": Published(1.3268898640895934e-3, 21, 500),
    "leather": Published(6.124723659154866e-4, 15, 500),
    "metal_nut": Published(8.148858311570219e-4, 11),
    "pill": Published(1.0756100354690954e-3, 11),
    "screw": Published(4.155987052838602e-4, 11, 500),
    "tile": Published(6.045754779719109e-3, 30),
    "toothbrush": Published(1.287312814913699e-4, 21),
    "transistor": Published(1.12129043027424e-3, 20, 400),
    "wood": Published(2.466546120460351e-4, 22, 500),
    "zipper": Published(4.55246818236177e-5, 24),
}

"""The picture of the README: gravel with a scratch that was drawn on it, and what the detector makes of it.

``python -m uflow_edge.benchmarks.studies.texture_picture docs/gravel.png``. Gravel: ``skimage.data.gravel``, CC0.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from PIL import Image as PillowImage
from skimage import data

from uflow_edge.benchmarks.evaluation import Detector, Labelled
from uflow_edge.export.architecture import Architecture
from uflow_edge.export.bundle import GoodImages, export_bundle
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.overlay import draw_overlay
from uflow_edge.training.options import TrainingOptions
from uflow_edge.training.train import Data, train

SIDE = 200
PARTS = {"train": np.s_[:280], "threshold": np.s_[280:, :256], "test": np.s_[280:, 256:]}
"""Of the photograph; they do not overlap."""
TRAINED, FOR_THRESHOLD, TESTED = 120, 40, 40


def crops(photograph: Image, count: int, seed: int) -> list[Image]:
    """Random squares of a grey photograph, (SIDE, SIDE, 3)."""
    random = np.random.default_rng(seed)
    height, width = photograph.shape
    corners = zip(
        random.integers(height - SIDE + 1, size=count), random.integers(width - SIDE + 1, size=count), strict=True
    )
    return [np.repeat(photograph[y : y + SIDE, x : x + SIDE, np.newaxis], 3, axis=2) for y, x in corners]


def scratched(frame: Image) -> Image:
    """The same frame with a pale curved scratch."""
    points = np.array([[60, 150], [90, 110], [125, 95], [150, 60]], np.int32)
    layer = cv2.polylines(np.zeros(frame.shape[:2], np.float32), [points], False, 1.0, 3, cv2.LINE_AA)[:, :, np.newaxis]
    return np.asarray(frame * (1 - layer) + 225 * layer, np.uint8)


def write(folder: Path, frames: list[Image]) -> None:
    """Save frames as PNG."""
    folder.mkdir(parents=True)
    for i, frame in enumerate(frames):
        PillowImage.fromarray(frame).save(folder / f"{i:03d}.png")


def main(picture: Path) -> None:
    """Train, export, inspect, draw."""
    gravel = data.gravel()
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(folder / "train" / "good", crops(gravel[PARTS["train"]], TRAINED, seed=0))
        write(folder / "threshold", crops(gravel[PARTS["threshold"]], FOR_THRESHOLD, seed=1))
        options = TrainingOptions(epochs=20, learning_rate=1e-3)
        material = Data(folder, standardization="channel")
        train(material, Architecture.default("efficientnet_lite0"), options, folder / "gravel.ckpt", report=print)
        export_bundle(folder / "gravel.ckpt", folder / "gravel.uflow", good=GoodImages((folder / "threshold",)))
        inspector = Inspector.load(folder / "gravel.uflow")
        good = crops(gravel[PARTS["test"]], TESTED, seed=2)
        test = Labelled([], np.repeat([False, True], TESTED))
        scores = [inspector.inspect(frame).score for frame in [*good, *map(scratched, good)]]
        detector = Detector("U-Flow, tree NFA, one-sided", scores)
        found, alarms = detector.at_threshold(test, inspector.manifest.operating_point.threshold)
        print(f"{TESTED} unseen pieces of gravel with and without the scratch: {detector.summary(test)}")
        print(f"at the operating point: {found:.0%} found, {alarms:.0%} false alarms")
        channels = inspector.manifest.channels
        shown = [good[0], scratched(good[0])]
        cv2.imwrite(
            str(picture), np.concatenate([draw_overlay(f, inspector.examine(f), channels) for f in shown], axis=1)
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))

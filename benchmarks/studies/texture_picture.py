"""The picture of the README: gravel with a scratch that was drawn on it, and what the detector makes of it.

Training, calibration and test each have a part of one photograph. These are not exchangeable, so the promise does not
hold across them: at 5 % promised, 9 of 40 good pieces of the test part were flagged (all 40 scratches were found).

``python -m uflow_edge.benchmarks.studies.texture_picture docs/gravel.png``. Gravel: ``skimage.data.gravel``, CC0.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from PIL import Image as PillowImage
from skimage import data

from uflow_edge.benchmarks.evaluation import Detector, Labelled
from uflow_edge.export.bundle import export_bundle
from uflow_edge.export.network.architecture import Architecture
from uflow_edge.runtime.cli.logs import logging_to
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.overlay import draw_overlay
from uflow_edge.training.options import TrainingOptions
from uflow_edge.training.train import Data, train

SIDE = 200
PARTS = {"train": np.s_[:280], "threshold": np.s_[280:, :256], "test": np.s_[280:, 256:]}
"""Of the photograph; they do not overlap."""
TRAINED, FOR_CALIBRATION, TESTED = 120, 80, 40


def crops(photograph: Image, count: int, seed: int) -> list[Image]:
    """Random squares of a grey photograph, (SIDE, SIDE, 3)."""
    random = np.random.default_rng(seed)
    height, width = photograph.shape
    corners = zip(
        random.integers(height - SIDE + 1, size=count), random.integers(width - SIDE + 1, size=count), strict=True
    )
    return [np.repeat(photograph[y : y + SIDE, x : x + SIDE, np.newaxis], 3, axis=2) for y, x in corners]


def turned(frames: list[Image], seed: int) -> list[Image]:
    """Each by a random multiple of 90°: gravel has no upright, and a few metres of it are few pictures."""
    random = np.random.default_rng(seed)
    return [
        np.ascontiguousarray(np.rot90(frame, turns))
        for frame, turns in zip(frames, random.integers(4, size=len(frames)), strict=True)
    ]


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
    """Train, export, calibrate, inspect, draw."""
    gravel = data.gravel()
    with logging_to("stdout"), TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(folder / "train" / "good", turned(crops(gravel[PARTS["train"]], TRAINED, seed=0), seed=0))
        write(folder / "threshold", turned(crops(gravel[PARTS["threshold"]], FOR_CALIBRATION, seed=1), seed=1))
        options = TrainingOptions(epochs=20, learning_rate=1e-3)
        material = Data(folder, standardization="channel")
        train(material, Architecture.default("efficientnet_lite0"), options, folder / "gravel.ckpt")
        export_bundle(folder / "gravel.ckpt", folder / "gravel.uflow")
        calibrate = Path(sys.executable).parent / "uflow-calibrate"
        subprocess.run([calibrate, "--bundle", folder / "gravel.uflow", "--good", folder / "threshold"], check=True)
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

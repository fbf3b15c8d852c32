"""The evaluation's table: three real textures with drawn defects, whose masks are exact, from photographs to numbers.

``python -m uflow_edge.benchmarks.studies.texture_defects FOLDER`` writes data, bundles, ``results.json`` and
``report.html`` there. Photographs: brick, grass and gravel of ``skimage.data``, CC0. Training, calibration and test see
different parts of a photograph; pictures of one part overlap, so the intervals of a calibration are narrower than they
look.
"""

import sys
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import data

from uflow_edge.benchmarks.studies.texture_picture import PARTS, SIDE, crops, write
from uflow_edge.calibration.calibrate import calibrate
from uflow_edge.calibration.operating_point import Promise
from uflow_edge.calibration.saving import save_calibration
from uflow_edge.calibration.split import CalibrationOptions
from uflow_edge.export.bundle import ExportOptions, export_bundle
from uflow_edge.export.network.architecture import Architecture
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.engines.selection import open_engine
from uflow_edge.runtime.numeric import FloatMap, Image
from uflow_edge.runtime.sources.folders import image_files
from uflow_edge.training.evaluation.command import parser, run
from uflow_edge.training.judge.pseudo_defects import draw
from uflow_edge.training.options import TrainingOptions
from uflow_edge.training.train import Data, train

TEXTURES: dict[str, Callable[[], Image]] = {"brick": data.brick, "grass": data.grass, "gravel": data.gravel}
TRAINED, CALIBRATED, GOOD, OF_A_KIND = 100, 80, 30, 15
EPOCHS = 8


def scratch(frame: Image, other: Image, random: np.random.Generator) -> tuple[Image, FloatMap]:
    """A pale curved line; layer 0 … 1 of how much of each pixel it covers."""
    start, turn = random.uniform(40, SIDE - 40, 2), random.uniform(0, 2 * np.pi)
    angles = turn + np.cumsum(random.normal(0, 0.35, 6))
    steps = 16 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = np.rint(start + np.cumsum(steps, axis=0)).astype(np.int32)
    layer = cv2.polylines(np.zeros((SIDE, SIDE), np.float32), [points], False, 1.0, 3, cv2.LINE_AA)
    return np.full_like(frame, 225), np.asarray(layer, np.float32)


def stain(frame: Image, other: Image, random: np.random.Generator) -> tuple[Image, FloatMap]:
    """The texture at half its brightness, in an ellipse."""
    return frame // 2, _ellipse(random, 12, 30)


def smear(frame: Image, other: Image, random: np.random.Generator) -> tuple[Image, FloatMap]:
    """The texture without its grain, in an ellipse: brightness stays."""
    return np.asarray(cv2.GaussianBlur(frame, (0, 0), 5), np.uint8), _ellipse(random, 16, 30)


def holes(frame: Image, other: Image, random: np.random.Generator) -> tuple[Image, FloatMap]:
    """Two to four small black discs."""
    layers = [_ellipse(random, 4, 9) for _ in range(random.integers(2, 5))]
    return np.full_like(frame, 10), np.asarray(np.max(layers, axis=0), np.float32)


KINDS = (scratch, stain, smear, holes)


def _ellipse(random: np.random.Generator, smallest: int, largest: int) -> FloatMap:
    x, y = (int(value) for value in random.integers(largest, SIDE - largest, 2))
    across, down = (int(value) for value in random.integers(smallest, largest + 1, 2))
    drawn = cv2.ellipse(
        np.zeros((SIDE, SIDE), np.float32), (x, y), (across, down), random.uniform(0, 180), 0, 360, 1.0, -1, cv2.LINE_AA
    )
    return np.asarray(drawn, np.float32)


def write_category(folder: Path, photograph: Image) -> None:
    """The MVTec layout of one texture, with good pictures to calibrate with beside it, in ``calibration``."""
    write(folder / "train" / "good", crops(_part(photograph, "train"), TRAINED, seed=0))
    write(folder / "calibration", crops(_part(photograph, "threshold"), CALIBRATED, seed=1))
    write(folder / "test" / "good", crops(_part(photograph, "test"), GOOD, seed=2))
    for seed, kind in enumerate(KINDS, start=3):
        random = np.random.default_rng(seed)
        frames: list[Image] = []
        masks: list[NDArray[np.uint8]] = []
        for frame in crops(_part(photograph, "test"), OF_A_KIND, seed):
            defective, mask = draw(kind, frame, frame, random)
            frames.append(defective)
            masks.append(np.asarray(255 * mask, np.uint8))
        write(folder / "test" / kind.__name__, frames)
        write(folder / "ground_truth" / kind.__name__, masks)


def _part(photograph: Any, name: str) -> Image:
    return np.asarray(photograph[PARTS[name]], np.uint8)


def make_bundle(category: Path, bundle: Path) -> None:
    """Train, export in FP32 and calibrate to at most 5 % false alarms with 95 % confidence."""
    checkpoint = bundle.with_suffix(".ckpt")
    material = Data(category, standardization="channel")
    train(
        material, Architecture.default("efficientnet_lite0"), TrainingOptions(epochs=EPOCHS), checkpoint, overwrite=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracing of operators that are none of ours
        export_bundle(checkpoint, bundle, ExportOptions(precisions=("fp32",)))
    loaded = Bundle.load(bundle, UFlowManifest)
    options = CalibrationOptions(Promise(0.05, 0.95))
    with closing(open_engine(loaded, "onnxruntime")) as engine:
        save_calibration(loaded, calibrate(loaded, image_files([category / "calibration"]), engine, options), None)


def main(folder: Path) -> None:
    """Write, train, evaluate."""
    for name, photograph in TEXTURES.items():
        started = time.perf_counter()
        write_category(folder / "data" / name, photograph())
        make_bundle(folder / "data" / name, folder / "bundles" / f"{name}.uflow")
        print(f"{name}: trained, exported and calibrated in {time.perf_counter() - started:.0f} s", flush=True)
    places = ["--data", str(folder / "data"), "--bundles", str(folder / "bundles")]
    files = ["--json", str(folder / "results.json"), "--report", str(folder / "report.html")]
    started = time.perf_counter()
    run(parser().parse_args(["--all", "--backend", "onnxruntime", *places, *files]))
    print(f"evaluated in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""What becomes of a promise when the pictures to calibrate with overlap: three textures, disjoint and crowded crops.

``python -m uflow_edge.benchmarks.texture_overlap FOLDER``. Photographs: brick, grass and gravel of ``skimage.data``,
CC0. Training sees the upper part of one. ``disjoint`` deals the squares of a grid over the rest to calibration and
test, so that both are exchangeable; ``crowded`` calibrates with as many pictures, cut anywhere from one small corner of
the rest. Both promise at most 5 % false alarms with 95 % confidence.
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from uflow_edge.benchmarks.texture_defects import TEXTURES
from uflow_edge.benchmarks.texture_picture import write
from uflow_edge.calibration.calibrate import calibrate
from uflow_edge.calibration.operating_point import Promise
from uflow_edge.calibration.parting import CalibrationOptions
from uflow_edge.calibration.saving import save_calibration
from uflow_edge.export.architecture import Architecture
from uflow_edge.export.bundle import ExportOptions, export_bundle
from uflow_edge.runtime.bundle import Bundle
from uflow_edge.runtime.command_line import table
from uflow_edge.runtime.engines.selection import open_engine
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.sources.folders import image_files
from uflow_edge.runtime.uflow_manifest import UFlowManifest
from uflow_edge.training.options import TrainingOptions
from uflow_edge.training.train import Data, train

SIDE, CORNER, UPPER = 32, 48, 160
TRAINED, CALIBRATED, SPLITS = 100, 96, 4


def squares(photograph: Image) -> list[Image]:
    """A grid of them, (SIDE, SIDE, 3), none of which overlaps another."""
    height, width = photograph.shape
    return [cut(photograph, y, x) for y in range(0, height - SIDE + 1, SIDE) for x in range(0, width - SIDE + 1, SIDE)]


def anywhere(photograph: Image, count: int, random: np.random.Generator) -> list[Image]:
    """Squares that overlap as it happens."""
    rows, columns = (random.integers(side - SIDE + 1, size=count) for side in photograph.shape)
    return [cut(photograph, int(y), int(x)) for y, x in zip(rows, columns, strict=True)]


def cut(photograph: Image, y: int, x: int) -> Image:
    """One square, its grey in three channels."""
    return np.repeat(photograph[y : y + SIDE, x : x + SIDE, np.newaxis], 3, axis=2)


def disjoint(rest: Image, random: np.random.Generator) -> tuple[list[Image], list[Image]]:
    """Pictures to calibrate with, and to test on."""
    grid = squares(rest)
    order = random.permutation(len(grid))
    return [grid[i] for i in order[:CALIBRATED]], [grid[i] for i in order[CALIBRATED:]]


def crowded(rest: Image, random: np.random.Generator) -> tuple[list[Image], list[Image]]:
    """Likewise; the corner, left or right, is in no square of the test."""
    sides = [rest, rest[:, ::-1]]
    chosen = sides[random.integers(2)]
    top = int(random.integers(rest.shape[0] - CORNER + 1))
    return anywhere(chosen[top : top + CORNER, :CORNER], CALIBRATED, random), squares(chosen[:, 4 * SIDE :])


CUTS: tuple[Callable[[Image, np.random.Generator], tuple[list[Image], list[Image]]], ...] = (disjoint, crowded)


def flagged(folder: Path, calibration: list[Image], test: list[Image]) -> float:
    """Share of good test pictures above the operating point of a bundle that is calibrated with others."""
    bundle = Bundle.load(folder, UFlowManifest)
    with TemporaryDirectory() as temporary, closing(open_engine(bundle, "onnxruntime")) as engine:
        pictures = Path(temporary) / "good"
        write(pictures, calibration)
        found = calibrate(bundle, image_files([pictures]), engine, CalibrationOptions(Promise(0.05, 0.95)))
        inspector = Inspector.of(save_calibration(bundle, found, None), engine)
        return float(np.mean([inspector.inspect(picture).anomalous for picture in test]))


def measured(folder: Path) -> Iterator[tuple[str, ...]]:
    """A row a texture and way to cut."""
    for name, photograph in TEXTURES.items():
        whole, category = photograph(), folder / name
        write(category / "train" / "good", anywhere(whole[:UPPER], TRAINED, np.random.default_rng(0)))
        checkpoint, bundle = category / "a.ckpt", category / "a.uflow"
        architecture = Architecture.default("efficientnet_lite0", 4 * SIDE)
        train(
            Data(category, standardization="channel"),
            architecture,
            TrainingOptions(epochs=4),
            checkpoint,
            overwrite=True,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracing of operators that are none of ours
            export_bundle(checkpoint, bundle, ExportOptions(precisions=("fp32",)))
        for way in CUTS:
            shares = [flagged(bundle, *way(whole[UPPER:], np.random.default_rng(seed))) for seed in range(SPLITS)]
            each = ", ".join(f"{100 * share:.1f}" for share in shares)
            yield name, way.__name__, f"{100 * np.mean(shares):.1f} %", each


def main(folder: Path) -> None:
    """Measure, print."""
    print(table(("texture", "calibration", "good flagged", "of each split, %"), list(measured(folder)), left=(0, 1, 3)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

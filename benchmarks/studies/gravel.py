"""A belt of gravel that moves past a camera, and a bundle that knows it, made in seconds: what timings run on.

Its weights do not decide how fast it is, but two other things do: the whitening that the trainer leaves in the graph,
and that good frames score as good ones, for every region above the threshold costs time.
"""

import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
from skimage import data

from uflow_edge.runtime.engines.selection import open_engine
from uflow_edge.runtime.numeric import Image, Size
from uflow_edge.runtime.sources.folders import image_files

EXTRACTOR = "efficientnet_lite0"
_GOOD = 60  # frames to learn from; as many again to take the threshold from
_VIEW = (288, 384)  # (height, width) of the photograph that the camera sees
_SPEED = 4  # pixels of the photograph a frame


def gravel_frames(count: int, size: Size) -> Iterator[Image]:
    """Frames of the belt: a view that wanders over a real photograph of gravel, (512, 512), CC0.

    Args:
        count: of the frames.
        size: (height, width) of each; the view is stretched to it.

    Yields:
        (height, width, 3) uint8 BGR.
    """
    gravel = data.gravel()
    rows, columns = gravel.shape[0] - _VIEW[0], gravel.shape[1] - _VIEW[1]
    for i in range(count):
        top, left = _there_and_back(_SPEED * i, rows), _there_and_back(3 * _SPEED * i // 2, columns)
        view = gravel[top : top + _VIEW[0], left : left + _VIEW[1]]
        grown = cv2.resize(view, size[::-1], interpolation=cv2.INTER_CUBIC)
        yield np.asarray(cv2.cvtColor(grown, cv2.COLOR_GRAY2BGR), np.uint8)


def gravel_bundle(folder: Path, input_size: int = 256) -> Path:
    """Train on the belt for an epoch, whitened, export, and take the threshold from other frames of it.

    Args:
        folder: to work in, empty.
        input_size: side of the model's input in pixels.

    Returns:
        The bundle, with an FP32 graph.
    """
    from uflow_edge.calibration.calibrate import calibrate
    from uflow_edge.calibration.operating_point import Promise
    from uflow_edge.calibration.saving import save_calibration
    from uflow_edge.calibration.split import CalibrationOptions
    from uflow_edge.export.bundle import ExportOptions, export_bundle
    from uflow_edge.export.network.architecture import Architecture
    from uflow_edge.training.options import TrainingOptions
    from uflow_edge.training.train import Data, train

    for kind in ("fit", "good"):
        (folder / kind).mkdir()
    for i, frame in enumerate(gravel_frames(2 * _GOOD, (480, 640))):
        cv2.imwrite(str(folder / ("good" if i % 2 else "fit") / f"{i:03d}.png"), frame)
    checkpoint, bundle = folder / "gravel.ckpt", folder / "gravel.uflow"
    architecture = Architecture.default(EXTRACTOR, input_size)
    train(Data(folder / "fit", standardization="whiten"), architecture, TrainingOptions(epochs=1), checkpoint)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracing of operators that are none of ours
        exported = export_bundle(checkpoint, bundle, ExportOptions(precisions=("fp32",))).bundle
    options = CalibrationOptions(Promise(0.05, None), null_model=False)
    with closing(open_engine(exported, "onnxruntime")) as engine:
        save_calibration(exported, calibrate(exported, image_files([folder / "good"]), engine, options), None)
    return bundle


def _there_and_back(position: int, length: int) -> int:
    position %= 2 * length
    return min(position, 2 * length - position)

"""The models and pictures of the contest, made in the run: nobody needs more than this repository.

Speed does not depend on the weights of a network, but that of the NFA depends on the latents. So the flow learns a
little gravel first, and features are standardised channel by channel, in the normalisation that the authors' model
and anomalib's have as well: latents are then roughly N(0, 1) on good pictures.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from uflow_edge.benchmarks.gravel import gravel_frames
from uflow_edge.export.architecture import EXTRACTORS, Architecture
from uflow_edge.export.bundle import ExportOptions, export_bundle
from uflow_edge.export.tensors import save_tensors
from uflow_edge.runtime.bundle import Bundle
from uflow_edge.runtime.numeric import Image, Size
from uflow_edge.runtime.preprocess import model_input
from uflow_edge.runtime.uflow_manifest import UFlowManifest
from uflow_edge.training.options import StandardizationChoice, TrainingOptions
from uflow_edge.training.train import Data, train

_LEARNT = 48  # frames
_BATCH_NORM_SKIPS = 6
_SKIPPED = 7  # pictures of the contest are every so many frames apart


@dataclass(frozen=True, slots=True)
class Model:
    """One network, as checkpoint and as bundle.

    Attributes:
        name: for people.
        checkpoint: file.
        bundle: FP32, uncalibrated, scored by the authors' rule.
    """

    name: str
    checkpoint: Path
    bundle: Bundle[UFlowManifest]

    @property
    def graph(self) -> Path:
        """The bundle's ONNX file."""
        return self.bundle.path(self.bundle.manifest.variants[0])


def authors_architecture(extractor: str, size: int) -> Architecture:
    """An extractor as the authors tap theirs: strides 4, 8 and 16, not pooled."""
    return replace(Architecture.default(extractor, size), taps=(1, 2, 3), pooling=1)


def make_model(
    name: str, architecture: Architecture, folder: Path, standardization: StandardizationChoice = "channel"
) -> Model:
    """Train on gravel for an epoch.

    The extractor keeps random weights, but for efficientnet_lite0's, whose own come in a package.

    Args:
        name: for people.
        architecture: of the network.
        folder: to work in, empty or not there.
        standardization: of the features.
    """
    good = folder / "good"
    good.mkdir(parents=True)
    frames = list(gravel_frames(_LEARNT, (300, 300)))
    for i, frame in enumerate(frames):
        cv2.imwrite(str(good / f"{i:03d}.png"), frame)
    weights = None if architecture.extractor == "efficientnet_lite0" else _random_weights(architecture, frames, folder)
    checkpoint = folder / "gravel.ckpt"
    data = Data(good, standardization=standardization, weights=weights)
    train(data, architecture, TrainingOptions(epochs=1, couplings="affine"), checkpoint)
    return Model(name, checkpoint, export_model(checkpoint))


def export_model(checkpoint: Path) -> Bundle[UFlowManifest]:
    """A checkpoint beside itself as an FP32 bundle, to be scored by the authors' rule."""
    folder = checkpoint.with_suffix(".uflow")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracing of operators that are none of ours
        bundle = export_bundle(checkpoint, folder, ExportOptions(precisions=("fp32",))).bundle
    return replace(bundle, manifest=replace(bundle.manifest, rule="upstream"))


def pictures(count: int, size: Size) -> list[Image]:
    """Gravel that moves past, every third with a scratch, (H, W, 3) uint8 BGR each."""
    return [_scratched(frame) if i % 3 == 2 else frame for i, frame in enumerate(_apart(count, size))]


def _apart(count: int, size: Size) -> Iterator[Image]:
    for i, frame in enumerate(gravel_frames(_SKIPPED * count, size)):
        if i % _SKIPPED == 0:
            yield frame


def _scratched(frame: Image) -> Image:
    height, width = frame.shape[:2]
    start, end = (width // 4, height // 3), (2 * width // 3, height // 2)
    return np.asarray(cv2.line(frame.copy(), start, end, (235, 235, 235), 4, cv2.LINE_AA), np.uint8)


def _random_weights(architecture: Architecture, frames: Sequence[Image], folder: Path) -> Path:
    """Of a whole timm model, its batch norms fitted to the frames: without that, it hardly sees the picture."""
    import timm

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        name = EXTRACTORS[architecture.extractor].timm_name
        network = timm.create_model(name, pretrained=False, zero_init_last=False)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0  # what the pass below sees, and nothing of before
        resized = np.stack([model_input(frame, architecture.input_size) for frame in frames[::_BATCH_NORM_SKIPS]])
        network.train()(torch.from_numpy(resized).permute(0, 3, 1, 2).float() / 128 - 1)
    path = folder / "random.pth"
    save_tensors(network.state_dict(), path)
    return path

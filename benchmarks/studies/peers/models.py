"""The models and pictures of the contest, made in the run: nobody needs more than this repository.

Speed does not depend on the weights of a network, but that of the NFA depends on the latents. So the flow learns a
little gravel first, and features are standardised channel by channel, in the normalisation that the authors' model
and anomalib's have as well: latents are then roughly N(0, 1) on good pictures.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch

from uflow_edge.benchmarks.studies.gravel import gravel_frames
from uflow_edge.calibration.int8.quantize_bundle import quantize_bundle
from uflow_edge.calibration.int8.store import Int8Failed
from uflow_edge.export.bundle import ExportOptions, export_bundle
from uflow_edge.export.checkpoints.tensors import save_tensors
from uflow_edge.export.network.architecture import INPUT_SIZE, Architecture
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.numeric import Image, Size
from uflow_edge.runtime.resize.cpu import model_input
from uflow_edge.training.options import StandardizationChoice, TrainingOptions
from uflow_edge.training.train import Data, train

_LEARNT = 48  # frames
_BATCH_NORM_SKIPS = 6
_SKIPPED = 7  # pictures of the contest are every so many frames apart


@dataclass(frozen=True, slots=True)
class PublishedTimes:
    """What the authors' own code was measured to take at `INPUT_SIZE`, another time, on two cores.

    Attributes:
        whole_ms: from picture to verdict.
        network_ms: of that, their network; None where nobody has told.
    """

    whole_ms: int
    network_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """One network, as checkpoint and as bundle.

    Attributes:
        name: for people.
        checkpoint: file.
        bundle: FP32, and INT8 if that is asked for and possible; uncalibrated, scored by the authors' rule.
        published: of the authors' own code; None where nobody has measured it.
    """

    name: str
    checkpoint: Path
    bundle: Bundle[UFlowManifest]
    published: PublishedTimes | None = None

    @property
    def graph(self) -> Path:
        """The bundle's ONNX file."""
        return self.bundle.path(self.bundle.manifest.variants[0])


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is made.

    Attributes:
        name: for people.
        extractor: see `Architecture`.
        authors_taps: strides 4, 8 and 16, not pooled, as the authors have it; otherwise as our trainer does.
        standardization: of the features.
        published: see `Model`.
    """

    name: str
    extractor: str
    authors_taps: bool
    standardization: StandardizationChoice
    published: PublishedTimes | None = None

    def architecture(self, size: int) -> Architecture:
        """At an input size."""
        default = Architecture.default(self.extractor, size)
        return replace(default, taps=(1, 2, 3), pooling=1) if self.authors_taps else default


RECIPES = {
    "resnet18": Recipe("resnet18, strides 4, 8, 16", "resnet18", True, "channel", PublishedTimes(979, 77)),
    "lite0-authors-taps": Recipe(
        "efficientnet_lite0, strides 4, 8, 16", "efficientnet_lite0", True, "channel", PublishedTimes(911)
    ),
    "lite0": Recipe("efficientnet_lite0, strides 8, 16, whitened", "efficientnet_lite0", False, "whiten"),
}


def make_model(recipe: Recipe, size: int, folder: Path, *, int8: bool = False) -> Model:
    """Train on gravel for an epoch, and export.

    The extractor keeps random weights, but for efficientnet_lite0's, whose own come in a package.

    Args:
        recipe: of the model.
        size: of its input, in pixels.
        folder: to work in, empty or not there.
        int8: also make an INT8 graph, if that is possible.
    """
    good = folder / "good"
    good.mkdir(parents=True)
    frames = list(gravel_frames(_LEARNT, (300, 300)))
    for i, frame in enumerate(frames):
        cv2.imwrite(str(good / f"{i:03d}.png"), frame)
    architecture = recipe.architecture(size)
    has_weights = recipe.extractor == "efficientnet_lite0"
    weights = () if has_weights else (_random_weights(architecture, frames, folder),)
    checkpoint = folder / "gravel.ckpt"
    data = Data(good, standardization=recipe.standardization, weights=weights)
    train(data, architecture, TrainingOptions(epochs=1, couplings="affine"), checkpoint)
    published = recipe.published if size == INPUT_SIZE else None
    return Model(recipe.name, checkpoint, export_model(checkpoint, good if int8 else None), published)


def export_model(checkpoint: Path, good: Path | None) -> Bundle[UFlowManifest]:
    """A checkpoint beside itself as a bundle, to be scored by the authors' rule; with ``good`` images, in INT8 too."""
    folder = checkpoint.with_suffix(".uflow")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracing of operators that are none of ours
        bundle = export_bundle(checkpoint, folder, ExportOptions(precisions=("fp32",))).bundle
    if good is not None:
        with suppress(Int8Failed):
            bundle, _ = quantize_bundle(bundle, [good])
    return replace(bundle, manifest=replace(bundle.manifest, rule="upstream"))


def pictures(count: int, size: Size) -> list[Image]:
    """Gravel further down the belt than what was learnt, every third with a scratch, (H, W, 3) uint8 BGR each.

    It is the same photograph, so views overlap with those that were learnt; none is the same.
    """
    return [_scratched(frame) if i % 3 == 2 else frame for i, frame in enumerate(_apart(count, size))]


def in_rgb(frame_bgr: Image) -> Image:
    """The same picture, channels the other way round, contiguous."""
    return np.ascontiguousarray(frame_bgr[..., ::-1])


def _apart(count: int, size: Size) -> Iterator[Image]:
    after_the_learnt = islice(gravel_frames(_LEARNT + _SKIPPED * count, size), _LEARNT, None)
    yield from islice(after_the_learnt, None, None, _SKIPPED)


def _scratched(frame: Image) -> Image:
    height, width = frame.shape[:2]
    start, end = (width // 4, height // 3), (2 * width // 3, height // 2)
    return np.asarray(cv2.line(frame.copy(), start, end, (235, 235, 235), 4, cv2.LINE_AA), np.uint8)


def _random_weights(architecture: Architecture, frames: Sequence[Image], folder: Path) -> Path:
    """Of a whole timm model, its batch norms fitted to the frames: without that, it hardly sees the picture."""
    import timm

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        name = architecture.backbone.timm_name
        network = timm.create_model(name, pretrained=False, zero_init_last=False)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0  # what the pass below sees, and nothing of before
        resized = np.stack([model_input(frame, architecture.input_size) for frame in frames[::_BATCH_NORM_SKIPS]])
        network.train()(torch.from_numpy(resized).permute(0, 3, 1, 2).float() / 128 - 1)
    path = folder / "random.pth"
    save_tensors(network.state_dict(), path)
    return path

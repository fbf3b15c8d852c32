"""Reads checkpoints of the authors, of anomalib and of ours, told apart by their content; no code in them is run."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uflow_edge.export.checkpoints.anomalib import ANOMALIB, authors_names, is_anomalib, read_anomalib
from uflow_edge.export.checkpoints.inert import attributes
from uflow_edge.export.checkpoints.permutations import coupling_of, is_permutation, read_permutations
from uflow_edge.export.checkpoints.states import check_tensors, find_state, in_float32, only_tensors, state_dicts
from uflow_edge.export.checkpoints.tensors import load_tensors, reading
from uflow_edge.export.network.architecture import Architecture, Coupling
from uflow_edge.export.network.backbones import EXTRACTORS, Normalization
from uflow_edge.export.network.blank import without_weights
from uflow_edge.export.network.extractors import trained_size
from uflow_edge.export.network.uflow import UFlow, build_extractor
from uflow_edge.export.wording import one_line
from uflow_edge.runtime.errors import DISTRIBUTION, BadInput
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.resize.cpu import Fit

PREFIX = "model."
PICTURES = "pictures"
"""Key of the pictures in our checkpoints."""
TRAINED_ON = "trained_on"
"""Key of the `content_hash` of every training picture, in two lists under `FITTED` and `HELD_OUT`; ours have it."""
BITS = "bits"
"""Key of the bit depth of the training pictures in our checkpoints, if it was stated; see `decode.Reading`."""
EXTRACTOR_WEIGHTS = "extractor_weights"
"""Key of the origin of the extractor's weights in our checkpoints, for people."""
FITTED, HELD_OUT = "fitted", "held_out"
AUTHORS = "U-Flow authors'"
_FIRST = "flow."
_UPSAMPLING = re.compile(r"flow\.module_list\.(\d{1,5})\.downsample_kernel")
_MOST_PICTURES = 256
_METRIC_STATE = re.compile(r"aupro|auroc|f1|mcc|iou|log_loss_weights")
_HASH = re.compile(r"[0-9a-f]{16}")
_EXTRACTOR = "feature_extractor."


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose every tensor is accounted for.

    Attributes:
        weights: of the network, by name; parts that are never used are left out.
        fit: how pictures became square in training; None if the checkpoint does not say.
        origin: who wrote it, in messages.
        pictures: (S, S, 3) uint8 RGB each, good ones that were not fitted; ours carry some.
        fitted, held_out: `content_hash` of every training picture; ours have them.
        bits: that cameras used of the 16 in the files of training pictures; None: 16.
        extractor_weights: their origin, for people; None if the checkpoint does not say.
    """

    path: Path
    architecture: Architecture
    weights: dict[str, Tensor]
    normalization: Normalization
    fit: Fit | None
    origin: str
    pictures: tuple[Image, ...] = ()
    fitted: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    bits: int | None = None
    extractor_weights: str | None = None

    def network(self) -> UFlow:
        """The network in evaluation mode, with a copy of these weights."""
        with without_weights():  # initial values would be drawn, for hundreds of millions of weights, in vain
            network = UFlow(self.architecture)
        state = {name: value.clone() for name, value in self.weights.items()}
        network.load_state_dict(state, assign=True)
        if any(
            buffer.is_meta for buffer in network.buffers()
        ):  # constants that no checkpoint has, as of a blur in timm
            network = UFlow(self.architecture)
            network.load_state_dict(state)
        return network.eval().requires_grad_(False)


def load_checkpoint(path: Path, extractor: str | None = None) -> Checkpoint:
    """Read a U-Flow checkpoint: the authors', anomalib's or ours.

    The authors' carries no hyper-parameters: extractor, flow steps and input size are read off names and shapes.

    Args:
        extractor: that it must have; None: any.

    Raises:
        BadInput: the file is not a checkpoint, is truncated, holds code, or is of another model or extractor; or
            weights are missing, left over, of the wrong shape or not finite.
    """
    with reading(path, "a U-Flow checkpoint"):
        checkpoint = _read(path, load_tensors(path, "a checkpoint of plain tensors", inert=True))
        found = checkpoint.architecture.extractor
        if extractor not in (None, found):
            raise BadInput(f"its extractor is {found}, not {extractor} as asked; leave the choice to it")
        return checkpoint


def _read(path: Path, content: Any) -> Checkpoint:
    weights, others = _weights(content)
    if is_anomalib(content, weights):
        architecture, preprocessing = read_anomalib(content, weights)
        architecture, weights = _checked(architecture, authors_names(weights), architecture.coupling)
        return Checkpoint(path, architecture, weights, preprocessing.normalization, preprocessing.fit, ANOMALIB)
    weights |= others
    stated = attributes(content.get("hyper_parameters"))
    if stated is None and content.get("hyper_parameters") is not None:
        raise BadInput("its hyper_parameters are not a dictionary")
    architecture = Architecture.from_hyper_parameters(stated) if stated else _infer_architecture(weights)
    architecture, weights = _checked(architecture, weights, architecture.coupling if stated else None)
    normalization = architecture.backbone.normalization
    pictures = _pictures(content.get(PICTURES), architecture.input_size)
    fitted, held_out = _trained_on(content.get(TRAINED_ON))
    bits = content.get(BITS)
    if bits is not None and not (type(bits) is int and 8 <= bits <= 16):
        raise BadInput(f"its {BITS} are {bits!r}, expected a number from 8 to 16")
    origin = DISTRIBUTION if stated else AUTHORS
    source = content.get(EXTRACTOR_WEIGHTS)
    source = one_line(source) if isinstance(source, str) else None
    return Checkpoint(
        path, architecture, weights, normalization, None, origin, pictures, fitted, held_out, bits, source
    )


def _weights(content: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of the network, without a prefix, and other weights that are not states of metrics."""
    state = find_state(content, _FIRST)
    if state is None:
        stored = content.get("state_dict") if isinstance(content, dict) else None
        if stored == {} or any(values is stored for _, values in state_dicts({"state_dict": stored})):
            raise BadInput(f"holds no flow (no '{PREFIX}{_FIRST}…' weights), so it is not a U-Flow checkpoint")
        raise BadInput("holds no state_dict of tensors, so it is not a U-Flow checkpoint")
    inside = {n: v for n, v in state.weights.items() if n.startswith(("flow.", _EXTRACTOR)) or not _is_metric(n)}
    return only_tensors(inside), only_tensors({n: v for n, v in state.others.items() if not _is_metric(n)})


def _pictures(stored: Any, side: int) -> tuple[Image, ...]:
    if stored is None:
        return ()
    if not isinstance(stored, Tensor) or stored.dtype != torch.uint8 or stored.shape[1:] != (side, side, 3):
        raise BadInput(f"its {PICTURES} are not (N, {side}, {side}, 3) bytes, as the input size asks for")
    if len(stored) > _MOST_PICTURES:
        raise BadInput(f"it carries {len(stored)} {PICTURES}; expected at most {_MOST_PICTURES}")
    return tuple(stored.numpy())


def _trained_on(stored: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Hashes of the pictures that were fitted, and of those that were held out."""
    if stored is None:
        return (), ()
    lists = [stored.get(split) for split in (FITTED, HELD_OUT)] if isinstance(stored, Mapping) else [None]
    if not all(isinstance(hashes, list) and all(map(_is_hash, hashes)) for hashes in lists):
        raise BadInput(f"its {TRAINED_ON} are not two lists of hashes, {FITTED} and {HELD_OUT}")
    fitted, held_out = (tuple(hashes or ()) for hashes in lists)
    return fitted, held_out


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def _is_metric(name: str) -> bool:
    return _METRIC_STATE.search(name) is not None


def _infer_architecture(weights: Mapping[str, Tensor]) -> Architecture:
    upsamplings = [int(found[1]) for found in map(_UPSAMPLING.fullmatch, weights) if found]
    flow_steps = min(upsamplings, default=1) - 1  # a stage's blocks, its Split, then the upsampling
    found = {
        name.removeprefix(_EXTRACTOR): value.shape for name, value in weights.items() if name.startswith(_EXTRACTOR)
    }
    for name, extractor in EXTRACTORS.items():
        if extractor.pooling > 1:
            continue  # it leaves no trace in shapes; the authors have none, so extractors that do are not theirs
        height, _ = trained_size(name, weights) or (extractor.fixed_input_size or 0, 0)
        try:
            candidate = Architecture(name, height, flow_steps, extractor.taps, 1)
        except BadInput:
            continue
        with without_weights():
            features = build_extractor(candidate)
        needed = {key: value.shape for key, value in features.state_dict().items()}
        if needed == {key: shape for key, shape in found.items() if not features.leaves_out(key)}:
            return candidate
    raise BadInput("it has no hyper_parameters, and its extractor is none of those the authors' checkpoints have")


def _checked(
    architecture: Architecture, weights: Mapping[str, Tensor], stated: Coupling | None
) -> tuple[Architecture, dict[str, Tensor]]:
    """The architecture with the coupling that its flow has, and exactly the weights of the network, in float32.

    No value is looked at before all shapes are right, so a small file cannot claim a large network.

    Raises:
        BadInput: weights are missing, left over, of another shape or type, or not finite; the message names them.
    """
    with without_weights():
        network = UFlow(architecture)
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    kept = {
        name: value
        for name, value in weights.items()
        if not name.startswith(_EXTRACTOR) or not network.feature_extractor.leaves_out(name.removeprefix(_EXTRACTOR))
    }
    what = f"weights {{}} for {architecture.extractor}"
    others = {name: value for name, value in kept.items() if not is_permutation(name)}
    check_tensors(others, {name: shape for name, shape in shapes.items() if not is_permutation(name)}, what)
    matrices, form = read_permutations(kept, shapes)
    check_tensors(matrices, shapes, what)
    return replace(architecture, coupling=coupling_of(form, stated)), in_float32(matrices, what)

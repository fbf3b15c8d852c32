"""Checkpoints in: the authors', anomalib's and our own, told apart by what is inside; no code in them is run."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uflow_edge.export.anomalib import ANOMALIB, authors_names, is_anomalib, read_anomalib
from uflow_edge.export.architecture import EXTRACTORS, Architecture, Normalization
from uflow_edge.export.blank import without_weights
from uflow_edge.export.extractors import trained_size
from uflow_edge.export.network import UFlow, build_extractor
from uflow_edge.export.permutations import coupling_of, read_permutations
from uflow_edge.export.tensors import load_tensors
from uflow_edge.runtime.errors import DISTRIBUTION, BadInput
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.preprocess import Fit

PREFIX = "model."
PICTURES = "pictures"
"""Key of the pictures that our checkpoints carry."""
TRAINED_ON = "trained_on"
"""Key of the `content_hash` of every training picture, in two lists under `FITTED` and `HELD_OUT`; ours have it."""
FITTED, HELD_OUT = "fitted", "held_out"
AUTHORS = "U-Flow authors'"
_METRIC_STATE = re.compile(r"aupro|auroc|f1|mcc|iou|log_loss_weights")
_HASH = re.compile(r"[0-9a-f]{16}")
_EXTRACTOR = "feature_extractor."


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose every tensor is accounted for.

    Attributes:
        path: the file.
        architecture: of the network.
        weights: of the network, by name; parts of it that nothing reads are left out.
        normalization: of the pictures it was trained on.
        fit: how pictures that are not square became so in training; None where it does not say.
        origin: who wrote it, for people.
        pictures: (S, S, 3) uint8 RGB each, good ones that were not fitted; ours carry some.
        fitted, held_out: `content_hash` of every training picture; ours have them.
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

    def network(self) -> UFlow:
        """The network in evaluation mode, with a copy of these weights."""
        with without_weights():  # initial values would be drawn, for hundreds of millions of weights, in vain
            network = UFlow(self.architecture)
        network.load_state_dict({name: value.clone() for name, value in self.weights.items()}, assign=True)
        return network.eval().requires_grad_(False)


def load_checkpoint(path: Path, extractor: str | None = None) -> Checkpoint:
    """Read a U-Flow checkpoint: the authors', anomalib's or ours.

    The authors' carries no hyper-parameters: extractor, flow steps and input size are read off names and shapes.

    Args:
        path: the file.
        extractor: that it must have; default, any.

    Raises:
        BadInput: not a checkpoint, truncated, holding code, of another model or extractor, or with weights that are
            missing, left over, of the wrong shape or not finite.
    """
    content = load_tensors(path, "a checkpoint of plain tensors", inert=True)
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BadInput(f"{path}: holds no state_dict of tensors, so it is not a U-Flow checkpoint")
    if not any(name.removeprefix(PREFIX).startswith("flow.") for name in state):
        raise BadInput(f"{path}: holds no flow (no '{PREFIX}flow.…' weights), so it is not a U-Flow checkpoint")
    try:
        checkpoint = _read(path, content, state)
        architecture = checkpoint.architecture
        if extractor not in (None, architecture.extractor):
            raise BadInput(
                f"its extractor is {architecture.extractor}, not {extractor} as asked; leave the choice to it"
            )
        return replace(checkpoint, weights=_checked_weights(architecture, checkpoint.weights))
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error


def _read(path: Path, content: Mapping[str, Any], state: Mapping[str, Tensor]) -> Checkpoint:
    """What the checkpoint says of itself, its weights not yet held against it."""
    model = {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
    if is_anomalib(content, model):
        architecture, preprocessing = read_anomalib(content, model)
        weights, form = read_permutations(authors_names(model))
        architecture = replace(architecture, coupling=coupling_of(form, architecture.coupling))
        return Checkpoint(path, architecture, weights, preprocessing.normalization, preprocessing.fit, ANOMALIB)
    others = {name: value for name, value in state.items() if not name.startswith(PREFIX) and not _is_metric(name)}
    weights, form = read_permutations({**model, **others})
    parameters = content.get("hyper_parameters")
    if parameters:
        architecture, origin = Architecture.from_hyper_parameters(parameters), DISTRIBUTION
        coupling = coupling_of(form, architecture.coupling)
    else:
        architecture, origin = _infer_architecture(weights), AUTHORS
        coupling = coupling_of(form, None)
    normalization = EXTRACTORS[architecture.extractor].normalization
    architecture = replace(architecture, coupling=coupling)
    pictures = _pictures(content.get(PICTURES), architecture.input_size)
    fitted, held_out = _trained_on(content.get(TRAINED_ON))
    return Checkpoint(path, architecture, weights, normalization, None, origin, pictures, fitted, held_out)


def _pictures(stored: Any, side: int) -> tuple[Image, ...]:
    if stored is None:
        return ()
    if not isinstance(stored, Tensor) or stored.dtype != torch.uint8 or stored.shape[1:] != (side, side, 3):
        raise BadInput(f"its {PICTURES} are not (N, {side}, {side}, 3) bytes, as the input size asks for")
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
    upsamplings = sorted(int(name.split(".")[2]) for name in weights if name.endswith(".downsample_kernel"))
    flow_steps = upsamplings[0] - 1 if upsamplings else 0  # a stage's blocks, its Split, then the upsampling
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


def _checked_weights(architecture: Architecture, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Exactly the weights the network has, in float32.

    Raises:
        BadInput: weights are missing, left over, of another shape, or not finite; the message names them.
    """
    with without_weights():
        network = UFlow(architecture)
    expected = network.state_dict()
    kept = {
        name: value
        for name, value in weights.items()
        if not name.startswith(_EXTRACTOR) or not network.feature_extractor.leaves_out(name.removeprefix(_EXTRACTOR))
    }
    problems = [
        ("missing", sorted(expected.keys() - kept.keys())),
        ("unexpected", sorted(kept.keys() - expected.keys())),
        ("of another shape", [n for n in expected if n in kept and kept[n].shape != expected[n].shape]),
        ("not finite", [n for n, value in kept.items() if value.is_floating_point() and not value.isfinite().all()]),
    ]
    for what, names in problems:
        if names:
            listed = ", ".join(PREFIX + name for name in names[:5]) + (", …" if len(names) > 5 else "")
            raise BadInput(f"{len(names)} weights {what} for {architecture.extractor}: {listed}")
    return {name: kept[name].to(expected[name].dtype) for name in expected}

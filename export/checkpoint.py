"""Checkpoints in: the authors' and our own, told apart by what is inside, loaded without running any of it."""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from uflow_edge.export.architecture import EXTRACTORS, Architecture
from uflow_edge.export.network import FeatureExtractor, UFlow
from uflow_edge.export.tensors import load_tensors
from uflow_edge.runtime.errors import BadInput

PREFIX = "model."
_METRIC_STATE = re.compile(r"aupro|auroc|f1|mcc|iou|log_loss_weights")
_NORMALIZATION = "feature_extractor.feature_normalizations.{}.weight"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose every tensor is accounted for."""

    path: Path
    architecture: Architecture
    weights: dict[str, Tensor]

    def network(self) -> UFlow:
        """The network in evaluation mode, with these weights."""
        network = UFlow(self.architecture)
        network.load_state_dict(self.weights)
        return network.eval().requires_grad_(False)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a U-Flow checkpoint, the authors' or ours.

    Theirs carries no hyper-parameters: extractor, flow steps and input size are read off names and shapes.

    Raises:
        BadInput: not a checkpoint, truncated, holding anything but plain data, of another model, or with weights
            that are missing, left over or of the wrong shape.
    """
    content = load_tensors(path, "a checkpoint of plain tensors")
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BadInput(f"{path}: holds no state_dict of tensors, so it is not a U-Flow checkpoint")
    weights = {name.removeprefix(PREFIX): value for name, value in state.items() if not _is_metric(name)}
    if not any(name.startswith("flow.") for name in weights):
        raise BadInput(f"{path}: holds no flow (no '{PREFIX}flow.…' weights), so it is not a U-Flow checkpoint")
    _refuse_other_couplings(path, weights)
    try:
        stated = content.get("hyper_parameters")
        known = Architecture.from_hyper_parameters(stated) if stated else _infer_architecture(weights)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error
    _check_weights(path, known, weights)
    return Checkpoint(path, known, weights)


def _is_metric(name: str) -> bool:
    return not name.startswith(PREFIX) and _METRIC_STATE.search(name) is not None


def _refuse_other_couplings(path: Path, weights: dict[str, Tensor]) -> None:
    """FrEIA after 0.2 clamps the coupling differently, and shows it by storing permutations as indices."""
    for name, value in weights.items():
        if name.endswith(".w_perm") and (value.ndim != 4 or not value.is_floating_point()):
            raise BadInput(
                f"{path}: {PREFIX}{name} has shape {tuple(value.shape)}, so it comes from a FrEIA newer than 0.2, "
                "whose couplings compute something else; retrain with FrEIA 0.2"
            )


def _infer_architecture(weights: dict[str, Tensor]) -> Architecture:
    upsamplings = sorted(int(name.split(".")[2]) for name in weights if name.endswith(".downsample_kernel"))
    flow_steps = upsamplings[0] - 1 if upsamplings else 0  # a stage's blocks, its Split, then the upsampling
    found = {name: tuple(value.shape) for name, value in weights.items() if name.startswith("feature_extractor.")}
    finest = found.get(_NORMALIZATION.format(0), ())
    # Pooling leaves no trace in shapes. The authors have none, so extractors that do are not theirs.
    theirs = {name: known for name, known in EXTRACTORS.items() if known.pooling == 1 and len(finest) == 3}
    for name, extractor in theirs.items():
        try:
            candidate = Architecture(name, finest[1] * 2 ** (extractor.taps[0] + 1), flow_steps, extractor.taps, 1)
        except BadInput:
            continue
        with torch.device("meta"):
            expected = FeatureExtractor(candidate).state_dict(prefix="feature_extractor.")
        if found == {key: tuple(value.shape) for key, value in expected.items()}:
            return candidate
    raise BadInput("it has no hyper_parameters, and its extractor is none of those the authors' checkpoints have")


def _check_weights(path: Path, architecture: Architecture, weights: dict[str, Tensor]) -> None:
    with torch.device("meta"):
        expected = UFlow(architecture).state_dict()
    problems = [
        ("missing", sorted(expected.keys() - weights.keys())),
        ("unexpected", sorted(weights.keys() - expected.keys())),
        ("of another shape", [n for n in expected if n in weights and weights[n].shape != expected[n].shape]),
        ("not finite", [n for n, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]),
    ]
    for what, names in problems:
        if names:
            listed = ", ".join(PREFIX + name for name in names[:5]) + (", …" if len(names) > 5 else "")
            raise BadInput(f"{path}: {len(names)} weights {what} for {architecture.extractor}: {listed}")

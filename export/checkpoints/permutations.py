"""Reads the permutations of a flow, which tell which FrEIA wrote it and therefore what its couplings compute.

FrEIA up to 0.2, and anomalib's copy of it, store each permutation as a matrix. Its pull request 165 (2023) went over to
index vectors and, at the same time, to another clamping of the coupling's exponent. Rotations ("soft permutations")
stayed matrices, so they tell nothing.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from uflow_edge.export.network.architecture import Coupling
from uflow_edge.runtime.errors import BadInput

Form: TypeAlias = Literal["indices", "matrix", "rotation"]

_NAME = ".w_perm"
_INVERSE = "_inv"
_ROTATION_TOLERANCE = 1e-3


def is_permutation(name: str) -> bool:
    """Whether a tensor of this name is a permutation or its inverse."""
    return name.removesuffix(_INVERSE).endswith(_NAME)


def read_permutations(
    weights: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, Tensor], Form]:
    """All weights with every permutation and its inverse as matrices, and the form they had.

    Index vectors p stand for y[:, i] = x[:, p[i]], the matrix with ones at [i, p[i]].

    Args:
        shapes: of the network's weights; permutations that the network does not have are ignored.

    Raises:
        BadInput: there are none, one is neither a permutation nor a rotation, or they are of different forms.
    """
    forms = {
        name: _form(name, value, shapes[name][0])
        for name, value in weights.items()
        if name.endswith(_NAME) and name in shapes
    }
    if not forms:
        raise BadInput("its flow has no permutations, so it is not a U-Flow's")
    matrices = dict(weights)
    for name, form in forms.items():
        matrix = _from_indices(weights[name]) if form == "indices" else weights[name]
        matrices[name] = matrix
        if name + _INVERSE in weights:
            matrices[name + _INVERSE] = matrix.transpose(0, 1).contiguous()
    found = set(forms.values())
    if "indices" in found and len(found) > 1:
        raise BadInput("its permutations are partly matrices and partly index vectors, so no one FrEIA wrote it")
    return matrices, "rotation" if "rotation" in found else found.pop()


def coupling_of(form: Form, stated: Coupling | None) -> Coupling:
    """What the couplings compute, from the form of the permutations and what the checkpoint states, if anything.

    Raises:
        BadInput: the checkpoint states nothing, and the form fits more than one formula.
    """
    if form == "indices":
        return replace(stated or Coupling(), formula="clamp_tanh_ratio", permutation="hard")
    if form == "matrix":
        return replace(stated or Coupling(), permutation="hard")
    if stated is None:
        raise BadInput(
            "its permutations are rotations (soft permutations), which every FrEIA stores alike, and it does not say "
            "whether its couplings are those of FrEIA 0.2 or of its successors, which compute something else"
        )
    return replace(stated, permutation="soft")


def _form(name: str, value: Tensor, channels: int) -> Form:
    if value.shape == (channels,) and value.dtype in (torch.int32, torch.int64):
        if torch.equal(value.sort().values, torch.arange(channels, dtype=value.dtype)):
            return "indices"
    elif value.shape == (channels, channels, 1, 1) and value.is_floating_point():
        matrix = value.flatten(1).double()
        if ((matrix == 0) | (matrix == 1)).all() and (matrix.sum(0) == 1).all() and (matrix.sum(1) == 1).all():
            return "matrix"
        if (matrix @ matrix.T - torch.eye(channels)).abs().max() < _ROTATION_TOLERANCE:
            return "rotation"
    raise BadInput(f"{name}, of shape {tuple(value.shape)} and {value.dtype}, is neither a permutation nor a rotation")


def _from_indices(indices: Tensor) -> Tensor:
    return torch.eye(len(indices))[indices.long(), :, None, None]

"""The state dict in a checkpoint, wherever a training program has put it, and its tensors held against a network's.

Programs wrap what they save: in dictionaries (``state_dict``, ``model``), in names (``module.`` of data-parallel
training, ``_orig_mod.`` of ``torch.compile``, ``unet.`` of a class around the network), and beside an averaged copy.
A dictionary's key and a prefix of names are the same to a reader: parts of a path to a tensor.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from uflow_edge.export.checkpoints.inert import Inert
from uflow_edge.export.wording import listed, one_line
from uflow_edge.runtime.errors import BadInput

_TRANSPARENT = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_COUNTS = frozenset({"n_averaged"})  # what torch's AveragedModel keeps beside the weights
_AVERAGED = re.compile(r"(^|_)ema(_|$)")
_DEEPEST, _MOST_DICTIONARIES = 5, 10_000

_FLOATS = frozenset({torch.float32, torch.float16, torch.bfloat16, torch.float64})
_COUNT = ".num_batches_tracked"
_UNUSUAL = {"sparse": "sparse", "qtensor": "quantised", "nested": "nested", "meta": "meta: without data"}


@dataclass(frozen=True, slots=True)
class StateDict:
    """Weights by their names in the network.

    Attributes:
        path: that led to them: keys of dictionaries and prefixes of names.
        weights: of the network; values other than tensors are of kinds that cannot be read.
        others: what lay beside them, under its own names; other networks are left out.
    """

    path: tuple[str, ...]
    weights: dict[str, Tensor | Inert]
    others: dict[str, Tensor | Inert]


def find_state(content: Any, first: str) -> StateDict | None:
    """The state dict of a network; where there are several of it, the averaged one.

    Args:
        first: a name, or the beginning of one, that only this network has: "input_blocks.0.0.".

    Returns:
        None where no dictionary of tensors has such a name.

    Raises:
        BadInput: there are several, and none is the averaged one; or two tensors have the same name.
    """
    pattern = re.compile(rf"(?:(.*?)\.)?{re.escape(first)}")
    found: dict[tuple[str, ...], StateDict] = {}
    for path, values in state_dicts(content):
        plain = _plain_names(values)
        prefixes = {match[1] for match in map(pattern.match, plain) if match}
        for prefix in prefixes:
            start = f"{prefix}." if prefix else ""
            inside = {name.removeprefix(start): v for name, v in plain.items() if name.startswith(start)}
            networks = tuple(f"{other}." for other in prefixes if other)
            others = {n: v for n, v in plain.items() if not (n.startswith(start) or n.startswith(networks))}
            whole = (*path, *(prefix.split(".") if prefix else ()))
            found[whole] = StateDict(whole, inside, others)
    if not found:
        return None
    best = min(map(_rank, found))
    chosen = [path for path in found if _rank(path) == best]
    if len(chosen) > 1:
        raise BadInput(f"holds several networks: {listed('.'.join(path) for path in chosen)}; give a file with one")
    return found[chosen[0]]


def state_dicts(content: Any) -> Iterator[tuple[tuple[str, ...], Mapping[str, Tensor | Inert]]]:
    """Every dictionary of nothing but named tensors, and the keys that lead to it."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), content)]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_DICTIONARIES:
        path, value = waiting.pop()
        if not isinstance(value, dict) or id(value) in seen:
            continue
        seen.add(id(value))
        if value and all(isinstance(n, str) and (isinstance(v, Tensor) or _is_unusual(v)) for n, v in value.items()):
            yield path, value
        elif len(path) < _DEEPEST:
            waiting += [((*path, key), inner) for key, inner in value.items() if isinstance(key, str)]


def only_tensors(weights: Mapping[str, Tensor | Inert]) -> dict[str, Tensor]:
    """The same weights, after a check.

    Raises:
        BadInput: one is sparse, quantised or nested, or has no data.
    """
    unusual = [f"{name} ({_kind(value)})" for name, value in weights.items() if isinstance(value, Inert)]
    if unusual:
        raise BadInput(f"{len(unusual)} tensors that are no plain arrays of numbers: {listed(unusual)}")
    return {name: value for name, value in weights.items() if isinstance(value, Tensor)}


def check_tensors(
    weights: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], what: str = "tensors {}"
) -> None:
    """Check that there are exactly these tensors, of these shapes, with floating-point numbers; values are not checked.

    Args:
        weights: by name; batch norm's counts of batches must be integers.
        what: words of the error, with a place for the fault.

    Raises:
        BadInput: the message names up to five that are not as expected.
    """
    both = [(name, weights[name], shapes[name]) for name in shapes if name in weights]
    counts = {name for name in weights if name.endswith(_COUNT)}
    problems = {
        "missing": sorted(shapes.keys() - weights.keys()),
        "unexpected": sorted(weights.keys() - shapes.keys()),
        "of another shape than expected": [
            f"{name} {tuple(found.shape)} instead of {shape}" for name, found, shape in both if found.shape != shape
        ],
        "not floating-point numbers of 16, 32 or 64 bits": [
            f"{name} ({found.dtype})" for name, found, _ in both if found.dtype not in _FLOATS and name not in counts
        ],
        "not whole numbers of 64 bits": [
            f"{name} ({found.dtype})" for name, found, _ in both if found.dtype != torch.int64 and name in counts
        ],
    }
    for problem, names in problems.items():
        if names:
            raise BadInput(f"{len(names)} {what.format(problem)}: {listed(names)}")


def in_float32(weights: Mapping[str, Tensor], what: str = "tensors {}") -> dict[str, Tensor]:
    """The same tensors, with floating-point numbers in float32; tensors in float32 are not copied.

    Raises:
        BadInput: one is not finite, or too large for float32.
    """
    single = {n: v.detach().float() if v.is_floating_point() else v.detach() for n, v in weights.items()}
    wrong = [n for n, v in single.items() if v.is_floating_point() and not v.is_meta and not bool(v.isfinite().all())]
    if wrong:
        raise BadInput(f"{len(wrong)} {what.format('not finite')}: {listed(wrong)}")
    return single


def _plain_names(values: Mapping[str, Tensor | Inert]) -> dict[str, Tensor | Inert]:
    plain: dict[str, Tensor | Inert] = {}
    for name, value in values.items():
        short = ".".join(part for part in name.split(".") if part not in _TRANSPARENT)
        if short in plain:
            raise BadInput(f"holds two tensors that are called {one_line(short)}")
        if short not in _COUNTS:
            plain[short] = value
    return plain


def _rank(path: tuple[str, ...]) -> tuple[bool, ...]:
    averaged = any(_AVERAGED.search(part) for part in path)
    return not averaged, "state_dict" not in path, "model" not in path


def _is_unusual(value: Any) -> bool:
    return isinstance(value, Inert) and value.original.startswith("torch._utils._rebuild_")


def _kind(value: Inert) -> str:
    name = value.original.removeprefix("torch._utils._rebuild_")
    return next((kind for part, kind in _UNUSUAL.items() if part in name), name)

"""Objects pickled beside the weights, read as data: what they were made of is kept, and none of their code is run.

Training frameworks pickle objects of their own beside the weights. Such an object becomes an `Inert`: the name of its
class, its arguments and its state. A name that belongs to none of the packages below is refused, although it would do
nothing here: a file that carries code is not what it claims to be.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

_PACKAGES = frozenset(
    {"anomalib", "lightning", "lightning_fabric", "lightning_utilities", "pytorch_lightning", "torchmetrics"}
    | {"torchvision", "numpy", "omegaconf", "collections", "datetime", "decimal", "enum", "fractions", "pathlib"}
    | {"uuid", "zoneinfo"}
)
_MODULES = ("torch.nn.", "torch.optim.")
_TENSORS = ("torch._utils._rebuild_", "torch._tensor._rebuild_", "torch.storage.")
_NAMES = frozenset({"argparse.Namespace", "types.SimpleNamespace", "typing.Any"})
_PLAIN = frozenset(
    {f"builtins.{kind.__name__}" for kind in (bool, int, float, complex, str, bytes, bytearray, object, range, slice)}
    | {f"builtins.{kind.__name__}" for kind in (tuple, list, dict, set, frozenset)}
    | {"collections.OrderedDict", "collections.defaultdict", "collections.Counter", "_codecs.encode"}
    | {"torch.Size", "torch.Tensor", "torch.device", "torch.nn.parameter.Parameter", "torch.serialization._get_layout"}
    | {str(value) for value in vars(torch).values() if isinstance(value, torch.dtype | torch.qscheme)}
)


@dataclass(slots=True, eq=False)
class Inert:
    """A placeholder for one pickled object, class or function.

    Attributes:
        original: full name of the class or function.
        state: its attributes, as its class pickles them: usually a dict.
        items: its items, for kinds of lists and sets.
    """

    original: str
    arguments: tuple[Any, ...] = ()
    state: Any = field(default_factory=dict)
    items: list[Any] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<{self.original}>"


def is_harmless(name: str) -> bool:
    """Whether a name is one that training frameworks pickle beside the weights."""
    return is_plain(name) or name.split(".")[0] in _PACKAGES or name in _NAMES or name.startswith(_MODULES)


def is_plain(name: str) -> bool:
    """Whether a name is one that tensors and plain values are pickled with."""
    return name in _PLAIN or name.startswith(_TENSORS) or (name.startswith("torch.") and name.endswith("Storage"))


def attributes(value: Any) -> Mapping[str, Any] | None:
    """The entries of a dictionary, or the attributes of a pickled namespace or OmegaConf node; else None."""
    if isinstance(value, Inert):
        value = value.state
        if isinstance(value, dict) and isinstance(value.get("_content"), dict):  # OmegaConf's
            nodes = value["_content"].items()
            return {
                k: v.state.get("_val") if isinstance(v, Inert) and isinstance(v.state, dict) else v for k, v in nodes
            }
    return value if isinstance(value, dict) else None

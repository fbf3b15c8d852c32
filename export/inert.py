"""Objects pickled into a checkpoint, read as data: what they were made of is kept, and none of their code is run.

``torch.load(weights_only=True)`` refuses classes it does not know. A training framework pickles its own, though, beside
the weights. For names from the packages below, and no others, it is given a class of ours in their place.
"""

import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from torch.serialization import get_unsafe_globals_in_checkpoint

StandIn: TypeAlias = Callable[..., Any] | tuple[Callable[..., Any], str]
"""As ``torch.serialization.safe_globals`` takes it: what to call, and the name it stands for."""

_PACKAGES = ("anomalib", "lightning", "lightning_fabric", "pytorch_lightning", "torchmetrics", "torchvision")
_MODULES = ("pathlib", "torch.nn.modules", "torch.optim")


class Inert:
    """What stands in for one pickled object; subclasses, one a class, carry the original's name.

    Attributes:
        original: full name of the class it stands for.
        arguments: what the original was to be called with.
        state: its attributes, in the form its class pickles them: usually a dict.
    """

    original: ClassVar[str]
    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any) -> "Inert":
        """Keep the arguments; there is nothing else to do."""
        made = super().__new__(cls)
        made.arguments = arguments
        made.state = {}
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state


def stand_ins(path: Path) -> list[StandIn]:
    """Stand-ins for the classes a file names.

    Names that must not be stood in for are left out, so that loading the file fails.
    """
    return [(_stand_in(name), name) for name in _unknown_names(path) if _may_be_inert(name)]


def refused_names(path: Path) -> list[str]:
    """Functions and classes a file names that are neither plain data nor may be stood in for."""
    return sorted(name for name in _unknown_names(path) if not _may_be_inert(name))


def _unknown_names(path: Path) -> list[str]:
    if not zipfile.is_zipfile(path):
        return []  # the format before 2020, which no framework of interest wrote
    return list(get_unsafe_globals_in_checkpoint(path))


def _may_be_inert(name: str) -> bool:
    return name.split(".")[0] in _PACKAGES or name.startswith(tuple(module + "." for module in _MODULES))


def _stand_in(name: str) -> type:
    if name.endswith(".AttributeDict"):
        return OrderedDict  # Lightning's dict of hyper-parameters: the only dict besides dict that torch.load fills
    return type("Inert", (Inert,), {"original": name})

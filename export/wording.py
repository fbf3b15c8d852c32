"""What a file holds, in the few words that an error has room for."""

import reprlib
from collections.abc import Iterable
from itertools import islice
from typing import Any

from uflow_edge.runtime.text import printable

_NAMED = 5
_LONGEST = 120


class _Brief(reprlib.Repr):
    """Bounded in time and length for values of any size and depth, also those that hold one another many times."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 3, _LONGEST, _LONGEST, 40

    def repr_int(self, x: int, level: int) -> str:
        return f"<a number of {x.bit_length()} bits>" if x.bit_length() > 128 else repr(x)

    def repr_Tensor(self, x: Any, level: int) -> str:
        return f"<{x.dtype} tensor of shape {tuple(x.shape)}>"


_BRIEF = _Brief()


def brief(value: Any) -> str:
    """A value as Python writes it, cut short."""
    return one_line(_BRIEF.repr(value))


def one_line(text: str) -> str:
    """A text without line breaks and control characters, cut short."""
    shown = printable(" ".join(text[: 4 * _LONGEST].split()))
    return shown if len(shown) <= 2 * _LONGEST else shown[: 2 * _LONGEST] + "…"


def listed(names: Iterable[str]) -> str:
    """The first five names."""
    first = [one_line(name) for name in islice(names, _NAMED + 1)]
    return ", ".join(first[:_NAMED]) + (", …" if len(first) > _NAMED else "")

"""Where results go: one small protocol, and a module for every kind of receiver.

A sink knows nothing of threads or of receivers that are down: it delivers, or raises. `buffered.BufferedSink` gives any
sink a thread, a bounded buffer and patience.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.text import printable

if TYPE_CHECKING:
    from uflow_edge.runtime.inspection import Inspection
    from uflow_edge.runtime.sources import Frame

__all__ = ["Provenance", "SelectiveSink", "Sink", "Undeliverable", "about", "first_lines", "verdict_only"]

_MOST_LINES = 20

Provenance: TypeAlias = Mapping[str, str]
"""Of the bundle: ``bundle``, its name, and ``bundle_sha256``, the SHA-256 of its manifest, as in Parquet."""


class Undeliverable(BadInput):
    """This one result cannot be delivered, however often it is tried; those behind it can."""


class Sink(Protocol):
    """Receives results one by one, always from the same thread."""

    @property
    def name(self) -> str:
        """What people call it, as in ``mqtt broker:1883``."""
        ...

    def put(self, frame: "Frame", inspection: "Inspection") -> None:
        """Deliver one result. May block.

        Raises:
            OSError: the receiver is down or full; worth trying again with the same result.
            Undeliverable: this result cannot be delivered; the next one may.
            UflowEdgeError: trying again is pointless.
        """
        ...

    def close(self) -> None:
        """Release what the sink holds. What was put has been delivered before."""
        ...


@runtime_checkable
class SelectiveSink(Sink, Protocol):
    """A sink that says what it needs of a result, so that waiting results take no more memory than that."""

    def needed(self, frame: "Frame", inspection: "Inspection") -> "tuple[Frame, Inspection] | None":
        """The result without the arrays this sink has no use for; None when it has no use for the result at all."""
        ...


def verdict_only(frame: "Frame", inspection: "Inspection", *, mask: bool) -> "tuple[Frame, Inspection]":
    """The result without picture and maps: some kilobytes instead of megabytes.

    Args:
        frame: its image becomes (0, 0, 3).
        inspection: its energies and exceedances become empty, its score map (0, 0).
        mask: whether to keep the verdict's mask, one byte a pixel; otherwise it becomes (0, 0).
    """
    verdict = inspection.verdict
    if not mask:
        verdict = replace(verdict, mask=verdict.mask[:0, :0].copy())  # a view would keep the whole array alive
    slim = replace(inspection, verdict=verdict, energies=(), exceedances=(), score=inspection.score[:0, :0].copy())
    return replace(frame, image_bgr=frame.image_bgr[:0, :0].copy()), slim


def about(frame: "Frame", provenance: Provenance | None) -> dict[str, str]:
    """What a message says besides the verdict: ``name``, as its picture has it, and the bundle; nothing without one."""
    return {} if provenance is None else {"name": printable(frame.name.as_posix()), **provenance}


def first_lines(report: Callable[[str], None]) -> Callable[[str], None]:
    """Passes on so many lines, and says at the last that those behind it are left out: a log is not to be flooded."""
    numbers = count(1)

    def pass_on(line: str) -> None:
        number = next(numbers)
        if number <= _MOST_LINES:
            report(line if number < _MOST_LINES else f"{line}; further ones are counted, not named")

    return pass_on

"""Receivers of results: one small protocol, and one module per kind of receiver.

A sink uses no threads and does not retry: it delivers, or raises. `buffered.BufferedSink` adds a thread, a bounded
buffer and retries to any sink.
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
"""The bundle's name (``bundle``) and the SHA-256 of its manifest (``bundle_sha256``), as in Parquet files."""


class Undeliverable(BadInput):
    """This result can never be delivered; the results behind it can."""


class Sink(Protocol):
    """Receives results one by one, always on the same thread."""

    @property
    def name(self) -> str:
        """A name for people, such as ``mqtt broker:1883``."""
        ...

    def put(self, frame: "Frame", inspection: "Inspection") -> None:
        """Deliver one result. May block.

        Raises:
            OSError: the receiver is down or full; the caller may try the same result again.
            Undeliverable: this result cannot be delivered; the next one may be.
            UflowEdgeError: the sink is unusable; trying again is pointless.
        """
        ...

    def close(self) -> None:
        """Release the sink's resources. All results are delivered before this call."""
        ...


@runtime_checkable
class SelectiveSink(Sink, Protocol):
    """A sink that says which part of a result it needs, to save memory while results wait."""

    def needed(self, frame: "Frame", inspection: "Inspection") -> "tuple[Frame, Inspection] | None":
        """The result without the arrays that this sink does not use; None if it does not use the result at all."""
        ...


def verdict_only(frame: "Frame", inspection: "Inspection", *, mask: bool) -> "tuple[Frame, Inspection]":
    """The result without image and maps: kilobytes instead of megabytes.

    Args:
        frame: its image becomes (0, 0, 3).
        inspection: its energies and exceedances become empty, its score map (0, 0).
        mask: whether to keep the verdict's mask, one byte per pixel; otherwise it becomes (0, 0).
    """
    verdict = inspection.verdict
    if not mask:
        verdict = replace(verdict, mask=verdict.mask[:0, :0].copy())  # a view would keep the whole array alive
    slim = replace(inspection, verdict=verdict, energies=(), exceedances=(), score=inspection.score[:0, :0].copy())
    return replace(frame, image_bgr=frame.image_bgr[:0, :0].copy()), slim


def about(frame: "Frame", provenance: Provenance | None) -> dict[str, str]:
    """Fields that a message has besides the verdict: the frame's ``name`` and the bundle; none without provenance."""
    return {} if provenance is None else {"name": printable(frame.name.as_posix()), **provenance}


def first_lines(report: Callable[[str], None]) -> Callable[[str], None]:
    """Limit a log to 20 lines; the last one says that further ones are only counted."""
    numbers = count(1)

    def pass_on(line: str) -> None:
        number = next(numbers)
        if number <= _MOST_LINES:
            report(line if number < _MOST_LINES else f"{line}; further ones are counted, not named")

    return pass_on

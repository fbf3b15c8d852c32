"""Where results go: one small protocol, and a module for every kind of receiver.

A sink knows nothing of threads or of receivers that are down: it delivers, or raises. `buffered.BufferedSink` gives any
sink a thread, a bounded buffer and patience.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from uflow_edge.runtime.inspection import Inspection
    from uflow_edge.runtime.sources import Frame

__all__ = ["SelectiveSink", "Sink", "verdict_only"]


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

"""Delivers every result or ends the run: for files, of which nothing may be lost."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from uflow_edge.runtime.errors import BadInput, UflowEdgeError
from uflow_edge.runtime.sinks import Sink, Undeliverable, first_lines

if TYPE_CHECKING:
    from uflow_edge.runtime.inspection import Inspection
    from uflow_edge.runtime.sources import Frame


class StrictSink:
    """Turns a receiver that is down or full into an error that says what was not saved, and why."""

    def __init__(self, sink: Sink, report: Callable[[str], None] = lambda line: None) -> None:
        """Deliver to a sink.

        Args:
            sink: closed by `close`.
            report: gets a line on each of the first results that cannot be delivered although the receiver is well.
        """
        self.name: Final = sink.name
        self.undelivered = 0
        self._sink = sink
        self._report = first_lines(report)

    def put(self, frame: "Frame", inspection: "Inspection") -> None:
        """Deliver one result, or count it in `undelivered` where the fault is its own.

        Raises:
            BadInput: it cannot be delivered now; the message names the receiver and the frame.
            UflowEdgeError: the sink's own, when trying again is pointless.
        """
        try:
            self._sink.put(frame, inspection)
        except Undeliverable as error:
            self.undelivered += 1
            self._report(str(error))
        except UflowEdgeError:
            raise
        except OSError as error:
            raise BadInput(
                f"{self.name}: the result of {frame.source} cannot be saved ({error.strerror or error}); the run ends "
                "here, so that none is lost unnoticed. Make room, or name another place"
            ) from error

    def close(self) -> None:
        """Close the sink."""
        self._sink.close()

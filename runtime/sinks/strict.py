"""Delivers every result or ends the run: for image files and videos, whose results must not be lost."""

import logging
from typing import TYPE_CHECKING, Final

from uflow_edge.runtime.errors import BadInput, UflowEdgeError
from uflow_edge.runtime.sinks import Sink, Undeliverable, first_lines

if TYPE_CHECKING:
    from uflow_edge.runtime.inspection import Inspection
    from uflow_edge.runtime.sources import Frame

logger = logging.getLogger(__name__)


class StrictSink:
    """Ends the run with an error if a receiver is down or full."""

    def __init__(self, sink: Sink) -> None:
        """Deliver to a sink, which `close` closes."""
        self.name: Final = sink.name
        self.undelivered = 0
        self._sink = sink
        self._log = first_lines(logger.warning)

    def put(self, frame: "Frame", inspection: "Inspection") -> None:
        """Deliver one result, or count it in `undelivered` if only this result cannot be delivered.

        Raises:
            BadInput: the receiver is down or full; the message names the receiver and the frame.
            UflowEdgeError: the sink's own error.
        """
        try:
            self._sink.put(frame, inspection)
        except Undeliverable as error:
            self.undelivered += 1
            self._log(str(error))
        except UflowEdgeError:
            raise
        except OSError as error:
            raise BadInput(
                f"{self.name}: the result of {frame.source} cannot be saved ({error.strerror or error}), so the run "
                "ends: no result may be lost. Make room, or choose another place"
            ) from error

    def close(self) -> None:
        self._sink.close()

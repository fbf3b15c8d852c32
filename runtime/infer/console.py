"""What ``uflow-infer`` tells the person at the terminal: a line a frame, a progress bar, a summary."""

import statistics
from collections import deque
from typing import TYPE_CHECKING, Final, TextIO

from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.cli.logs import print_beside_bar

if TYPE_CHECKING:
    from uflow_edge.runtime.inspection import Inspection
    from uflow_edge.runtime.line.tally import Tally
    from uflow_edge.runtime.sources import Frame

_REMEMBERED = 10_000


class Console:
    """The sink that people read."""

    name: Final = "console"

    def __init__(self, stream: TextIO, *, line_a_frame: bool, total: int | None) -> None:
        """Show a progress bar.

        Args:
            stream: for lines.
            line_a_frame: print one.
            total: frames that are expected; None where nobody knows.
        """
        self._stream = stream
        self._line_a_frame = line_a_frame
        self._bar = progress((), "inspecting", total, "frame")
        self._milliseconds: deque[float] = deque(maxlen=_REMEMBERED)

    def put(self, frame: "Frame", inspection: "Inspection") -> None:
        """Print one line."""
        verdict = inspection.verdict
        self._milliseconds.append(verdict.timestamps.work_ms)
        self._bar.update()
        if self._line_a_frame:
            word = "ANOMALY" if verdict.anomalous else "good   "
            print_beside_bar(f"{word} {verdict.score:10.2f}  {frame.source} #{frame.index}", self._stream)

    def close(self) -> None:
        """Take the progress bar away."""
        self._bar.close()

    def summary(self, tally: "Tally") -> str:
        """What became of all frames."""
        text = f"{tally.inspected} inspected, {tally.anomalous} anomalous, {tally.unreadable} unreadable"
        text += f", {tally.not_judged} not judged" if tally.not_judged else ""
        text += f", {tally.dropped} dropped" if tally.dropped else ""
        text += "".join(f", {number} not delivered to {name}" for name, number in tally.undelivered.items() if number)
        if self._milliseconds:
            text += f", median {statistics.median(self._milliseconds):.1f} ms of work per frame"
        return text

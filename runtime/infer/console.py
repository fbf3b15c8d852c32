"""Console output of ``uflow-infer``: one line per frame, a progress bar, a summary."""

import statistics
from collections import deque
from typing import TYPE_CHECKING, Final, TextIO

from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.cli.logs import print_beside_bar

if TYPE_CHECKING:
    from uflow_edge.runtime.inspection import Inspection
    from uflow_edge.runtime.sources import Frame
    from uflow_edge.runtime.tally import Tally

_REMEMBERED = 10_000


class Console:
    """A sink that prints verdicts."""

    name: Final = "console"

    def __init__(self, stream: TextIO, *, line_per_frame: bool, total: int | None) -> None:
        """Show a progress bar.

        Args:
            total: number of frames to expect; None if it is unknown.
        """
        self._stream = stream
        self._line_per_frame = line_per_frame
        self._bar = progress((), "inspecting", total, "frame")
        self._milliseconds: deque[float] = deque(maxlen=_REMEMBERED)

    def put(self, frame: "Frame", inspection: "Inspection") -> None:
        verdict = inspection.verdict
        self._milliseconds.append(verdict.timestamps.work_ms)
        self._bar.update()
        if self._line_per_frame:
            word = "ANOMALY" if verdict.anomalous else "good   "
            print_beside_bar(f"{word} {verdict.score:10.2f}  {frame.source} #{frame.index}", self._stream)

    def close(self) -> None:
        self._bar.close()

    def summary(self, tally: "Tally") -> str:
        text = f"{tally.inspected} inspected, {tally.anomalous} anomalous, {tally.unreadable} unreadable"
        text += f", {tally.not_judged} not judged" if tally.not_judged else ""
        text += f", {tally.dropped} dropped" if tally.dropped else ""
        text += "".join(f", {number} not delivered to {name}" for name, number in tally.undelivered.items() if number)
        if self._milliseconds:
            text += f", median {statistics.median(self._milliseconds):.1f} ms of work per frame"
        return text

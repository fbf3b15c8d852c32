"""Counts of frames. Once the pipeline has drained, each captured frame is counted in exactly one other field."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts since the start.

    Attributes:
        captured: frames that the trigger took from a source.
        inspected: frames with a verdict.
        dropped: frames that a newer one overtook (policy ``latest``).
        undelivered: by sink, results lost because it was down for too long, or could not take them.
        not_judged: frames that the inspection failed on.
    """

    captured: int = 0
    inspected: int = 0
    dropped: int = 0
    anomalous: int = 0
    unreadable: int = 0
    reconnects: int = 0
    undelivered: Mapping[str, int] = field(default_factory=dict)
    not_judged: int = 0

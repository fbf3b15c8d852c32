"""The protocol of sources, and the frames that they deliver."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from uflow_edge.runtime.errors import ExitCode, UflowEdgeError

if TYPE_CHECKING:
    from uflow_edge.runtime.numeric import Image


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame to inspect.

    Attributes:
        image_bgr: (H, W, 3) uint8.
        index: number in the source, from 0; unreadable frames, and a camera's frames that a newer one replaced, count.
        source: file, camera or stream.
        name: name for files made from the frame: a relative path without suffix.
        captured: capture time, in seconds since the epoch.
    """

    image_bgr: "Image"
    index: int
    source: str
    name: Path
    captured: float


class SourceLost(UflowEdgeError):
    """A source that delivered frames is gone; it may come back."""

    exit_code = ExitCode.MISSING


class Source(Protocol):
    """Delivers frames."""

    @property
    def name(self) -> str:
        """A name for people, such as ``camera 0`` or ``belt.avi``."""

    @property
    def live(self) -> bool:
        """Whether the source is a camera: it never ends by itself, and late frames may be dropped."""

    def frames(self, stop: threading.Event, first: int = 0) -> Iterator[Frame]:
        """Open the source, deliver frames until it ends or ``stop`` is set, and release it.

        The method may be called again after it ended or failed.

        Args:
            stop: set by another thread to end the iteration.
            first: number of the first frame.

        Raises:
            SourceLost: the source cannot be opened again, or stopped delivering; trying again may help.
            BadInput, Unavailable, UsageError: trying again is pointless.
        """


def numbered(index: int) -> Path:
    """The name of a frame made from its number."""
    return Path(f"frame-{index:06d}")

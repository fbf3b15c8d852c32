"""What every source of frames has in common."""

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
    """One picture to inspect.

    Attributes:
        image_bgr: (H, W, 3) uint8.
        index: its number in the source, from 0, counting frames that could not be read, and frames of a camera that
            a newer one overtook before anyone asked for them.
        source: file, camera or stream.
        name: for files made from it: a relative path without suffix.
        captured: when it was there, seconds since the epoch.
    """

    image_bgr: "Image"
    index: int
    source: str
    name: Path
    captured: float


class SourceLost(UflowEdgeError):
    """A source that was there is gone; it may come back."""

    exit_code = ExitCode.MISSING


class Source(Protocol):
    """Where frames come from."""

    @property
    def name(self) -> str:
        """For people: ``camera 0``, ``belt.avi``."""

    @property
    def live(self) -> bool:
        """Whether it is a device that never ends by itself, and whose late frames may be dropped."""

    def frames(self, stop: threading.Event, first: int = 0) -> Iterator[Frame]:
        """Open, then deliver frames until the source ends or ``stop`` is set; release the device on exit.

        May be called again after it ended or failed.

        Args:
            stop: set by another thread to end the iteration.
            first: number of the first frame.

        Raises:
            SourceLost: the source cannot be opened again, or stopped delivering; worth trying again.
            BadInput, MissingDependency, UsageError: trying again is pointless.
        """


def numbered(index: int) -> Path:
    """The name of a frame that has nothing but its number."""
    return Path(f"frame-{index:06d}")

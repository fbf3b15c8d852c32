"""Settings of a camera."""

import logging
from dataclasses import dataclass
from functools import lru_cache

from uflow_edge.runtime.errors import UsageError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CameraOptions:
    """Settings of a camera; None keeps the camera's own setting.

    Attributes:
        width, height: in pixels.
        pixel_format: four letters for V4L2 (``MJPG``, ``YUYV``), a PFNC name for GenICam (``BayerRG8``).
        exposure_us: exposure time in microseconds; switches automatic exposure off.
        gain: in the camera's own unit.
        buffers: number of frames that V4L2 buffers; use more than 1 if the camera misses frames during decoding.
        silence_s: a camera counts as lost after so many seconds without a frame; ``inf`` for a camera with a hardware
            trigger.
    """

    width: int | None = None
    height: int | None = None
    fps: float | None = None
    pixel_format: str | None = None
    exposure_us: float | None = None
    gain: float | None = None
    buffers: int = 1
    silence_s: float = 10.0

    def __post_init__(self) -> None:
        for field in ("width", "height", "exposure_us", "buffers", "silence_s"):
            value = getattr(self, field)
            if value is not None and not value > 0:
                raise UsageError(f"camera option {field}: expected a number above 0, got {value}")
        if self.fps is not None and not 0 <= self.fps < 1e4:
            raise UsageError(f"camera option fps: expected frames per second, 0 to 9999, got {self.fps}")
        if (self.width is None) != (self.height is None):
            raise UsageError("camera options width and height go together: give both or neither")


@lru_cache(128)  # a camera that is opened again does not repeat itself
def log_refusal(camera: str, refused: str) -> None:
    """Log once which settings a camera did not accept."""
    logger.warning("%(camera)s did not accept %(refused)s", {"camera": camera, "refused": refused})

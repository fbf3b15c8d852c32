"""The threshold while the line runs: moved live, saved into the bundle, or taken back to what the bundle says."""

import math
import threading
from typing import TYPE_CHECKING

from uflow_edge.runtime.bundle.edit import save_operating_point
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.errors import UsageError
from uflow_edge.runtime.operating_point import OperatingPoint

if TYPE_CHECKING:
    from uflow_edge.runtime.bundle.folder import Bundle
    from uflow_edge.runtime.inspector import Inspector


class LiveThreshold:
    """For any thread."""

    def __init__(self, inspector: "Inspector", bundle: "Bundle[UFlowManifest]") -> None:
        self._inspector = inspector
        self._bundle = bundle
        self._saving = threading.Lock()

    def value(self) -> float:
        """On the image score, −log10 NFA, as it applies now."""
        return self._inspector.operating_point.threshold

    def promise(self) -> str:
        """What the one that applies promises, for people."""
        return self._inspector.operating_point.promise

    def saved(self) -> float:
        """As the bundle says."""
        return self._bundle.manifest.operating_point.threshold

    def set(self, value: float) -> None:
        """Apply another from the next frame on; the bundle's own keeps the promise it was made with.

        Raises:
            UsageError: not a finite number.
        """
        if not math.isfinite(value):
            raise UsageError(f"threshold {value}: expected a finite number")
        saved = self._bundle.manifest.operating_point.doubted(self._inspector.difference)
        self._inspector.operating_point = saved if value == saved.threshold else OperatingPoint(value, "manual")

    def save(self) -> None:
        """Write the one that applies into the bundle.

        Raises:
            BundleChanged: the bundle was calibrated again meanwhile.
            BadInput, OSError: the manifest cannot be read or written.
        """
        with self._saving:
            point, saved = self._inspector.operating_point, self._bundle.manifest.operating_point
            self._bundle = save_operating_point(self._bundle, saved if point.threshold == saved.threshold else point)

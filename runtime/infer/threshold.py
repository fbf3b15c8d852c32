"""The threshold during a run: change it, save it into the bundle, or return to the bundle's value."""

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
    """The threshold of a running inspector, for any thread."""

    def __init__(self, inspector: "Inspector", bundle: "Bundle[UFlowManifest]") -> None:
        self._inspector = inspector
        self._bundle = bundle
        self._saving = threading.Lock()

    def value(self) -> float:
        """The current threshold on the image score, −log10 NFA."""
        return self._inspector.operating_point.threshold

    def promise(self) -> str:
        """The promise of the current threshold, as text."""
        return self._inspector.operating_point.promise

    def saved(self) -> float:
        """The threshold in the bundle."""
        return self._bundle.manifest.operating_point.threshold

    def set(self, value: float) -> None:
        """Apply a threshold from the next frame on; only the bundle's own value keeps its promise.

        Raises:
            UsageError: the value is not finite.
        """
        if not math.isfinite(value):
            raise UsageError(f"threshold {value}: expected a finite number")
        saved = self._bundle.manifest.operating_point.doubted(self._inspector.difference)
        self._inspector.operating_point = saved if value == saved.threshold else OperatingPoint(value, "manual")

    def save(self) -> None:
        """Write the current threshold into the bundle.

        Raises:
            BundleChanged: the bundle was calibrated again in the meantime.
            BadInput, OSError: the manifest cannot be read or written.
        """
        with self._saving:
            point, saved = self._inspector.operating_point, self._bundle.manifest.operating_point
            self._bundle = save_operating_point(self._bundle, saved if point.threshold == saved.threshold else point)

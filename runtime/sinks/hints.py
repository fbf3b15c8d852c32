"""Hints that the frames of a source may not suit the bundle."""

import logging
from collections import Counter
from typing import TYPE_CHECKING, Final

from uflow_edge.runtime.bundle.calibration_record import CalibrationRecord

if TYPE_CHECKING:
    from uflow_edge.runtime.inspection import Inspection
    from uflow_edge.runtime.sources import Frame

logger = logging.getLogger(__name__)

_AT_ONCE, _LATER, _NEARLY_ALL = 20, 50, 0.9


class Hints:
    """A sink that reports frames of another size than at calibration, and sources with hardly any good frame.

    It reports each of them once per source.
    """

    name: Final = "hints"

    def __init__(self, record: CalibrationRecord | None, source: str | None = None) -> None:
        """Start without frames.

        Args:
            record: the bundle's calibration record; None without one.
            source: name of the only source; None if the frames name theirs, as with several cameras.
        """
        self._record = record
        self._source = source
        self._of_another_size: set[str] = set()
        self._hinted: set[str] = set()
        self._seen: Counter[str] = Counter()
        self._anomalous: Counter[str] = Counter()

    def put(self, frame: "Frame", inspection: "Inspection") -> None:
        source, verdict = self._source or frame.source, inspection.verdict
        difference = None if self._record is None else self._record.difference_of_frame(verdict.size)
        if difference is not None and source not in self._of_another_size:
            self._of_another_size.add(source)
            logger.warning(
                "warning: %(source)s: %(difference)s: no promise for such frames",
                {"source": source, "difference": difference},
            )
        if self._seen[source] >= _LATER:
            return
        self._seen[source] += 1
        self._anomalous[source] += verdict.anomalous
        seen, anomalous = self._seen[source], self._anomalous[source]
        few = seen == _AT_ONCE == anomalous
        many = seen == _LATER and anomalous > _NEARLY_ALL * seen
        if (few or many) and source not in self._hinted:
            self._hinted.add(source)
            logger.info(
                "hint: %(source)s: %(anomalous)d of the first %(seen)d frames are anomalous. Are the product, the "
                "light, the focus and the part of the frame the same as at calibration? If so, calibrate the bundle "
                "with good images of this line: uflow-calibrate",
                {"source": source, "anomalous": anomalous, "seen": seen},
            )

    def close(self) -> None:
        """Do nothing."""

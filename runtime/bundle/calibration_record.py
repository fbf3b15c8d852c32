"""The conditions of a calibration: its promise does not hold on a line that runs under others."""

from collections.abc import Iterable
from dataclasses import dataclass

from uflow_edge.runtime.bundle.manifest import Precision
from uflow_edge.runtime.numeric import Size
from uflow_edge.runtime.storage.strict_json import Text
from uflow_edge.runtime.views import ViewOptions

REPORT = "report.html"  # in the bundle
_ASPECT_TOLERANCE = 1.02


@dataclass(frozen=True, slots=True)
class CalibrationRecord:
    """The conditions of a calibration. The energies of its images are in the manifest's drift range.

    Attributes:
        views: which parts of a frame were inspected.
        precision: of the graph; None if the engine does not say.
        images: number of good images.
        heights, widths: smallest and largest of the images, in pixels.
        aspects: smallest and largest ratio of width to height.
        null_model: whether the threshold is for the scores of a null model; None in older bundles, which do not say.
    """

    views: ViewOptions
    precision: Precision | None
    engine: Text
    images: int
    heights: tuple[int, int]
    widths: tuple[int, int]
    aspects: tuple[float, float]
    null_model: bool | None = None

    @classmethod
    def of(
        cls,
        views: ViewOptions,
        precision: Precision | None,
        engine: str,
        images: int,
        sizes: Iterable[Size],
        null_model: bool | None = None,
    ) -> "CalibrationRecord":
        """The record for images of these (height, width), at least one."""
        heights, widths = zip(*sizes, strict=True)
        aspects = [width / height for height, width in zip(heights, widths, strict=True)]
        return cls(
            views,
            precision,
            engine,
            images,
            (min(heights), max(heights)),
            (min(widths), max(widths)),
            (min(aspects), max(aspects)),
            null_model,
        )

    @property
    def usual_size(self) -> Size:
        """(height, width) in the middle between the smallest and the largest image."""
        return sum(self.heights) // 2, sum(self.widths) // 2

    def difference(self, views: ViewOptions, precision: Precision | None) -> str | None:
        """How a line with these options differs, in one phrase; None if it does not."""
        if str(views) != str(self.views):
            return f"calibrated on {self.views}, run on {views}"
        if precision != self.precision:
            return f"calibrated in {self.precision}, run in {precision or 'an unknown precision'}"
        return None

    def difference_of_frame(self, size: Size) -> str | None:
        """How a frame of this (height, width) differs, in one phrase; None if it does not."""
        height, width = size
        narrowest, widest = self.aspects
        if (
            self.heights[0] <= height <= self.heights[1]
            and self.widths[0] <= width <= self.widths[1]
            and narrowest / _ASPECT_TOLERANCE <= width / height <= widest * _ASPECT_TOLERANCE
        ):
            return None
        calibrated = f"{_extent(self.widths)} x {_extent(self.heights)}"
        return f"calibrated on frames of {calibrated} pixels, run on {width} x {height}"


def _extent(sides: tuple[int, int]) -> str:
    smallest, largest = sides
    return str(smallest) if smallest == largest else f"{smallest} to {largest}"

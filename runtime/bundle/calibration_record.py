"""What a bundle was calibrated on and with: on a line that runs otherwise its promise does not hold."""

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
    """The conditions of a calibration. The energies that it saw are in the manifest's drift range.

    Attributes:
        views: which parts of a frame were inspected.
        precision: of the graph; None where the engine does not say.
        engine: what ran it, for people.
        images: how many good images were used.
        heights, widths: smallest and largest of the images, in pixels.
        aspects: smallest and largest ratio of width to height.
        null_model: whether the threshold is one of scores that a null model gives; None in bundles that do not say so.
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
        """For images of these (height, width), at least one."""
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
        """(height, width) in the middle of the images'; of their proportions where all have the same."""
        return sum(self.heights) // 2, sum(self.widths) // 2

    def difference(self, views: ViewOptions, precision: Precision | None) -> str | None:
        """How a line differs that runs with these options, in one phrase; None where it does not."""
        if str(views) != str(self.views):
            return f"calibrated on {self.views}, run on {views}"
        if precision != self.precision:
            return f"calibrated in {self.precision}, run in {precision or 'an unknown precision'}"
        return None

    def difference_of_frame(self, size: Size) -> str | None:
        """How a frame of this (height, width) differs, in one phrase; None where it does not."""
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

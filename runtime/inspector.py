"""The product in one file: a frame goes in, is resized, run through the flow and thresholded; a verdict comes out."""

import logging
import math
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.manifest import Precision
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.drift import DriftMonitor, DriftState, drift_numbers
from uflow_edge.runtime.engines import Engine, EngineFailed
from uflow_edge.runtime.inspection import Clock, Inferred, Inspection, LatentStatistics, Prepared
from uflow_edge.runtime.nfa import regions_above
from uflow_edge.runtime.nfa.null_model import NullModel
from uflow_edge.runtime.numeric import Frame, Image, Size
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.resize.cpu import Box, checked_frame, model_input
from uflow_edge.runtime.scoring import Scorer
from uflow_edge.runtime.verdict import Timestamps, Verdict
from uflow_edge.runtime.views import ViewOptions, mask_in_frame, region_in_frame, stitch

if TYPE_CHECKING:
    from uflow_edge.runtime.engines.device_frames import DeviceFrames
    from uflow_edge.runtime.engines.selection import Backend

logger = logging.getLogger(__name__)


class Inspector:
    """Inspects frames with one bundle.

    `inspect` does all the work; `prepare`, `infer` and `judge` are its three parts, for threads that work on three
    frames at a time. Each part may be in use by one thread at once.

    Attributes:
        operating_point: may be exchanged at any time, and holds from the next frame on.
        difference: in what the inspection differs from the bundle's calibration, so that its promise does not hold;
            None where it does not.

    Example:
        with Inspector.load("bottle.uflow") as inspector:
            verdict = inspector.inspect(cv2.imread("bottle.png"))
            print(verdict.anomalous, verdict.score)
    """

    def __init__(
        self,
        manifest: UFlowManifest,
        engine: Engine,
        views: ViewOptions = ViewOptions(),
        device: "DeviceFrames | None" = None,
        null_model: NullModel | None = None,
    ) -> None:
        """Put together what was opened elsewhere.

        Args:
            manifest: of the bundle.
            engine: runs it; neither this nor ``device`` is closed here.
            views: which parts of a frame are inspected.
            device: resizes on the GPU and runs the same engine there; default, the CPU resizes.
            null_model: that good images have taught; default, latents are taken as N(0, 1) and the manifest's rule
                holds.
        """
        self.manifest: Final = manifest
        self.engine: Final = engine
        self._device = device
        self._scorer = Scorer(manifest, null_model)
        self._owned = ExitStack()
        self.views: Final = views
        record = manifest.calibration
        self.difference: Final = None if record is None else record.difference(views, engine.precision)
        self.operating_point = manifest.operating_point.doubted(self.difference)
        self._drift = None if manifest.drift is None else DriftMonitor(manifest.drift)

    @classmethod
    def from_bundle(
        cls,
        bundle: Bundle[UFlowManifest],
        engine: Engine,
        views: ViewOptions = ViewOptions(),
        device: "DeviceFrames | None" = None,
    ) -> "Inspector":
        """Like the constructor, for all that a bundle says, its null model included.

        Raises:
            BadInput: the null model cannot be read.
        """
        scorer = Scorer.load(bundle.folder, bundle.manifest)
        return cls(bundle.manifest, engine, views, device, scorer.null_model)

    @classmethod
    def load(
        cls,
        source: str | Path | Bundle[UFlowManifest],
        *,
        backend: "Backend" = "auto",
        precision: Precision | None = None,
        threshold: float | None = None,
        threads: int | None = None,
        views: ViewOptions = ViewOptions(),
    ) -> "Inspector":
        """Choose an engine like ``uflow-infer`` and make it ready: the first frame costs what every frame costs.

        Args:
            source: the bundle's folder, or the bundle as loaded.
            backend, precision, threads: see `selection.open_engine`.
            threshold: on the score; default, the bundle's.
            views: which parts of a frame are inspected.

        Returns:
            An inspector that owns its engine: `close` it, or use it in a ``with`` statement.

        Raises:
            BadInput: the bundle is missing, damaged or cannot be run.
            UsageError: it has no graph in this precision, or the threshold is no number.
            MissingDependency: the backend cannot run here.
            EngineFailed: it fails, or computes something else than FP32.
        """
        from uflow_edge.runtime.engines.device_frames import device_frames
        from uflow_edge.runtime.engines.selection import open_engine

        bundle = source if isinstance(source, Bundle) else Bundle.load(source, UFlowManifest)
        with ExitStack() as stack:
            engine = open_engine(bundle, backend, precision, threads)
            stack.callback(engine.close)
            device = device_frames(engine, bundle.manifest.input_size)
            if device is not None:
                stack.callback(device.close)
            inspector = cls.from_bundle(bundle, engine, views, device)
            if threshold is not None:
                inspector.operating_point = OperatingPoint(threshold, "manual")
            inspector.warm_up()
            inspector._owned = stack.pop_all()
        if inspector.difference is not None:
            logger.warning("warning: %(difference)s: no promise", {"difference": inspector.difference})
        return inspector

    def close(self) -> None:
        """Close the engine that `load` opened; one that was handed in is left alone."""
        self._owned.close()

    def __enter__(self) -> "Inspector":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def operating_point(self) -> OperatingPoint:
        """Where the line between good and anomalous is drawn, from the next frame on."""
        return self._operating_point

    @operating_point.setter
    def operating_point(self, point: OperatingPoint) -> None:
        if not isinstance(point, OperatingPoint):
            raise TypeError(f'expected an OperatingPoint, such as OperatingPoint({point!r}, "manual"); got {point!r}')
        self._operating_point = point

    def warm_up(self) -> None:
        """Compile or load all kernels."""
        side = self.manifest.input_size
        whole = Inspector(self.manifest, self.engine, device=self._device, null_model=self._scorer.null_model)
        whole.inspect(np.zeros((side + 1, side + 1, 3), np.uint8))

    def inspect(self, frame_bgr: Frame, *, frame: int = 0, source: str = "", captured: float | None = None) -> Verdict:
        """Judge one frame.

        Args:
            frame_bgr: (H, W, 3) uint8, BGR, as ``cv2.imread`` gives it.
            frame: its number, copied to the verdict.
            source: where it comes from, copied to the verdict.
            captured: when it was captured, seconds since the epoch; default, now.

        Raises:
            BadInput: not such an array, or a region of interest reaches beyond it.
            EngineFailed: the engine gives no energies; there is no verdict.
        """
        return self.examine(frame_bgr, frame=frame, source=source, captured=captured).verdict

    def examine(
        self, frame_bgr: Frame, *, frame: int = 0, source: str = "", captured: float | None = None
    ) -> Inspection:
        """Judge one frame like `inspect`, and keep the maps."""
        return self.judge(self.infer(self.prepare(frame_bgr)), frame=frame, source=source, captured=captured)

    def prepare(self, frame_bgr: Frame) -> Prepared:
        """The first part of `inspect`: cut out what is looked at, and resize it unless the GPU does."""
        clock = Clock()
        image = checked_frame(frame_bgr)
        size = (image.shape[0], image.shape[1])
        boxes = self.views.boxes(size, self.manifest.fit)
        pictures = None if self._device is not None else self._resized(image, boxes)
        return Prepared(image, pictures, boxes, size, clock, clock.now())

    def infer(self, prepared: Prepared) -> Inferred:
        """The second part: run the engine."""
        started = prepared.clock.now()
        if prepared.pictures is not None:
            outputs = self.engine.run(prepared.pictures)
        else:
            assert self._device is not None
            outputs = self._device.run(prepared.frame_bgr, prepared.boxes)
        return Inferred(
            prepared, LatentStatistics.of(outputs, len(self.manifest.scales)), started, prepared.clock.now()
        )

    def judge(
        self,
        inferred: Inferred,
        *,
        frame: int = 0,
        source: str = "",
        captured: float | None = None,
        camera: str = "",
    ) -> Inspection:
        """The third part: the number of false alarms, and the decision.

        Tests are counted over all parts of the frame, so what is promised is promised for the frame.

        Args:
            inferred: what `infer` gave.
            frame, source, captured: see `inspect`.
            camera: whose drift the frame belongs to, where several are watched: a file is its own source.

        Raises:
            EngineFailed: the energies are NaN, infinite, negative or of another shape; there is no verdict.
        """
        prepared, statistics = inferred.prepared, inferred.statistics
        boxes, clock = prepared.boxes, prepared.clock
        nfa_started = clock.now()
        try:
            score, box = stitch(self._scorer.scores(statistics), boxes, outside=-math.inf)
        except ValueError as error:
            raise EngineFailed(f"{self.engine.name} gives no energies of latents ({error})") from error
        if len(boxes) > 1:
            score -= np.float32(math.log10(len(boxes)))
        point, peak = self._point_for(prepared.size), float(score.max())
        if not math.isfinite(peak):
            raise EngineFailed(f"the score is {peak}, from energies of {self.engine.name}: the frame is not judged")
        anomalous = not (peak <= point.threshold)  # a doubtful comparison never means good
        captured = clock.started if captured is None else captured
        verdict = Verdict(
            frame=frame,
            source=source,
            size=prepared.size,
            anomalous=anomalous,
            score=peak,
            operating_point=point,
            regions=tuple(region_in_frame(found, score.shape, box) for found in regions_above(score, point.threshold)),
            mask=mask_in_frame(score, point, prepared.size, box),
            timestamps=Timestamps(
                captured=captured,
                started=clock.started,
                preprocessed=prepared.preprocessed,
                inferred=inferred.inferred,
                thresholded=clock.now(),
                engine_started=inferred.engine_started,
                nfa_started=nfa_started,
            ),
            drift=self._watch(statistics, camera, peak, anomalous, captured),
        )
        energies, exceedances = (
            tuple(stitch(scale, boxes, outside=0)[0] for scale in scales)
            for scales in (statistics.energies, statistics.exceedances)
        )
        return Inspection(verdict, energies, exceedances, score, box)

    def _point_for(self, size: Size) -> OperatingPoint:
        record = self.manifest.calibration
        return self.operating_point.doubted(None if record is None else record.difference_of_frame(size))

    def _watch(
        self, statistics: LatentStatistics, camera: str, score: float, anomalous: bool, captured: float
    ) -> DriftState | None:
        if self._drift is None:
            return None
        numbers = drift_numbers(statistics.energies, self.manifest.channels, score)
        return self._drift.update(camera, numbers, anomalous=anomalous, captured=captured)

    def _resized(self, frame_bgr: Image, boxes: tuple[Box, ...]) -> Image:
        """(N, S, S, 3) uint8 RGB."""
        side = self.manifest.input_size
        pictures = np.empty((len(boxes), side, side, 3), np.uint8)
        for picture, (left, top, right, bottom) in zip(pictures, boxes, strict=True):
            picture[:] = model_input(frame_bgr[top:bottom, left:right], side)
        return pictures

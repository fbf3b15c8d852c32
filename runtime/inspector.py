"""The product in one file: a frame goes in, is resized, run through the flow and thresholded; a verdict comes out."""

import logging
import math
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.manifest import Precision
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.drift import DriftMonitor, drift_numbers
from uflow_edge.runtime.engines import Engine, EngineFailed
from uflow_edge.runtime.inspection import Clock, Inferred, Inspection, LatentStatistics, Prepared
from uflow_edge.runtime.nfa import regions_above
from uflow_edge.runtime.nfa.null_model import NullModel
from uflow_edge.runtime.numeric import Frame
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.resize.cpu import checked_frame
from uflow_edge.runtime.scoring import Scorer
from uflow_edge.runtime.verdict import Verdict
from uflow_edge.runtime.views import ViewOptions, mask_in_frame, model_inputs, region_in_frame, stitch

if TYPE_CHECKING:
    from uflow_edge.runtime.engines.device_frames import DeviceFrames
    from uflow_edge.runtime.engines.selection import Backend

logger = logging.getLogger(__name__)


class Inspector:
    """Inspects frames with one bundle.

    `inspect` does all the work; `prepare`, `infer` and `judge` are its three parts, for threads that work on three
    frames at a time. Each part may be in use by one thread at once.

    Attributes:
        operating_point: may be replaced at any time; the new one applies from the next frame on.
        difference: how the inspection differs from the calibration, which voids the promise; None if it does not.

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
        """Build an inspector from its parts; it closes neither ``engine`` nor ``device``.

        Args:
            device: resizes on the GPU and runs the same engine there; default, the CPU resizes.
            null_model: learned from good images; default, the manifest's rule scores, as if latents were N(0, 1).
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
        """Build it from a loaded bundle, null model included; raises `BadInput` if that cannot be read."""
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
        """Choose an engine as ``uflow-infer`` does, and warm it up.

        Args:
            backend, precision, threads: see `selection.open_engine`.
            threshold: on the score; default, the bundle's.

        Returns:
            An inspector that owns its engine: `close` it, or use it in a ``with`` statement.

        Raises:
            BadInput: the bundle is missing, damaged or cannot be run.
            UsageError: the bundle has no graph in this precision.
            MissingDependency: the backend is not installed or cannot run here.
            EngineFailed: the engine fails, or its results differ from those of FP32.
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
        """Close the engine that `load` opened; an engine given to the constructor stays open."""
        self._owned.close()

    def __enter__(self) -> "Inspector":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def operating_point(self) -> OperatingPoint:
        """The threshold between good and anomalous, and its promise."""
        return self._operating_point

    @operating_point.setter
    def operating_point(self, point: OperatingPoint) -> None:
        if not isinstance(point, OperatingPoint):
            raise TypeError(f'expected an OperatingPoint, such as OperatingPoint({point!r}, "manual"); got {point!r}')
        self._operating_point = point

    def warm_up(self) -> None:
        """Compile or load all kernels, so that the first frame takes no longer than others."""
        side = self.manifest.input_size
        whole = Inspector(self.manifest, self.engine, device=self._device, null_model=self._scorer.null_model)
        whole.inspect(np.zeros((side + 1, side + 1, 3), np.uint8))

    def inspect(self, frame_bgr: Frame, *, frame: int = 0, source: str = "", captured: float | None = None) -> Verdict:
        """Judge one frame.

        Args:
            frame_bgr: (H, W, 3) uint8, BGR, as ``cv2.imread`` gives it.
            frame, source: its number and origin, copied to the verdict.
            captured: time of capture, seconds since the epoch; default, now.

        Raises:
            BadInput: not such an array, or a region of interest reaches beyond it.
            EngineFailed: the engine fails or gives invalid energies; there is no verdict.
        """
        return self.examine(frame_bgr, frame=frame, source=source, captured=captured).verdict

    def examine(
        self, frame_bgr: Frame, *, frame: int = 0, source: str = "", captured: float | None = None
    ) -> Inspection:
        """Judge one frame like `inspect`, and keep the maps."""
        return self.judge(self.infer(self.prepare(frame_bgr)), frame=frame, source=source, captured=captured)

    def prepare(self, frame_bgr: Frame) -> Prepared:
        """The first part of `inspect`: cut out what is inspected, and resize it unless the GPU does."""
        clock = Clock()
        image = checked_frame(frame_bgr)
        size = (image.shape[0], image.shape[1])
        boxes = self.views.boxes(size, self.manifest.fit)
        pictures = None if self._device is not None else model_inputs(image, boxes, self.manifest.input_size)
        return Prepared(image, pictures, boxes, size, clock, clock.now())

    def infer(self, prepared: Prepared) -> Inferred:
        """The second part: run the engine."""
        started = prepared.clock.now()
        if prepared.pictures is not None:
            outputs = self.engine.run(prepared.pictures)
        else:
            assert self._device is not None
            outputs = self._device.run(prepared.frame_bgr, prepared.boxes)
        statistics = LatentStatistics.of(outputs, len(self.manifest.scales))
        return Inferred(prepared, statistics, started, prepared.clock.now())

    def judge(
        self, inferred: Inferred, *, frame: int = 0, source: str = "", captured: float | None = None, camera: str = ""
    ) -> Inspection:
        """The third part: the number of false alarms, and the decision.

        Tests are counted over all parts of the frame, so the promise holds for the frame.

        Args:
            frame, source, captured: see `inspect`.
            camera: identifies the drift monitor that the frame belongs to.

        Raises:
            EngineFailed: the energies are NaN, infinite, negative or of the wrong shape; there is no verdict.
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
        record, peak = self.manifest.calibration, float(score.max())
        point = self.operating_point.doubted(None if record is None else record.difference_of_frame(prepared.size))
        if not math.isfinite(peak):
            raise EngineFailed(f"the score is {peak}, from energies of {self.engine.name}: the frame is not judged")
        anomalous = not (peak <= point.threshold)  # a doubtful comparison never means good
        found = regions_above(score, point.threshold) if anomalous else ()
        captured = clock.started if captured is None else captured
        drift = None
        if self._drift is not None:
            numbers = drift_numbers(statistics.energies, self.manifest.channels, peak)
            drift = self._drift.update(camera, numbers, anomalous=anomalous, captured=captured)
        verdict = Verdict(
            frame=frame,
            source=source,
            size=prepared.size,
            anomalous=anomalous,
            score=peak,
            operating_point=point,
            regions=tuple(region_in_frame(region, score.shape, box) for region in found),
            mask=mask_in_frame(score, point, prepared.size, box) if anomalous else np.zeros(prepared.size, np.bool_),
            timestamps=inferred.timestamps(captured, nfa_started),
            drift=drift,
        )
        energies, exceedances = (
            tuple(stitch(scale, boxes, outside=0)[0] for scale in scales)
            for scales in (statistics.energies, statistics.exceedances)
        )
        return Inspection(verdict, energies, exceedances, score, box, partial(self._scorer.evidence, statistics, boxes))

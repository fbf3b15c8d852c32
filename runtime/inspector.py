"""The product in one file: a frame goes in, is resized, run through the flow and thresholded; a verdict comes out."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.bundle import Bundle, Manifest
from uflow_edge.runtime.engines import Engine
from uflow_edge.runtime.nfa import Region, regions_above, tree_score
from uflow_edge.runtime.numeric import FloatMap, Image, Size
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.preprocess import Box, inspected_box, model_input
from uflow_edge.runtime.verdict import Timestamps, Verdict


@dataclass(frozen=True, slots=True)
class Inspection:
    """A verdict together with the maps it was made from.

    Attributes:
        verdict: the decision.
        energies: per scale, finest first, (H_i, W_i) float32.
        exceedances: likewise.
        score: (S, S) float32, −log10 NFA in the model's input.
        box: the part of the frame that was inspected.
    """

    verdict: Verdict
    energies: tuple[FloatMap, ...]
    exceedances: tuple[FloatMap, ...]
    score: FloatMap
    box: Box


class Inspector:
    """Inspects frames with one bundle. Not for use by two threads at once.

    Example:
        inspector = Inspector.load("bottle.uflow")
        verdict = inspector.inspect(cv2.imread("bottle.png"))
        print(verdict.anomalous, verdict.score)
    """

    def __init__(self, manifest: Manifest, engine: Engine) -> None:
        self.manifest: Final = manifest
        self.engine: Final = engine

    @classmethod
    def load(cls, path: str | Path, *, threads: int | None = None) -> "Inspector":
        """Verify a bundle and make it ready: after this, the first frame costs what every frame costs.

        Args:
            path: the bundle's folder.
            threads: of the engine; default, one a core.

        Raises:
            BadInput: the bundle is missing, damaged or cannot be run.
            MissingDependency: no engine is installed.
        """
        from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine

        bundle = Bundle.load(path)
        variant = bundle.manifest.variants[0]
        engine = OnnxRuntimeEngine(bundle.path(variant), bundle.manifest, variant, threads)
        inspector = cls(bundle.manifest, engine)
        side = bundle.manifest.input_size
        inspector.inspect(np.zeros((side, side, 3), np.uint8))  # compiles or loads the kernels
        return inspector

    def inspect(self, frame_bgr: Image, *, frame: int = 0, source: str = "", captured: float | None = None) -> Verdict:
        """Judge one frame.

        Args:
            frame_bgr: (H, W, 3) uint8, BGR.
            frame: its number, copied to the verdict.
            source: where it comes from, copied to the verdict.
            captured: when it was captured, seconds since the epoch; default, now.

        Raises:
            BadInput: not such an array.
        """
        return self.examine(frame_bgr, frame=frame, source=source, captured=captured).verdict

    def examine(
        self, frame_bgr: Image, *, frame: int = 0, source: str = "", captured: float | None = None
    ) -> Inspection:
        """Judge one frame like `inspect`, and keep the maps."""
        clock = _Clock()
        picture = model_input(frame_bgr, self.manifest.input_size, self.manifest.fit)
        preprocessed = clock.now()
        statistics = self.engine.run(picture[np.newaxis])
        inferred = clock.now()

        side = self.manifest.input_size
        energies = _first(statistics.energies)
        score = tree_score(energies, self.manifest.channels, (side, side), rule=self.manifest.rule)
        size = (frame_bgr.shape[0], frame_bgr.shape[1])
        box = inspected_box(size, self.manifest.fit)
        point = self.manifest.operating_point
        verdict = Verdict(
            frame=frame,
            source=source,
            size=size,
            anomalous=bool(score.max() > point.threshold),
            score=float(score.max()),
            operating_point=point,
            regions=tuple(_to_frame(region, side, box) for region in regions_above(score, point.threshold)),
            mask=_mask_in_frame(score, point, size, box),
            timestamps=Timestamps(
                clock.started if captured is None else captured, clock.started, preprocessed, inferred, clock.now()
            ),
        )
        return Inspection(verdict, energies, _first(statistics.exceedances), score, box)


class _Clock:
    """Wall-clock time that cannot jump between two stages of one frame."""

    def __init__(self) -> None:
        self.started = time.time()
        self._counter = time.perf_counter()

    def now(self) -> float:
        """Seconds since the epoch."""
        return self.started + (time.perf_counter() - self._counter)


def _first(maps: tuple[FloatMap, ...]) -> tuple[FloatMap, ...]:
    return tuple(one[0] for one in maps)


def _to_frame(region: Region, side: int, box: Box) -> Region:
    """From the model's input to the frame, rounded outwards so that the box still covers the region."""
    left, top, right, bottom = box
    across, down = (right - left) / side, (bottom - top) / side
    x, y = int(region.x * across), int(region.y * down)
    return Region(
        x=left + x,
        y=top + y,
        width=int(np.ceil((region.x + region.width) * across)) - x,
        height=int(np.ceil((region.y + region.height) * down)) - y,
        area=max(round(region.area * across * down), 1),
        log_nfa=region.log_nfa,
    )


def _mask_in_frame(score: FloatMap, point: OperatingPoint, size: Size, box: Box) -> NDArray[np.bool_]:
    left, top, right, bottom = box
    mask = np.zeros(size, np.bool_)
    detected = np.asarray(score > point.threshold, np.uint8)
    if detected.any():
        resized = cv2.resize(detected, (right - left, bottom - top), interpolation=cv2.INTER_NEAREST_EXACT)
        mask[top:bottom, left:right] = resized.astype(np.bool_)
    return mask

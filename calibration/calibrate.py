"""Calibrates a bundle on good images of its line: null model, threshold with a promise, and range of normal drift.

The images are split at random. The null model is learned from one part. The other part, the held-out split, is
inspected with that null model exactly as the line will be, and the promise rests on its scores. So no image that
shaped the scores also bounds them. Held-out images that look anomalous are listed but never left out: without the worst
ones, the threshold would lie below the scores of new good images.

Memory: the energies of the first part are kept, 4 bytes per pixel of every scale (22 kB per image at 64² + 32² + 16²),
for at most 1,000 images; fitting needs a few times that. Of each held-out image only a few numbers are kept.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from uflow_edge.calibration.null_model.fit import ADVISED_IMAGES, MIN_IMAGES, NullFit, fit_null_model
from uflow_edge.calibration.operating_point import Promise, TooFewImages, operating_point
from uflow_edge.calibration.plausibility import correlation_of_neighbours, difference_from_training, suspicious_above
from uflow_edge.calibration.split import CalibrationOptions, Split
from uflow_edge.runtime.bundle.calibration_record import CalibrationRecord
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.training_record import TrainingRecord
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.drift import MIN_IMAGES as MIN_DRIFT_IMAGES
from uflow_edge.runtime.drift import DriftRange, drift_numbers
from uflow_edge.runtime.engines import Engine
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images.files import read_image
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.nfa.null_model import NullModel
from uflow_edge.runtime.numeric import FloatMap, Image, Size
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.sources.admission import Admission
from uflow_edge.runtime.sources.folders import ImageFile

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InspectedImage:
    """A good image and the result of its inspection.

    Attributes:
        score: −log10 NFA.
        numbers: see `runtime.drift.drift_numbers`.
    """

    image: ImageFile
    score: float
    numbers: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Calibration:
    """The result of a calibration; nothing is written yet.

    Attributes:
        null_fit: the null model and how well it fits; None without a null model.
        suspicious_fitted: images that look anomalous and were left out of the null model, the worst first.
        held_out: the held-out split, in the original order.
        suspicious_held_out: those of it that look anomalous, the worst first; they were *not* left out.
        drift: the normal range of good frames; None with too few images.
        admission: the given images, and those of them that were left out.
        sizes: number of images by (height, width).
        unlike: how the images differ from those that the flow was trained on, in one sentence; None if they do not.
        correlation: rank correlation of the scores of successive held-out images, if it is significant; else None.
    """

    options: CalibrationOptions
    engine: str
    null_fit: NullFit | None
    fitted: tuple[ImageFile, ...]
    suspicious_fitted: tuple[InspectedImage, ...]
    held_out: tuple[InspectedImage, ...]
    suspicious_held_out: tuple[InspectedImage, ...]
    operating_point: OperatingPoint
    drift: DriftRange | None
    admission: Admission
    sizes: dict[Size, int]
    unlike: str | None
    record: CalibrationRecord
    correlation: float | None

    @property
    def null_model(self) -> NullModel | None:
        return None if self.null_fit is None else self.null_fit.model

    @property
    def scores(self) -> tuple[float, ...]:
        return tuple(image.score for image in self.held_out)

    def above(self, threshold: float) -> int:
        """The number of held-out images with a higher score."""
        return sum(score > threshold for score in self.scores)


def calibrate(
    bundle: Bundle[UFlowManifest],
    images: Sequence[ImageFile] | Admission,
    engine: Engine,
    options: CalibrationOptions = CalibrationOptions(),
) -> Calibration:
    """Calibrate a bundle; `saving.save_calibration` writes the result.

    Args:
        bundle: as loaded; an earlier calibration in it is not used.
        images: good images of the line, each of another part, that the training has not seen. All are used, except
            those that an `Admission` has left out.
        engine: runs the bundle; stays open.

    Raises:
        TooFewImages: for the promise, or for the null model.
        BadInput: too many images look anomalous, or a region of interest reaches beyond an image.
    """
    admission = images if isinstance(images, Admission) else Admission(tuple(images), len(images))
    split = Split.of(admission.images, options)
    reader = _Reader()
    plain = Inspector(bundle.manifest, engine, options.views)
    learned = _learn(plain, split.fitted, reader) if options.null_model else _Learned()
    null_model = None if learned.fit is None else learned.fit.model
    calibrated = Inspector(bundle.manifest, engine, options.views, null_model=null_model)
    held_out = tuple(_inspect(calibrated, reader.read(split.held_out, "inspecting held-out images")))
    scores = [image.score for image in held_out]
    _require(options.promise, len(scores), len(reader.unreadable))
    fence = suspicious_above(scores)
    far_out = tuple(sorted((one for one in held_out if one.score > fence), key=lambda one: -one.score))
    unlike = difference_from_training(
        TrainingRecord.load(bundle).gains, [image.numbers[:-1] for image in held_out], bundle.manifest
    )
    point = _with_reservations(operating_point(scores, options.promise), far_out, unlike)
    images_used = len(learned.images) + len(learned.suspicious) + len(held_out)
    return Calibration(
        options=options,
        engine=engine.name,
        null_fit=learned.fit,
        fitted=learned.images,
        suspicious_fitted=tuple(_inspect(calibrated, _Reader().read(learned.suspicious, "looking again"))),
        held_out=held_out,
        suspicious_held_out=far_out,
        operating_point=point,
        drift=_drift_range(held_out, point),
        admission=replace(admission, unreadable=(*admission.unreadable, *reader.unreadable)),
        sizes=dict(reader.sizes.most_common()),
        unlike=unlike,
        record=CalibrationRecord.of(
            options.views, engine.precision, engine.name, images_used, reader.sizes, options.null_model
        ),
        correlation=correlation_of_neighbours(scores),
    )


@dataclass(slots=True)
class _Reader:
    """Reads images; collects those that cannot be read, and the sizes of the others."""

    unreadable: list[str] = field(default_factory=list)
    sizes: Counter[Size] = field(default_factory=Counter)

    def read(self, files: Sequence[ImageFile], doing: str) -> Iterator[tuple[ImageFile, Image]]:
        for file in progress(files, doing):
            try:
                image = read_image(file.path)
            except BadInput as error:
                self.unreadable.append(str(error))
                logger.warning("unreadable: %(error)s", {"error": error})
                continue
            self.sizes[image.shape[0], image.shape[1]] += 1
            yield file, image


@dataclass(frozen=True, slots=True)
class _Learned:
    """The null model, the images it was learned from, and those that look anomalous."""

    fit: NullFit | None = None
    images: tuple[ImageFile, ...] = ()
    suspicious: tuple[ImageFile, ...] = ()


def _learn(inspector: Inspector, files: Sequence[ImageFile], reader: _Reader) -> _Learned:
    readable: list[ImageFile] = []
    of_part: list[int] = []  # an image may have several parts
    maps: list[list[FloatMap]] = [[] for _ in inspector.manifest.scales]
    for file, image in reader.read(files, "learning the null model"):
        energies = inspector.infer(inspector.prepare(image)).statistics.energies
        of_part += [len(readable)] * len(energies[0])
        readable.append(file)
        for kept, energy in zip(maps, energies, strict=True):
            kept.append(energy)
    if len(readable) < MIN_IMAGES:
        raise TooFewImages(
            f"only {len(readable)} readable images are left for the null model: {MIN_IMAGES} are needed, better "
            f"{ADVISED_IMAGES}; {len(reader.unreadable)} could not be read"
        )
    logger.info(f"fitting the null model to {len(readable)} images …")
    manifest = inspector.manifest
    found = fit_null_model([np.concatenate(kept) for kept in maps], manifest.channels, manifest.window)
    suspicious = dict.fromkeys(of_part[part] for part in found.suspicious)
    fitted = tuple(file for i, file in enumerate(readable) if i not in suspicious)
    return _Learned(found, fitted, tuple(readable[i] for i in suspicious))


def _inspect(inspector: Inspector, images: Iterator[tuple[ImageFile, Image]]) -> Iterator[InspectedImage]:
    channels = inspector.manifest.channels
    for file, image in images:
        inferred = inspector.infer(inspector.prepare(image))
        score = inspector.judge(inferred).verdict.score
        yield InspectedImage(file, score, drift_numbers(inferred.statistics.energies, channels, score))


def _with_reservations(point: OperatingPoint, far_out: Sequence[InspectedImage], unlike: str | None) -> OperatingPoint:
    """Add to the promise what else it depends on."""
    if far_out and point.threshold >= far_out[-1].score:  # one of them is the threshold
        point = replace(point, suspicious=len(far_out))
    return point.doubted(None if unlike is None else "calibrated on images unlike those of the training")


def _drift_range(held_out: Sequence[InspectedImage], point: OperatingPoint) -> DriftRange | None:
    """The range of images that the line would call good, since drift is watched on those."""
    numbers = [image.numbers for image in held_out if image.score <= point.threshold]
    return DriftRange.of(np.array(numbers)) if len(numbers) >= MIN_DRIFT_IMAGES else None


def _require(promise: Promise, images: int, unreadable: int) -> None:
    try:
        promise.require(images)
    except TooFewImages as error:
        raise TooFewImages(f"{error}; {unreadable} images could not be read") from error

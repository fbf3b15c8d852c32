"""Good images of the line in; out come a null model, a threshold with a promise, and what to call drift.

The images are parted at random. From one part the null model is learned. The other is held out: it is inspected with
that null model, exactly as the line will be, and its scores carry the promise. So no image that helped to shape the
scores helps to bound them. Held-out images that look anomalous are listed, never left out: leaving out the worst would
make the threshold lower than new good images are.

Memory: the energies of the first part are kept, 4 bytes a pixel of every scale (22 kB an image at 64² + 32² + 16²), of
1,000 images at most, and fitting takes a few times that; of each held-out image only a few numbers are kept.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from uflow_edge.calibration.null_model.fit import ADVISED_IMAGES, MIN_IMAGES, NullFit, fit_null_model
from uflow_edge.calibration.operating_point import Promise, TooFewImages, operating_point
from uflow_edge.calibration.plausibility import difference_from_training, fence_of, neighbours_alike
from uflow_edge.calibration.split import CalibrationOptions, Parting
from uflow_edge.runtime.bundle.calibration_record import CalibrationRecord
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.training_record import TrainingRecord
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.drift import MIN_IMAGES as MIN_DRIFT_IMAGES
from uflow_edge.runtime.drift import DriftRange, drift_numbers
from uflow_edge.runtime.engines import Engine
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images.admission import Admission
from uflow_edge.runtime.images.files import read_image
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.nfa.null_model import NullModel
from uflow_edge.runtime.numeric import FloatMap, Image, Size
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.sources.folders import ImageFile

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Judged:
    """A good image as it was inspected.

    Attributes:
        image: the file.
        score: −log10 NFA.
        numbers: see `runtime.drift.drift_numbers`.
    """

    image: ImageFile
    score: float
    numbers: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Calibration:
    """What calibration found; nothing is written yet.

    Attributes:
        options: that were asked for.
        engine: what ran the images.
        null_fit: None where none was asked for.
        fitted: images that it was learned from.
        suspicious_fitted: those among them that look anomalous, the worst first; they were left out.
        held_out: in the order they came in.
        suspicious_held_out: those among them that look anomalous, the worst first; they were *not* left out.
        operating_point: the threshold and its promise.
        drift: what good frames look like; None where too few images say so.
        admission: which images were given, and which of them were left out.
        sizes: how many images there are of each (height, width).
        unlike: how the images differ from those that the flow was trained on, in one sentence; None where they do not.
        record: of the conditions, for the bundle.
        correlation: of the scores of successive held-out images, where it is more than chance; else None.
    """

    options: CalibrationOptions
    engine: str
    null_fit: NullFit | None
    fitted: tuple[ImageFile, ...]
    suspicious_fitted: tuple[Judged, ...]
    held_out: tuple[Judged, ...]
    suspicious_held_out: tuple[Judged, ...]
    operating_point: OperatingPoint
    drift: DriftRange | None
    admission: Admission
    sizes: dict[Size, int]
    unlike: str | None
    record: CalibrationRecord
    correlation: float | None

    @property
    def null_model(self) -> NullModel | None:
        """The null model that was learned, if one was."""
        return None if self.null_fit is None else self.null_fit.model

    @property
    def scores(self) -> tuple[float, ...]:
        """Of the held-out images."""
        return tuple(judged.score for judged in self.held_out)

    def above(self, threshold: float) -> int:
        """How many held-out images have a higher score."""
        return sum(score > threshold for score in self.scores)


def calibrate(
    bundle: Bundle[UFlowManifest],
    images: Sequence[ImageFile] | Admission,
    engine: Engine,
    options: CalibrationOptions = CalibrationOptions(),
) -> Calibration:
    """Learn from good images; see `saving.save_calibration` for what is written.

    Args:
        bundle: as loaded; what an earlier calibration left in it is not used.
        images: good ones of the line, each of another part, that the training has not seen; all of them are used,
            where an `Admission` has not left some out.
        engine: runs the bundle; stays open.
        options: see `CalibrationOptions`.

    Raises:
        TooFewImages: for the promise asked, or for the null model.
        BadInput: too many images look anomalous, or a region of interest reaches beyond one.
    """
    admission = images if isinstance(images, Admission) else Admission(tuple(images), len(images))
    parting = Parting.of(admission.images, options)
    reader = _Reader()
    plain = Inspector(bundle.manifest, engine, options.views)
    learned = _learn(plain, parting.fitted, reader) if options.null_model else _Learned()
    null_model = None if learned.fit is None else learned.fit.model
    judging = Inspector(bundle.manifest, engine, options.views, null_model=null_model)
    held_out = tuple(_judged(judging, reader.read(parting.held_out, "inspecting held-out images")))
    scores = [judged.score for judged in held_out]
    _require(options.promise, len(scores), len(reader.unreadable))
    fence = fence_of(scores)
    far_out = tuple(sorted((one for one in held_out if one.score > fence), key=lambda one: -one.score))
    unlike = difference_from_training(
        TrainingRecord.load(bundle).gains, [judged.numbers[:-1] for judged in held_out], bundle.manifest
    )
    point = _with_reservations(operating_point(scores, options.promise), far_out, unlike)
    images_used = len(learned.images) + len(learned.suspicious) + len(held_out)
    return Calibration(
        options=options,
        engine=engine.name,
        null_fit=learned.fit,
        fitted=learned.images,
        suspicious_fitted=tuple(_judged(judging, _Reader().read(learned.suspicious, "looking again"))),
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
        correlation=neighbours_alike(scores),
    )


@dataclass(slots=True)
class _Reader:
    """Reads images, and remembers those that cannot be read and how large the others are."""

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
            f"{len(readable)} readable images are left to learn the null model from: {MIN_IMAGES} are needed, better "
            f"{ADVISED_IMAGES}; {len(reader.unreadable)} could not be read"
        )
    logger.info(f"fitting the null model to {len(readable)} images …")
    found = fit_null_model([np.concatenate(kept) for kept in maps], inspector.manifest.channels)
    suspicious = dict.fromkeys(of_part[part] for part in found.suspicious)
    fitted = tuple(file for i, file in enumerate(readable) if i not in suspicious)
    return _Learned(found, fitted, tuple(readable[i] for i in suspicious))


def _judged(inspector: Inspector, images: Iterator[tuple[ImageFile, Image]]) -> Iterator[Judged]:
    channels = inspector.manifest.channels
    for file, image in images:
        inferred = inspector.infer(inspector.prepare(image))
        score = inspector.judge(inferred).verdict.score
        yield Judged(file, score, drift_numbers(inferred.statistics.energies, channels, score))


def _with_reservations(point: OperatingPoint, far_out: Sequence[Judged], unlike: str | None) -> OperatingPoint:
    """What else the promise depends on."""
    if far_out and point.threshold >= far_out[-1].score:  # one of them is the threshold
        point = replace(point, suspicious=len(far_out))
    return point.doubted(None if unlike is None else "calibrated on images unlike those of the training")


def _drift_range(held_out: Sequence[Judged], point: OperatingPoint) -> DriftRange | None:
    """Of the images that the line would judge good, for those are what it will watch."""
    numbers = [judged.numbers for judged in held_out if judged.score <= point.threshold]
    return DriftRange.of(np.array(numbers)) if len(numbers) >= MIN_DRIFT_IMAGES else None


def _require(promise: Promise, images: int, unreadable: int) -> None:
    try:
        promise.require(images)
    except TooFewImages as error:
        raise TooFewImages(f"{error}; {unreadable} images could not be read") from error

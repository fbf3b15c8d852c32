"""How often the detectors still find planted traces after each method, and what the method did to the picture."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from uflow_edge.benchmarks.studies.forensics.jpeg_grid import detect_grids
from uflow_edge.benchmarks.studies.forensics.naturalness import NaturalnessModel
from uflow_edge.benchmarks.studies.forensics.noise_level import detect_noise_difference
from uflow_edge.benchmarks.studies.forensics.photographs import Photograph
from uflow_edge.benchmarks.studies.forensics.resampling import detect_resampling
from uflow_edge.benchmarks.studies.forensics.traces import (
    Planted,
    Trace,
    jpeg_history,
    jpeg_splice,
    noise_splice,
    resampled_splice,
)
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.purify.quality import psnr, structural_similarity
from uflow_edge.training.evaluation.ranking import Ranking

FALSE_ALARMS = 0.05

Method = Callable[[Image], Image]
Score = Callable[[Image], float]


@dataclass(frozen=True, slots=True)
class TraceCase:
    """A trace and the detector that looks for it.

    Attributes:
        name: for people.
        plant: puts the trace into an image.
        score: −log10 NFA.
    """

    name: str
    plant: Trace
    score: Score


CASES = (
    TraceCase("JPEG history", jpeg_history, lambda image: detect_grids(image).main_score),
    TraceCase("JPEG splice", jpeg_splice, lambda image: detect_grids(image).foreign_score),
    TraceCase("noise splice", noise_splice, lambda image: detect_noise_difference(image).score),
    TraceCase("enlarged splice", resampled_splice, lambda image: detect_resampling(image).score),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Of one trace after one method.

    Attributes:
        case: name of the trace.
        threshold: score from which on the trace counts as found.
        found: share of the images.
        mean_score: over the images.
        auroc: of telling these images from untouched photographs without a trace; 0.5 is as good as a coin.
    """

    case: str
    threshold: float
    found: float
    mean_score: float
    auroc: float


@dataclass(frozen=True, slots=True)
class MethodQuality:
    """Of one method.

    Attributes:
        method: its name.
        findings: one a case.
        psnr: dB, of the result against the image with the trace; infinite for the image itself. Mean over images.
        ssim: likewise.
        naturalness: NIQE-like distance, small is natural; median over images.
    """

    method: str
    findings: tuple[Finding, ...]
    psnr: float
    ssim: float
    naturalness: float


def planted_images(images: Sequence[Photograph], seed: int) -> dict[str, list[Planted]]:
    """Every trace in every image."""
    return {
        case.name: [case.plant(image.image, np.random.default_rng((seed, i, j))) for j, image in enumerate(images)]
        for i, case in enumerate(CASES)
    }


def clean_scores(images: Iterable[Photograph]) -> dict[str, list[float]]:
    """What each case's detector says about photographs without a trace."""
    kept = list(images)
    return {case.name: [case.score(image.image) for image in kept] for case in CASES}


def outcome(
    name: str,
    planted: Mapping[str, Sequence[Planted]],
    results: Mapping[str, Sequence[Image]],
    clean: Mapping[str, Sequence[float]],
    natural: NaturalnessModel,
) -> MethodQuality:
    """Judge one method.

    Args:
        name: of the method.
        planted: images with traces, by case.
        results: what the method made of them, in the same order.
        clean: scores of untouched photographs, by case.
        natural: what they look like.
    """
    findings = []
    for case in CASES:
        scores = np.array([case.score(image) for image in results[case.name]])
        threshold = threshold_of(clean[case.name])
        found = float((scores > threshold).mean())
        area = area_under_roc(clean[case.name], scores.tolist())
        findings.append(Finding(case.name, threshold, found, float(scores.mean()), area))
    pairs = [
        (before.image, after)
        for case in CASES
        for before, after in zip(planted[case.name], results[case.name], strict=True)
    ]
    return MethodQuality(
        name,
        tuple(findings),
        float(np.mean([psnr(*pair) for pair in pairs])),
        float(np.mean([structural_similarity(*pair) for pair in pairs])),
        float(np.median([natural.distance(after) for _, after in pairs])),
    )


def threshold_of(clean: Sequence[float]) -> float:
    """An NFA of 1, or higher where more than one photograph in twenty scores more without a trace."""
    return max(0.0, float(np.quantile(clean, 1 - FALSE_ALARMS)))


def area_under_roc(negatives: Sequence[float], positives: Sequence[float]) -> float:
    """Chance that a positive scores higher than a negative; ties count half."""
    defective = np.repeat([False, True], [len(negatives), len(positives)])
    return Ranking.of([*negatives, *positives], defective).auroc

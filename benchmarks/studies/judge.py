"""How well pseudo-defects predict what a detector finds: rank correlation with the true AUROC, beside the likelihood's.

``python -m uflow_edge.benchmarks.studies.judge FOLDER`` takes a data set in the layout of MVTec AD. Its candidates are
normal laws without a flow: strides, how scales are combined, pooling, standardisation.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from uflow_edge.export.network.architecture import Architecture
from uflow_edge.export.network.joint import JointExtractor
from uflow_edge.export.network.uflow import EnergyGraph, build_extractor
from uflow_edge.runtime.images.layouts import good_images
from uflow_edge.training.dataset import hold_out, test_images
from uflow_edge.training.features import CachedFeatures
from uflow_edge.training.judge.choice import Exam
from uflow_edge.training.judge.trials import HeldOut, standard_scores
from uflow_edge.training.options import HOLD_OUT, TRIED_POOLINGS
from uflow_edge.training.pretrained import load_pretrained
from uflow_edge.training.standardize import normal_laws, standardize_taps
from uflow_edge.training.train import seeded_network

EXTRACTOR = "efficientnet_lite0"
TAPS = ((2,), (3,), (2, 3))


def rows(folder: Path, taps: tuple[int, ...]) -> Iterator[tuple[str, float, float, float]]:
    """Name, what is found of pseudo-defects, held-out likelihood and true AUROC of every candidate with these taps."""
    base = replace(Architecture.default(EXTRACTOR), taps=taps)
    network = seeded_network(base, seed=0)
    load_pretrained(network.feature_extractor, EXTRACTOR, ())
    graph = EnergyGraph(network).eval()
    fit_paths, held_paths = hold_out(good_images(folder), HOLD_OUT, seed=0)
    exam = Exam.of(held_paths, base.input_size, seed=0)
    tests = sorted(test_images(folder), key=lambda image: not image.is_good)
    good = sum(image.is_good for image in tests)
    fit, held = CachedFeatures(graph, fit_paths), CachedFeatures(graph, exam.good)
    drawn = HeldOut(CachedFeatures(graph, exam.images), exam.counts)
    true = HeldOut(
        CachedFeatures(graph, [image.path for image in tests]), {"good": good, "defective": len(tests) - good}
    )
    for joint in (False, True)[: len(taps)]:
        for pooling in TRIED_POOLINGS:
            architecture = replace(base, joint=joint, pooling=pooling)
            extractor = build_extractor(architecture)
            if isinstance(extractor, JointExtractor):
                standardize_taps(extractor, fit)
            for name, laws in normal_laws(extractor, architecture, fit, "auto"):
                features = extractor.prepare(held.batch(np.arange(len(held))))
                cost = sum(law.negative_log_likelihood(f) for law, f in zip(laws, features, strict=True))
                found, truth = (
                    one.judge(standard_scores(extractor, laws, one.features), window=1).found for one in (drawn, true)
                )
                label = f"taps {taps}, {'joint' if joint else 'separate'}, pooling {pooling}, {name}"
                yield label, found, -cost / sum(f.numel() for f in features), truth


def rank_correlation(one: ArrayLike, other: ArrayLike) -> float:
    """Spearman's; no two values are equal."""
    return float(np.corrcoef([np.argsort(np.argsort(values)) for values in (one, other)])[0, 1])


def main(folder: Path) -> None:
    """Print every candidate, then both correlations."""
    table = [row for taps in TAPS for row in rows(folder, taps)]
    print("| candidate | found | likelihood | true AUROC |\n| --- | --- | --- | --- |")
    for label, found, likelihood, truth in sorted(table, key=lambda row: -row[1]):
        print(f"| {label} | {found:.4f} | {likelihood:.3f} | {truth:.4f} |")
    _, found_column, likelihoods, truths = zip(*table, strict=True)
    for name, column in (("found", found_column), ("likelihood", likelihoods)):
        correlation, best = rank_correlation(column, truths), truths[int(np.argmax(column))]
        print(f"{name}: rank correlation {correlation:.2f}, its choice has a true AUROC of {best:.4f}")
    print(f"best of all: {max(truths):.4f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Does U-Flow find more than a plain normal law on the same features? Five random splits of the good images.

``python -m uflow_edge.benchmarks.studies.detection tiles/ --calibrate 80 --test 99``. Every contender gets the features
of the same images of the same backbone. In each split, some good images train, some calibrate and some test, together
with all defective ones. The flow takes no step (see docs/training.md), so it is the normal law that it starts at.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uflow_edge.benchmarks.baselines import (
    gaussian_scores,
    nearest_neighbour_scores,
    stacked,
    standardized_by_channel,
)
from uflow_edge.benchmarks.evaluation import Detector, Labelled
from uflow_edge.benchmarks.studies.markdown import markdown_table
from uflow_edge.calibration.null_model.fit import fit_null_model
from uflow_edge.export.network.architecture import Architecture
from uflow_edge.export.network.uflow import EnergyGraph, UFlow
from uflow_edge.runtime.cli.command_line import run_command
from uflow_edge.runtime.cli.parser import command_parser
from uflow_edge.runtime.cli.values import positive_int
from uflow_edge.runtime.errors import ExitCode, require
from uflow_edge.runtime.images.files import find_images
from uflow_edge.runtime.images.layouts import is_good
from uflow_edge.training.features import CachedFeatures, Features
from uflow_edge.training.fit import standardized, start_at_identity
from uflow_edge.training.options import WINDOW
from uflow_edge.training.pretrained import load_pretrained
from uflow_edge.training.standardize import standardize
from uflow_edge.training.train import seeded_network

EXTRACTOR = "efficientnet_lite0"
JOINT, SEPARATE = "U-Flow, scales joint", "U-Flow, scales separate"
NORMAL_LAW = "normal law at each pixel (PaDiM-like)"
FALSE_ALARM_RATE = 0.05
_BATCH = 16


class Part:
    """Some of the images whose features are cached."""

    def __init__(self, features: Features, chosen: NDArray[np.intp]) -> None:
        self._features, self._chosen = features, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def batch(self, indices: NDArray[np.intp], epoch: int = 0) -> tuple[Tensor, ...]:
        return self._features.batch(self._chosen[indices], epoch)


def flow(features: Features, train: NDArray[np.intp], *, joint: bool) -> UFlow:
    """A whitened U-Flow without a step of training."""
    default = Architecture.default(EXTRACTOR)
    network = seeded_network(replace(default, joint=joint, window=WINDOW if joint else 1), 0)
    start_at_identity(network)
    fit = Part(features, train)
    standardize(network, fit, fit, "whiten")
    return network.eval().requires_grad_(False)


def nfa_scores(network: UFlow, features: Features, calibrate: NDArray[np.intp], test: NDArray[np.intp]) -> list[float]:
    """Image scores of a null model that is fitted to the energies of the images to calibrate with."""
    calibrating, testing = (energies(network, Part(features, chosen)) for chosen in (calibrate, test))
    architecture = network.architecture
    model = fit_null_model(calibrating, [s.channels for s in architecture.latents], architecture.window).model
    side = architecture.latents[0].side
    return [float(model.score(one, (side, side)).max()) for one in zip(*testing, strict=True)]


def energies(network: UFlow, features: Features) -> list[NDArray[np.float32]]:
    """Per scale, (N, H, W)."""
    maps = []
    for indices in np.array_split(np.arange(len(features)), -(-len(features) // _BATCH)):
        latents, _ = network.latents(standardized(network, features.batch(indices, 0)), jac=False)
        maps.append([z.square().sum(dim=1).numpy() for z in latents])
    return [np.concatenate(scale) for scale in zip(*maps, strict=True)]


def detectors(
    features: Features, train: NDArray[np.intp], calibrate: NDArray[np.intp], test: NDArray[np.intp], seed: int
) -> list[Detector]:
    """All contenders of one split."""
    scored = []
    for name, joint in ((JOINT, True), (SEPARATE, False)):
        network = flow(features, train, joint=joint)
        scored.append(Detector(name, nfa_scores(network, features, calibrate, test)))
    pooling = Architecture.default(EXTRACTOR).pooling
    fitted, tested = standardized_by_channel(*(stacked(Part(features, part), pooling) for part in (train, test)))
    scored.append(Detector(NORMAL_LAW, gaussian_scores(fitted, tested)))
    return [*scored, Detector("nearest neighbour (PatchCore-like)", nearest_neighbour_scores(fitted, tested, seed))]


def report(splits: Sequence[Sequence[Detector]], test: Labelled) -> str:
    """Means over splits, and the difference to the normal law with its 95 % interval (Student's, paired)."""
    aurocs = {one.name: np.array([split[i].auroc(test) for split in splits]) for i, one in enumerate(splits[0])}
    rows = []
    for i, (name, values) in enumerate(aurocs.items()):
        found = np.mean([split[i].found_at(test, FALSE_ALARM_RATE) for split in splits])
        difference = values - aurocs[NORMAL_LAW]
        half = require("scipy.stats", "dev").t.ppf(0.975, len(splits) - 1) * difference.std(ddof=1) / len(splits) ** 0.5
        gain = "" if name == NORMAL_LAW else f"{difference.mean():+.4f} ± {half:.4f}"
        rows.append([name, f"{values.mean():.4f}", " ".join(f"{v:.4f}" for v in values), gain, f"{found:.1%}"])
    return markdown_table(["", "image AUROC", "of each split", "beside the normal law", "found at 5 %"], rows)


@torch.no_grad()
def run(arguments: argparse.Namespace) -> ExitCode:
    """Compare all contenders in all splits."""
    paths = list(find_images([arguments.data / part for part in ("train", arguments.calibration, "test")]))
    good = np.array([is_good(path.parent.name) for path in paths])
    network = seeded_network(Architecture.default(EXTRACTOR), 0)
    load_pretrained(network.feature_extractor, EXTRACTOR)
    defective = np.flatnonzero(~good)
    results = []
    test = Labelled([], np.repeat([False, True], [arguments.test, len(defective)]))
    with CachedFeatures(EnergyGraph(network).eval(), paths) as features:
        for split in range(arguments.splits):
            order = np.random.default_rng(split).permutation(np.flatnonzero(good))
            tested, calibrated, trained = np.split(order, [arguments.test, arguments.test + arguments.calibrate])
            results.append(detectors(features, trained, calibrated, np.concatenate([tested, defective]), split))
            for detector in results[-1]:
                print(f"split {split}: {detector.name:40} {detector.summary(test)}", flush=True)
    print(report(results, test))
    return ExitCode.OK


def parser() -> argparse.ArgumentParser:
    """The command line of the study."""
    parser = command_parser(
        "python -m uflow_edge.benchmarks.studies.detection",
        "Compare U-Flow with two baselines on the same features, over random splits of the good images.",
        ["python -m uflow_edge.benchmarks.studies.detection demo/data --calibration threshold --test 118"],
    )
    add = parser.add_argument
    add("data", type=Path, help="folder with train/, test/ and the images to calibrate with, in folders by kind")
    add("--calibration", default="calibrate", metavar="NAME", help="folder of the latter (default: %(default)s)")
    add("--calibrate", type=positive_int, default=80, metavar="N", help="good images to calibrate with per split")
    add("--test", type=positive_int, default=99, metavar="N", help="good images to test with per split")
    add("--splits", type=positive_int, default=5, metavar="N", help="(default: %(default)s)")
    return parser


if __name__ == "__main__":
    run_command(lambda: parser().parse_args(), run)

"""What limits detection on solar cells: ``python -m uflow_edge.benchmarks.solar_features --out cells``.

U-Flow's ranking of these cells comes from its whitened features (docs/training.md), so those alone tell, without
training, what another input size or other levels of the extractor would bring: the energy of the whitened features,
under the null model, over the splits of `null_model_solar`. Beside them stands a classifier that is told the labels,
good and defective, and judges cells it has not seen: what it misses is not missing from the features' normal law, but
from the features or in the labels.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from uflow_edge.benchmarks.evaluation import Detector, Labelled
from uflow_edge.benchmarks.null_model_solar import FALSE_ALARM_RATE, SEEDS, image_scores, over_splits
from uflow_edge.benchmarks.solar_cells import Folders, lay_out_images
from uflow_edge.calibration.null_model import fit_null_model
from uflow_edge.export.architecture import EXTRACTORS, Architecture
from uflow_edge.export.network import EnergyGraph, UFlow
from uflow_edge.runtime.command_line import command_parser, progress, run_command, table
from uflow_edge.runtime.errors import ExitCode
from uflow_edge.runtime.images import find_images
from uflow_edge.runtime.nfa.block import DEFAULT_PROBABILITY
from uflow_edge.runtime.numeric import FloatMap
from uflow_edge.training.dataset import test_images, training_images
from uflow_edge.training.features import CachedFeatures, Features
from uflow_edge.training.pretrained import load_pretrained
from uflow_edge.training.standardize import standardize
from uflow_edge.training.train import seeded_network

EXTRACTOR = "efficientnet_lite0"
_BATCH = 16
_FOLDS = 10
_STRENGTHS = (0.001, 0.01, 0.1, 1.0)
"""Of the classifier, as inverse penalties; the best is reported, in its favour."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which features to take: side of the input, levels of the extractor (stride 2^(level+1)), side of the pooling."""

    input_size: int
    taps: tuple[int, ...]
    pooling: int

    @property
    def architecture(self) -> Architecture:
        """Of a network that takes these features."""
        return Architecture(EXTRACTOR, self.input_size, 1, self.taps, self.pooling)

    def __str__(self) -> str:
        strides = ", ".join(str(2 ** (tap + 1)) for tap in self.taps)
        return f"input {self.input_size}, strides {strides}, pooling {self.pooling}"


CHOICES = (
    Choice(256, (2, 3), 3),
    *(Choice(size, (2, 3), 3) for size in (192, 224, 320, 384)),
    *(Choice(256, taps, 3) for taps in ((1, 2, 3), (2, 3, 4), (2,), (3,), (4,))),
    *(Choice(256, (2, 3), pooling) for pooling in (1, 5)),
)
"""The first is what uflow-train takes by default; each other changes one thing."""


@dataclass(frozen=True, slots=True)
class Split:
    """Which cells, by their place in the list of all, to learn from, to calibrate with, and to test with."""

    train: NDArray[np.intp]
    calibration: NDArray[np.intp]
    good: NDArray[np.intp]
    defective: NDArray[np.intp]

    @property
    def test(self) -> NDArray[np.intp]:
        """The cells to test with, good ones first."""
        return np.concatenate([self.good, self.defective])

    @property
    def labelled(self) -> Labelled:
        """What is known of them."""
        return Labelled([], np.repeat([False, True], [len(self.good), len(self.defective)]))


@dataclass(frozen=True, slots=True)
class Subset:
    """Some of the cached features: `Features` of a part of the images."""

    features: Features
    chosen: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.chosen)

    def batch(self, indices: NDArray[np.intp], epoch: int) -> tuple[Tensor, ...]:
        """Features of some of the chosen images."""
        return self.features.batch(self.chosen[indices], epoch)


def split_cells(out: Path, seeds: Sequence[int]) -> tuple[list[Path], list[Split]]:
    """All cells, and the same splits of them as in `null_model_solar`."""
    folders = [Folders(out / str(seed)) for seed in seeds]
    for one, seed in zip(folders, seeds, strict=True):
        if not one.data.exists():
            lay_out_images(one.data, seed)
    cells = sorted(find_images([folders[0].data]), key=lambda path: path.name)
    place = {path.name: i for i, path in enumerate(cells)}

    def places(paths: Iterable[Path]) -> NDArray[np.intp]:
        return np.array([place[path.name] for path in paths])

    splits = []
    for one in folders:
        test = test_images(one.data)
        splits.append(
            Split(
                places(training_images(one.data)),
                places(find_images([one.threshold])),
                places(image.path for image in test if image.is_good),
                places(image.path for image in test if not image.is_good),
            )
        )
    return cells, splits


def extractor_network(choice: Choice) -> UFlow:
    """A network with these features and ImageNet weights; its flow is not used."""
    network = seeded_network(choice.architecture, seed=0)
    load_pretrained(network.feature_extractor, EXTRACTOR)
    return network


def cached(network: UFlow, cells: Sequence[Path]) -> CachedFeatures:
    """Features of all cells."""
    return CachedFeatures(EnergyGraph(network, DEFAULT_PROBABILITY).eval(), cells)


def whitened_detectors(choice: Choice, cells: Sequence[Path], splits: Sequence[Split]) -> list[Detector]:
    """For each split, image scores of the whitened features' energies under its calibration cells' null model."""
    network = extractor_network(choice)
    channels = tuple(scale.channels for scale in choice.architecture.features)
    size = (choice.input_size, choice.input_size)
    detectors = []
    with cached(network, cells) as features:
        for split in progress(splits, str(choice), unit="split"):
            train = Subset(features, split.train)
            standardize(network, train, train, "whiten")
            model = fit_null_model(whitened_energies(network, Subset(features, split.calibration)), channels).model
            tested = whitened_energies(network, Subset(features, split.test))
            detectors.append(Detector(str(choice), image_scores(partial(model.score, size=size), tested), 0.0))
    return detectors


def whitened_energies(network: UFlow, features: Subset) -> list[FloatMap]:
    """Sums of squares over the channels, (N, H_i, W_i) a scale."""
    stacks = []
    with torch.inference_mode():
        for start in range(0, len(features), _BATCH):
            batch = features.batch(np.arange(start, min(start + _BATCH, len(features))), epoch=0)
            whitened = network.feature_extractor.standardize(batch)
            stacks.append([one.square().sum(dim=1).numpy() for one in whitened])
    return [np.concatenate(scale) for scale in zip(*stacks, strict=True)]


def informed_detectors(cells: Sequence[Path], defective: NDArray[np.bool_], seed: int) -> list[Detector]:
    """A linear classifier of each strength, told the labels of nine tenths of the cells, judges the other tenth.

    It sees mean, largest value and standard deviation of every channel at strides 8, 16 and 32.
    """
    with cached(extractor_network(Choice(256, (2, 3, 4), 1)), cells) as features:
        maps = [stack.flatten(2) for stack in features.batch(np.arange(len(cells)))]
    described = torch.cat([part for m in maps for part in (m.mean(2), m.amax(2), m.std(2))], dim=1).numpy()
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    detectors = []
    for strength in progress(_STRENGTHS, "classifiers told the labels"):
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000))
        judged = cross_val_predict(classifier, described, defective, cv=folds, method="decision_function")
        detectors.append(Detector("told the labels", judged.tolist()))
    return detectors


def main(out: Path, seeds: Sequence[int]) -> ExitCode:
    """A row for every choice of features, and one for the classifier that knows the labels."""
    cells, splits = split_cells(out, seeds)
    rows = []
    for choice in CHOICES:
        results = list(zip(whitened_detectors(choice, cells, splits), [s.labelled for s in splits], strict=True))
        shares = zip(*(detector.at_threshold(test, 0.0) for detector, test in results), strict=True)
        rows.append([str(choice), *_ranking(results), *(over_splits(share, percent=True) for share in shares)])
    defective = np.zeros(len(cells), bool)
    defective[splits[0].defective] = True
    every = Labelled([], defective)
    informed = [informed_detectors(cells, defective, seed) for seed in seeds]
    best = max(zip(*informed, strict=True), key=lambda runs: _mean_found(runs, every))
    rows.append(["a linear classifier told the labels", *_ranking([(one, every) for one in best]), "-", "-"])
    print(f"\n{EXTRACTOR}, {len(seeds)} splits, mean and 95 % interval of the mean")
    print(table(["features", "AUROC", "at 5 %", "found at 0", "flagged at 0"], rows, left={0}))
    return ExitCode.OK


def _mean_found(detectors: Sequence[Detector], test: Labelled) -> float:
    return float(np.mean([one.found_at(test, FALSE_ALARM_RATE) for one in detectors]))


def _ranking(results: Sequence[tuple[Detector, Labelled]]) -> list[str]:
    return [
        over_splits([detector.auroc(test) for detector, test in results], percent=False),
        over_splits([detector.found_at(test, FALSE_ALARM_RATE) for detector, test in results], percent=True),
    ]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = command_parser(
        "python -m uflow_edge.benchmarks.solar_features",
        f"Find solar cells' defects with other features of {EXTRACTORS[EXTRACTOR].timm_name}, and with the labels.",
        ["python -m uflow_edge.benchmarks.solar_features --out cells --seeds 1 2"],
    )
    parser.add_argument("--out", type=Path, default=Path("cells"), metavar="FOLDER", help="(default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="of splits (default: %(default)s)")
    return parser


if __name__ == "__main__":
    run_command(lambda: parser().parse_args(), lambda arguments: main(arguments.out, arguments.seeds))

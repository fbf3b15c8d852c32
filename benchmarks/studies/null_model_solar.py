"""The null model on real solar cells: ``python -m uflow_edge.benchmarks.studies.null_model_solar --out cells``.

For every seed the good monocrystalline cells of ELPV are split into training, calibration and test cells as in the demo
(`solar_cells`); the flow is trained on the first, the null model fitted to the second. The rules before calibration
and the two baselines see the same cells. What takes long, training and energies, is kept in the folder and used again.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uflow_edge.benchmarks.baselines import (
    gaussian_scores,
    nearest_neighbour_scores,
    stacked,
    standardized_by_channel,
)
from uflow_edge.benchmarks.evaluation import Detector, Labelled
from uflow_edge.benchmarks.solar_cells import EPOCHS, LEARNING_RATE, Folders, lay_out_images, run_tool
from uflow_edge.benchmarks.studies.exact_tail import exact_tree_score
from uflow_edge.calibration.null_model.fit import NullFit, fit_null_model
from uflow_edge.export.checkpoints.checkpoint import load_checkpoint
from uflow_edge.export.network.uflow import EnergyGraph, torch_runner
from uflow_edge.runtime.cli.command_line import progress, run_command, table
from uflow_edge.runtime.cli.parser import command_parser
from uflow_edge.runtime.errors import ExitCode, require
from uflow_edge.runtime.images.files import find_images, read_image
from uflow_edge.runtime.images.layouts import good_images
from uflow_edge.runtime.inspection import LatentStatistics
from uflow_edge.runtime.nfa import likelihood_map, tree_score
from uflow_edge.runtime.numeric import FloatMap
from uflow_edge.runtime.resize.cpu import checked_frame, model_input
from uflow_edge.runtime.storage.files import replacing
from uflow_edge.training.dataset import test_images
from uflow_edge.training.features import CachedFeatures

SEEDS = (2026, 1, 2, 3, 4)
FALSE_ALARM_RATE = 0.05
PARTS = ("calibration", "good", "defective")
CALIBRATION_SIZES = (20, 50, 100)
CALIBRATED = "tree NFA, null model"

Stacks = list[FloatMap]
Scorer = Callable[[Sequence[FloatMap]], FloatMap]


@dataclass(frozen=True, slots=True)
class Cells:
    """One split, trained on and measured.

    Attributes:
        energies: of each part, per scale, finest first, (N, H_i, W_i).
        channels: per scale.
        side: of the input.
        baselines: image scores by name, calibration cells first, then good and defective test cells.
    """

    energies: dict[str, Stacks]
    channels: tuple[int, ...]
    side: int
    baselines: dict[str, NDArray[np.float64]]


def paths_of(folders: Folders) -> dict[str, list[Path]]:
    """The images of every part that the flow has not seen."""
    images = test_images(folders.data)
    return {
        "calibration": list(find_images([folders.threshold])),
        "good": [image.path for image in images if image.is_good],
        "defective": [image.path for image in images if not image.is_good],
    }


def measured(out: Path, seed: int, epochs: int) -> Cells:
    """Train, and take energies and baseline scores; or read what an earlier run kept."""
    folders = Folders(out / str(seed))
    kept = folders.out / "energies.npz"
    if not kept.exists():
        lay_out_images(folders.data, seed)
        if not folders.checkpoint.exists():
            run_tool(
                "uflow-train", "--data", folders.data, "--extractor", "efficientnet_lite0", "--out", folders.checkpoint,
                "--epochs", epochs, "--learning-rate", LEARNING_RATE, "--seed", seed, "--restart",
            )  # fmt: skip
        with replacing(kept) as temporary, temporary.open("wb") as file:
            np.savez(file, **_measure(folders, seed))
    with np.load(kept) as stored:
        scales = len(stored["channels"])
        return Cells(
            {part: [stored[f"{part}_{i}"] for i in range(scales)] for part in PARTS},
            tuple(stored["channels"].tolist()),
            int(stored["side"]),
            {name.removeprefix("baseline "): stored[name] for name in stored.files if name.startswith("baseline ")},
        )


def _measure(folders: Folders, seed: int) -> dict[str, Any]:
    network = load_checkpoint(folders.checkpoint).network()
    graph = EnergyGraph(network).eval()
    run, side = torch_runner(graph), network.architecture.input_size
    arrays: dict[str, Any] = {
        "channels": np.array([scale.channels for scale in network.architecture.latents]),
        "side": np.array(side),
    }
    paths, scales = paths_of(folders), len(arrays["channels"])
    for part in PARTS:
        maps = [
            LatentStatistics.of(run(model_input(checked_frame(read_image(path)), side)[np.newaxis]), scales).energies
            for path in progress(paths[part], f"energies of {part} cells")
        ]
        for i, scale in enumerate(zip(*maps, strict=True)):
            arrays[f"{part}_{i}"] = np.concatenate(scale)
    tested_paths = [path for part in PARTS for path in paths[part]]
    with CachedFeatures(graph, good_images(folders.data)) as good, CachedFeatures(graph, tested_paths) as test:
        pooling = network.architecture.pooling
        fitted, tested = standardized_by_channel(stacked(good, pooling), stacked(test, pooling))
    print("fitting the baselines …", flush=True)
    arrays["baseline normal law at each pixel (PaDiM-like)"] = np.array(gaussian_scores(fitted, tested))
    arrays["baseline nearest neighbour (PatchCore-like)"] = np.array(nearest_neighbour_scores(fitted, tested, seed))
    return arrays


def scorers(cells: Cells, fit: NullFit) -> dict[str, Scorer]:
    """Every way to a score map, by name."""
    size, channels = (cells.side, cells.side), cells.channels
    return {
        "likelihood": partial(likelihood_map, channels=channels, size=size),
        "tree NFA, upstream": partial(tree_score, channels=channels, size=size, rule="upstream"),
        "tree NFA, one-sided": partial(tree_score, channels=channels, size=size, rule="one_sided"),
        "tree NFA, one-sided, exact tail": partial(exact_tree_score, channels=channels, size=size, rule="one_sided"),
        "tree NFA, per size": partial(tree_score, channels=channels, size=size, rule="per_size"),
        "tree NFA, per size, exact tail": partial(exact_tree_score, channels=channels, size=size, rule="per_size"),
        CALIBRATED: partial(fit.model.score, size=size),
    }


def image_scores(score: Scorer, stacks: Stacks) -> list[float]:
    """Peak of each image's score map."""
    return [float(score(one).max()) for one in zip(*stacks, strict=True)]


@dataclass(frozen=True, slots=True)
class DetectorRates:
    """One detector on one split: all shares of test cells, but the AUROC."""

    auroc: float
    at_five_percent: float
    found: float
    flagged: float


def evaluated(detector: Detector, test: Labelled) -> DetectorRates:
    """Ranking, found at 5 % false alarms on the test cells, and both shares at the natural threshold, if it has one."""
    natural = detector.natural_threshold
    found, flagged = (np.nan, np.nan) if natural is None else detector.at_threshold(test, natural)
    return DetectorRates(detector.auroc(test), detector.found_at(test, FALSE_ALARM_RATE), found, flagged)


def one_split(cells: Cells) -> tuple[dict[str, DetectorRates], NullFit]:
    """Fit, score, and print the split's own table."""
    calibration, good, defective = (cells.energies[part] for part in PARTS)
    fit = fit_null_model(calibration, cells.channels)
    n_calibration, n_good, n_defective = len(calibration[0]), len(good[0]), len(defective[0])
    test = Labelled([], np.repeat([False, True], [n_good, n_defective]))
    detectors = [
        Detector(
            name,
            image_scores(score, good) + image_scores(score, defective),
            None if name == "likelihood" else 0.0,
        )
        for name, score in progress(scorers(cells, fit).items(), "scoring", unit="rule")
    ]
    detectors += [Detector(name, values[n_calibration:].tolist()) for name, values in cells.baselines.items()]
    results = {detector.name: evaluated(detector, test) for detector in detectors}
    rows = []
    for detector in detectors:
        low, high = detector.auroc_interval(test)
        one = results[detector.name]
        rows.append([detector.name, f"{one.auroc:.4f}", f"{low:.3f} to {high:.3f}", *_shares(one)])
    print(table(["", "AUROC", "95 % interval", "at 5 %", "found at 0", "flagged at 0"], rows, left={0}))
    return results, fit


def _shares(one: DetectorRates) -> list[str]:
    return ["-" if np.isnan(v) else f"{v:.1%}" for v in (one.at_five_percent, one.found, one.flagged)]


def false_regions(fit: NullFit, stacks: Stacks, score: float) -> float:
    """Mean number of regions of a good cell that score so much or more; promised to be at most 10^−score."""
    counts = [
        (scale.evidence(one, len(stacks)).region_values(one.shape[1]) <= -score).sum()
        for scale, stack in zip(fit.model.scales, stacks, strict=True)
        for one in stack
    ]
    return float(np.sum(counts)) / len(stacks[0])


def resplit(cells: Cells, images: int, splits: int) -> list[str]:
    """Calibrate on so many good cells drawn at random, and see how the promise holds on all other good cells."""
    pool = [np.concatenate(pair) for pair in zip(cells.energies["calibration"], cells.energies["good"], strict=True)]
    regions, found = [], []
    for seed in progress(range(splits), f"splits with {images} cells", unit="split"):
        order = np.random.default_rng(seed).permutation(len(pool[0]))
        fit = fit_null_model([stack[order[:images]] for stack in pool], cells.channels)
        regions.append(false_regions(fit, [stack[order[images:]] for stack in pool], 0))
        scores = image_scores(partial(fit.model.score, size=(cells.side, cells.side)), cells.energies["defective"])
        found.append(float((np.asarray(scores) > 0).mean()))
    kept = float((np.asarray(regions) <= 1).mean())
    worst = np.quantile(regions, 0.95)
    return [str(images), f"{np.mean(regions):.2f}", f"{worst:.2f}", f"{kept:.0%}", f"{np.mean(found):.1%}"]


def over_splits(values: Sequence[float], percent: bool) -> str:
    """Mean and its 95 % interval over splits (Student's t)."""
    data = np.asarray(values)
    if np.isnan(data).any():
        return "-"
    mean = f"{data.mean():.1%}" if percent else f"{data.mean():.4f}"
    if len(data) < 2:
        return mean
    stats = require("scipy.stats", "dev")
    half = stats.t.ppf(0.975, len(data) - 1) * data.std(ddof=1) / np.sqrt(len(data))
    return f"{mean} ± {half:.1%}" if percent else f"{mean} ± {half:.4f}"


def main(out: Path, seeds: Sequence[int], epochs: int, resplits: int) -> ExitCode:
    """A table a split, one over all of them, and one of how the promise depends on the number of cells."""
    results = []
    for seed in seeds:
        cells = measured(out, seed, epochs)
        print(f"\nsplit {seed}: {[len(cells.energies[part][0]) for part in PARTS]} {', '.join(PARTS)} cells")
        split, fit = one_split(cells)
        results.append(split)
        goodness = fit.goodness
        kept = [f"{scale.ks_before:.3f} to {scale.ks_after:.3f}" for scale in goodness.scales]
        print(f"distance from the null model, before to after calibration, by scale: {', '.join(kept)}")
        print(
            f"false regions a good cell: {goodness.false_alarms_per_image:.3f} expected from cross-fitting; "
            + ", ".join(f"{false_regions(fit, cells.energies['good'], s):.3f} at score {s}" for s in (0, 1, 2))
            + f" on test cells; suspicious calibration cells: {list(fit.suspicious)}"
        )
    rows = [
        [
            name,
            over_splits([one[name].auroc for one in results], percent=False),
            *(
                over_splits([getattr(one[name], field) for one in results], percent=True)
                for field in ("at_five_percent", "found", "flagged")
            ),
        ]
        for name in results[0]
        if all(name in one for one in results)
    ]
    print(f"\n{len(seeds)} splits, mean and 95 % interval of the mean")
    print(table(["", "AUROC", "at 5 %", "found at 0", "flagged at 0"], rows, left={0}))
    if resplits:
        rows = [resplit(cells, images, resplits) for images in CALIBRATION_SIZES]
        print(f"\nthe promise over {resplits} random choices of calibration cells, split {seeds[-1]}")
        print(table(["cells", "false regions a cell", "95 % quantile", "at most 1 in", "found at 0"], rows, left=()))
    return ExitCode.OK


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = command_parser(
        "python -m uflow_edge.benchmarks.studies.null_model_solar",
        "Calibrate the null model on real solar cells, and compare before, after, and two baselines.",
        ["python -m uflow_edge.benchmarks.studies.null_model_solar --out cells --seeds 1 2"],
    )
    parser.add_argument("--out", type=Path, default=Path("cells"), metavar="FOLDER", help="(default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="of splits (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the training (default: %(default)s)")
    parser.add_argument(
        "--resplits", type=int, default=0, metavar="N", help="also calibrate N times on 20, 50 and 100 cells drawn anew"
    )
    return parser


if __name__ == "__main__":
    run_command(
        lambda: parser().parse_args(),
        lambda arguments: main(arguments.out, arguments.seeds, arguments.epochs, arguments.resplits),
    )

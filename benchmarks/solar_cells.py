"""The demo: the product's commands take solar cells from images to verdicts, and a report shows how well that works.

``make demo``, or ``python -m uflow_edge.benchmarks.solar_cells --out demo``. The images are the monocrystalline
cells of the ELPV data set (Deitsch et al., 2019; Buerhop-Lutz et al., 2018; CC BY-NC-SA 4.0), from its PyPI package.
"""

import argparse
import csv
import json
import shutil
import subprocess
import sys
import time
from importlib.metadata import distribution
from pathlib import Path

import numpy as np

from uflow_edge.benchmarks.baselines import gaussian_scores, nearest_neighbour_scores, stacked, standardized_by_channel
from uflow_edge.benchmarks.evaluation import Detector, Labelled
from uflow_edge.benchmarks.report import DemoStep, write_report
from uflow_edge.export.checkpoints.checkpoint import load_checkpoint
from uflow_edge.export.network.uflow import EnergyGraph
from uflow_edge.runtime.cli.command_line import progress, run_command
from uflow_edge.runtime.cli.parser import command_parser
from uflow_edge.runtime.errors import ExitCode
from uflow_edge.runtime.images.files import read_image
from uflow_edge.runtime.images.layouts import good_images
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.nfa import likelihood_map, tree_score
from uflow_edge.runtime.nfa.tree import TREE_RULES
from uflow_edge.training.dataset import test_images
from uflow_edge.training.features import CachedFeatures

TEST_GOOD, THRESHOLD_GOOD = 118, 80
FALSE_ALARM_RATE = 0.05
EPOCHS = 3  # the judge keeps the start, as on other splits
LEARNING_RATE = 2e-4
_RULE_NAMES = {
    "upstream": "U-Flow, tree NFA, upstream's rule",
    "one_sided": "U-Flow, tree NFA, one-sided",
    "per_size": "U-Flow, tree NFA, per size",
}


class Folders:
    """Files and folders of the demo, all below one folder."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.data = out / "data"  # the images, laid out like MVTec AD
        self.threshold = self.data / "threshold" / "good"  # good images for the null model and the threshold
        self.checkpoint = out / "solar.ckpt"
        self.bundle = out / "solar.uflow"
        self.verdicts = out / "verdicts.jsonl"  # one line per image
        self.overlays = out / "overlays"
        self.report = out / "report.html"


def lay_out_images(folder: Path, seed: int) -> None:
    """Copy the monocrystalline cells: good ones (defect probability 0) split at random, defective ones (1) to test."""
    labels = next(file for file in distribution("elpv-dataset").files or [] if file.name == "labels.csv")
    root = Path(str(labels.locate())).parent
    with Path(str(labels.locate())).open(encoding="utf-8") as file:
        rows = [row for row in csv.reader(file, delimiter=" ", skipinitialspace=True) if row]
    mono = [(root / row[0], float(row[1])) for row in rows if row[2].strip() == "mono"]
    good = [path for path, probability in mono if probability == 0]
    order = [good[i] for i in np.random.default_rng(seed).permutation(len(good))]
    parts = {
        "test/good": order[:TEST_GOOD],
        "threshold/good": order[TEST_GOOD : TEST_GOOD + THRESHOLD_GOOD],
        "train/good": order[TEST_GOOD + THRESHOLD_GOOD :],
        "test/defective": [path for path, probability in mono if probability == 1],
    }
    shutil.rmtree(folder, ignore_errors=True)
    for name, paths in parts.items():
        (folder / name).mkdir(parents=True)
        for path in paths:
            shutil.copy(path, folder / name)


def run_tool(command: str, *arguments: object) -> DemoStep:
    """Print one of the product's commands, run it and time it."""
    words = [command, *map(str, arguments)]
    print(f"\n$ {' '.join(words)}", flush=True)
    start = time.perf_counter()
    subprocess.run([str(Path(sys.executable).parent / command), *words[1:]], check=True)
    return DemoStep(" ".join(words), time.perf_counter() - start)


def flow_detectors(bundle: Path, test: Labelled) -> list[Detector]:
    """Image scores of the likelihood, of the calibrated null model and of every tree rule, from a bundle's energies."""
    inspector = Inspector.load(bundle)
    channels, side = inspector.manifest.channels, inspector.manifest.input_size
    likelihood: list[float] = []
    calibrated: list[float] = []
    by_rule: dict[str, list[float]] = {rule: [] for rule in TREE_RULES}
    for path in progress(test.paths, "scoring with every rule"):
        inspection = inspector.examine(read_image(path))
        energies = inspection.energies
        calibrated.append(inspection.verdict.score)
        likelihood.append(float(likelihood_map(energies, channels, (side, side)).max()))
        for rule in TREE_RULES:
            by_rule[rule].append(float(tree_score(energies, channels, (side, side), rule=rule).max()))
    flow = [
        Detector("U-Flow, likelihood", likelihood),
        Detector("U-Flow, tree NFA, calibrated", calibrated, natural_threshold=0.0),
    ]
    return flow + [Detector(_RULE_NAMES[rule], by_rule[rule], natural_threshold=0.0) for rule in TREE_RULES]


def baseline_detectors(checkpoint: Path, good: list[Path], test: Labelled, seed: int) -> list[Detector]:
    """Image scores of the two baselines on the flow's own features, fitted to the same images."""
    graph = EnergyGraph(load_checkpoint(checkpoint).network()).eval()
    with CachedFeatures(graph, good) as good_features, CachedFeatures(graph, test.paths) as test_features:
        pooling = graph.network.architecture.pooling
        fitted, tested = standardized_by_channel(stacked(good_features, pooling), stacked(test_features, pooling))
    print("fitting the baselines …", flush=True)
    return [
        Detector("Gaussian at each pixel (PaDiM-like)", gaussian_scores(fitted, tested)),
        Detector("nearest neighbour (PatchCore-like)", nearest_neighbour_scores(fitted, tested, seed)),
    ]


def demo(out: Path, seed: int, epochs: int) -> ExitCode:
    """Train, export, calibrate, infer, compare, report."""
    folders = Folders(out)
    lay_out_images(folders.data, seed)
    stages = [
        run_tool(
            "uflow-train", "--data", folders.data, "--extractor", "efficientnet_lite0", "--out", folders.checkpoint,
            "--epochs", epochs, "--learning-rate", LEARNING_RATE, "--seed", seed, "--restart", "--overwrite",
        ),
        run_tool("uflow-export", "--ckpt", folders.checkpoint, "--out", folders.bundle, "--overwrite"),
        run_tool(
            "uflow-calibrate", "--bundle", folders.bundle, "--good", folders.threshold,
            "--max-false-alarms", FALSE_ALARM_RATE, "--confidence", "average", "--seed", seed,
        ),
    ]  # fmt: skip
    shutil.rmtree(folders.overlays, ignore_errors=True)
    folders.verdicts.unlink(missing_ok=True)  # uflow-infer would append to those of an earlier demo
    stages.append(
        run_tool(
            "uflow-infer", "--images", folders.data / "test", "--bundle", folders.bundle, "--quiet",
            "--jsonl", folders.verdicts, "--save-dir", folders.overlays,
        )
    )  # fmt: skip
    print("\ncomparing", flush=True)
    start = time.perf_counter()
    images = test_images(folders.data)
    test = Labelled([image.path for image in images], np.array([not image.is_good for image in images]))
    detectors = flow_detectors(folders.bundle, test)
    detectors += baseline_detectors(folders.checkpoint, good_images(folders.data), test, seed)
    stages.append(DemoStep("comparison with the baselines", time.perf_counter() - start))
    verdicts = [json.loads(line) for line in folders.verdicts.read_text(encoding="utf-8").splitlines()]
    write_report(folders.report, test, detectors, verdicts, sorted(folders.overlays.rglob("*.png")), stages)
    for detector in detectors:
        print(f"{detector.name:38} {detector.summary(test)}")
    print(f"\nwrote {folders.report}")
    return ExitCode.OK


def parser() -> argparse.ArgumentParser:
    """The command line of the demo."""
    parser = command_parser(
        "python -m uflow_edge.benchmarks.solar_cells",
        "Train, export, calibrate and infer on real solar cells, and report how well it went.",
        ["python -m uflow_edge.benchmarks.solar_cells --out demo"],
    )
    parser.add_argument("--out", type=Path, default=Path("demo"), metavar="FOLDER", help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=2026, help="of the split and the training (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the training (default: %(default)s)")
    return parser


if __name__ == "__main__":
    run_command(lambda: parser().parse_args(), lambda arguments: demo(arguments.out, arguments.seed, arguments.epochs))

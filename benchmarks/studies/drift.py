"""How often drift is reported that is none, how soon one that is, and what watching costs.

``python -m uflow_edge.benchmarks.studies.drift --bundle solar.uflow --good unseen/``. False warnings are simulated on
numbers of four known laws; delays are measured on real images that are defocused, dimmed or moved.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.cli.command_line import progress, run_command, table
from uflow_edge.runtime.cli.parser import command_parser
from uflow_edge.runtime.drift import DriftMonitor, DriftRange, drift_numbers
from uflow_edge.runtime.engines.selection import open_engine
from uflow_edge.runtime.errors import ExitCode
from uflow_edge.runtime.images.files import find_images, read_image
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.numeric import Image

Law = Callable[[np.random.Generator, tuple[int, int]], NDArray[np.float64]]
LAWS: dict[str, Law] = {
    "normal": lambda random, size: random.standard_normal(size),
    "exponential": lambda random, size: random.exponential(size=size),
    "log-normal": lambda random, size: np.exp(random.standard_normal(size)),
    "Student, 3 degrees": lambda random, size: random.standard_t(3, size),
}
CHANGES: dict[str, Callable[[Image], Image]] = {
    "none": lambda frame: frame,
    "10 % darker": lambda frame: _bytes(frame * 0.9),
    "25 % darker": lambda frame: _bytes(frame * 0.75),
    "20 % brighter": lambda frame: _bytes(frame * 1.2),
    "defocused, σ = 0.7 px": lambda frame: _bytes(cv2.GaussianBlur(frame, (0, 0), 0.7)),
    "defocused, σ = 1.2 px": lambda frame: _bytes(cv2.GaussianBlur(frame, (0, 0), 1.2)),
    "moved by 2 %": lambda frame: np.roll(frame, round(0.02 * frame.shape[0]), axis=0),
}
CALIBRATIONS, FRAMES, REPEATS, LONGEST = 50, 20_000, 20, 500


def _bytes(values: object) -> Image:
    return np.asarray(np.clip(np.asarray(values), 0, 255), np.uint8)


def false_warnings() -> str:
    """Warnings in 100,000 frames of four numbers each, by law and images of the calibration."""
    rows = []
    for name, law in progress(LAWS.items(), "false warnings", len(LAWS), "law"):
        row = [name]
        for images in (20, 50, 300):
            random, raised = np.random.default_rng(images), 0
            for _ in range(CALIBRATIONS):
                monitor = DriftMonitor(DriftRange.of(law(random, (images, 4))))
                before = "ok"
                for numbers in law(random, (FRAMES, 4)).tolist():
                    status = monitor.update("", numbers, anomalous=False, captured=0.0).status
                    raised += status == "warning" and before == "ok"
                    before = status
            row.append(f"{raised * 1e5 / (CALIBRATIONS * FRAMES):.2f}")
        rows.append(row)
    return table(["law of the numbers", "20 images", "50 images", "300 images"], rows, left={0})


def delays(inspector: Inspector, paths: Sequence[Path]) -> str:
    """Frames until a change is reported, over orders of the frames; half of the images are for calibration.

    An image is flagged, and left out, when its score is higher than all of the calibration.
    """
    images = [read_image(path) for path in paths]
    order = np.random.default_rng(0).permutation(len(images))
    calibration, line = order[: len(order) // 2], order[len(order) // 2 :]
    good = np.array([_numbers(inspector, images[i]) for i in calibration])
    expected, threshold = DriftRange.of(good), float(good[:, -1].max())
    rows = []
    for name, change in progress(CHANGES.items(), "delays", len(CHANGES), "change"):
        numbers = np.array([_numbers(inspector, change(images[i])) for i in line])
        shift = (numbers.mean(0) - expected.mean) / expected.deviation
        found = [_delay(expected, threshold, numbers, seed) for seed in range(REPEATS)]
        noticed = [delay for delay in found if delay is not None]
        median = f"{np.median(noticed):.0f}" if noticed else ""
        flagged = float((numbers[:, -1] > threshold).mean())
        rows.append(
            [name, f"{shift[np.abs(shift).argmax()]:+.2f}", f"{flagged:.0%}", f"{len(noticed)} of {REPEATS}", median]
        )
    head = ["change", "largest shift, σ", "flagged", f"reported within {LONGEST} frames", "median, frames"]
    return f"{len(calibration)} images, limit {expected.limit:.2f} σ\n" + table(head, rows, left={0})


def _numbers(inspector: Inspector, image: Image) -> tuple[float, ...]:
    inferred = inspector.infer(inspector.prepare(image))
    score = inspector.judge(inferred).verdict.score
    return drift_numbers(inferred.statistics.energies, inspector.manifest.channels, score)


def _delay(expected: DriftRange, threshold: float, numbers: NDArray[np.float64], seed: int) -> int | None:
    monitor, random = DriftMonitor(expected), np.random.default_rng(seed)
    for frame, i in enumerate(random.integers(0, len(numbers), LONGEST), 1):
        anomalous = bool(numbers[i, -1] > threshold)
        if monitor.update("", numbers[i].tolist(), anomalous=anomalous, captured=0.0).status == "warning":
            return frame
    return None


def cost(inspector: Inspector, image: Image) -> str:
    """Microseconds a frame, numbers and average."""
    energies, channels = inspector.infer(inspector.prepare(image)).statistics.energies, inspector.manifest.channels
    scales = len(channels) + 1
    monitor = DriftMonitor(DriftRange((0.0,) * scales, (1.0,) * scales, 300))
    times = []
    for _ in range(2000):
        start = time.perf_counter()
        monitor.update("", drift_numbers(energies, channels, 0.0), anomalous=False, captured=0.0)
        times.append(time.perf_counter() - start)
    return f"watching costs {np.median(times) * 1e6:.0f} µs a frame"


def run(arguments: argparse.Namespace) -> ExitCode:
    """Measure and print."""
    bundle = Bundle.load(arguments.bundle, UFlowManifest)
    inspector = Inspector.from_bundle(bundle, open_engine(bundle, threads=1))
    paths = list(find_images([arguments.good]))
    print(delays(inspector, paths), cost(inspector, read_image(paths[0])), false_warnings(), sep="\n\n")
    return ExitCode.OK


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = command_parser("drift", "Measure false warnings, delays and costs of watching for drift.", [])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--good", type=Path, required=True, help="folder of good images that the training has not seen")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_command(lambda: parser().parse_args(argv), run)


if __name__ == "__main__":
    main()

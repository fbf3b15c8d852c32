"""Is the promise kept on real images? Many calibrations of one bundle, each on other images, counted.

``python -m uflow_edge.benchmarks.studies.operating_point --bundle solar.uflow --good unseen/``. The images must be new
to the training. In every split some are drawn for the null model; the others are the population that the line would
see. From it held-out images are drawn with replacement, again and again, so that the share of the population above the
threshold is known exactly.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uflow_edge.calibration.null_model.fit import fit_null_model
from uflow_edge.calibration.operating_point import Promise, clopper_pearson, operating_point
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.cli.command_line import progress, run_command, table
from uflow_edge.runtime.cli.parser import command_parser
from uflow_edge.runtime.cli.values import positive_int
from uflow_edge.runtime.engines.selection import open_engine
from uflow_edge.runtime.errors import ExitCode
from uflow_edge.runtime.images.files import find_images, read_image
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.nfa.null_model import NullModel
from uflow_edge.runtime.numeric import FloatMap

PROMISES = (Promise(0.05, 0.95), Promise(0.05, 0.8), Promise(0.1, 0.9), Promise(0.05, None))
FITTED, HELD_OUT, DRAWS = 60, 100, 25


def energies_of(inspector: Inspector, paths: Sequence[Path]) -> list[FloatMap]:
    """Per scale, (N, H, W)."""
    found = []
    for path in progress(paths, "energies"):
        found.append(inspector.infer(inspector.prepare(read_image(path))).statistics.energies)
    return [np.concatenate(scale) for scale in zip(*found, strict=True)]


def scores_of(model: NullModel, stacks: Sequence[FloatMap], images: NDArray[np.intp], side: int) -> NDArray[np.float64]:
    """Image scores, as the runtime has them."""
    return np.array([model.score([stack[i] for stack in stacks], (side, side)).max() for i in images], np.float64)


def compare(stacks: Sequence[FloatMap], manifest: UFlowManifest, splits: int) -> str:
    """A line a promise: in how many calibrations it was kept, and how many good images were flagged."""
    shares: list[list[float]] = [[] for _ in PROMISES]
    for split in progress(range(splits), "splits", splits):
        random = np.random.default_rng(split)
        order = random.permutation(len(stacks[0]))
        fitted = np.sort(order[:FITTED])
        model = fit_null_model([stack[fitted] for stack in stacks], manifest.channels, manifest.window).model
        scores = scores_of(model, stacks, order[FITTED:], manifest.input_size)
        for _ in range(DRAWS):
            drawn = random.choice(scores, HELD_OUT).tolist()
            for promise, found in zip(PROMISES, shares, strict=True):
                found.append(float((scores > operating_point(drawn, promise).threshold).mean()))
    rows = []
    for promise, found in zip(PROMISES, shares, strict=True):
        kept = int((np.array(found) <= promise.false_alarm_rate).sum())
        low, high = clopper_pearson(kept, len(found))
        rows.append([str(promise), f"{kept / len(found):.1%}", f"{low:.1%} to {high:.1%}", f"{np.mean(found):.2%}"])
    return table(["promise", "kept", "95 % interval", "flagged on average"], rows, left={0})


def run(arguments: argparse.Namespace) -> ExitCode:
    """Measure and print."""
    bundle = Bundle.load(arguments.bundle, UFlowManifest)
    inspector = Inspector(bundle.manifest, open_engine(bundle, threads=1))
    paths = list(find_images([arguments.good]))
    print(f"{len(paths)} images, {FITTED} for the null model, {HELD_OUT} held out of the others, {DRAWS} draws a split")
    print(compare(energies_of(inspector, paths), bundle.manifest, arguments.splits))
    return ExitCode.OK


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = command_parser("operating_point", "Count in how many calibrations a promise was kept.", [])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--good", type=Path, required=True, help="folder of good images that the training has not seen")
    parser.add_argument("--splits", type=positive_int, default=20)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_command(lambda: parser().parse_args(argv), run)


if __name__ == "__main__":
    main()

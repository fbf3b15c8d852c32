"""``uflow-train``: learn what good parts look like."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from uflow_edge.runtime.command_line import command_parser, positive_int, run_command
from uflow_edge.runtime.errors import ExitCode, require

if TYPE_CHECKING:
    from uflow_edge.training.fit import Progress


def parser() -> argparse.ArgumentParser:
    """The command line of ``uflow-train``."""
    parser = command_parser(
        "uflow-train",
        "Train a U-Flow on images of good parts. Ctrl-C saves everything; the same command goes on from there.",
        [
            "uflow-train --data bottle/ --extractor efficientnet_lite0 --out bottle.ckpt",
            "uflow-train --data good_photos/ --out part.ckpt --epochs 60",
        ],
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="FOLDER", help="good images, or an MVTec layout with train/good"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the checkpoint to write")
    parser.add_argument(
        "--extractor",
        choices=["efficientnet_lite0", "resnet18", "wide_resnet50_2"],
        default="efficientnet_lite0",
        help="frozen backbone (default: %(default)s)",
    )
    parser.add_argument(
        "--input-size",
        type=positive_int,
        default=256,
        metavar="N",
        help="side of the input in pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--flow-steps", type=positive_int, default=4, metavar="N", help="coupling blocks a scale (default: %(default)s)"
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="state dict of the backbone (default: its ImageNet weights)"
    )

    fit = parser.add_argument_group("fitting")
    fit.add_argument(
        "--epochs",
        type=positive_int,
        default=30,
        metavar="N",
        help="passes over the images, at most (default: %(default)s)",
    )
    fit.add_argument(
        "--patience",
        type=positive_int,
        default=8,
        metavar="N",
        help="epochs without a better held-out likelihood before stopping (default: %(default)s)",
    )
    fit.add_argument(
        "--batch-size", type=positive_int, default=8, metavar="N", help="images a step (default: %(default)s)"
    )
    fit.add_argument(
        "--learning-rate", type=float, default=1e-3, metavar="X", help="of Adam, at the start (default: %(default)s)"
    )
    fit.add_argument(
        "--seed", type=int, default=0, metavar="N", help="same seed, same checkpoint (default: %(default)s)"
    )
    fit.add_argument(
        "--couplings",
        choices=["additive", "affine"],
        default="additive",
        help="additive makes energies the exact likelihood; affine is the paper's (default: %(default)s)",
    )
    fit.add_argument("--restart", action="store_true", help="forget an interrupted run")

    data = parser.add_argument_group("data")
    data.add_argument(
        "--standardize",
        choices=["auto", "whiten", "position", "channel", "none"],
        default="auto",
        help="features: whitened or scaled by pixel (parts that lie aligned), or by channel (textures); "
        "auto asks the held-out images (default: %(default)s)",
    )
    data.add_argument(
        "--flip",
        choices=["none", "horizontal", "vertical", "both"],
        default="none",
        help="random flips (default: %(default)s); features are then computed anew each epoch",
    )
    data.add_argument(
        "--crop",
        type=float,
        default=1.0,
        metavar="X",
        help="random crops, no smaller than this fraction of a side (default: none)",
    )
    data.add_argument(
        "--cache",
        choices=["auto", "memory", "disk"],
        default="auto",
        help="where features are kept (default: memory if they fit)",
    )
    return parser


def run(arguments: argparse.Namespace) -> ExitCode:
    """Train as the command line asks."""
    for module in ("torch", "timm", "FrEIA", "psutil"):
        require(module, "train")
    from uflow_edge.export.architecture import Architecture
    from uflow_edge.training.features import Augmentation
    from uflow_edge.training.fit import TrainingOptions
    from uflow_edge.training.train import Data, train

    flip = arguments.flip
    data = Data(
        arguments.data,
        Augmentation(flip in ("horizontal", "both"), flip in ("vertical", "both"), arguments.crop),
        arguments.standardize,
        arguments.cache,
        arguments.weights,
    )
    options = TrainingOptions(
        arguments.learning_rate,
        arguments.batch_size,
        arguments.epochs,
        arguments.patience,
        arguments.seed,
        arguments.couplings,
    )
    architecture = Architecture.default(arguments.extractor, arguments.input_size, arguments.flow_steps)
    bar = _Bar()
    try:
        result = train(
            data, architecture, options, arguments.out, restart=arguments.restart, report=print, on_step=bar.update
        )
    except KeyboardInterrupt:
        bar.close()
        print(f"stopped; nothing is lost: the same command goes on from {arguments.out}.resume", file=sys.stderr)
        return ExitCode.INTERRUPTED
    finally:
        bar.close()
    best = result.held_out[result.best_epoch - 1]
    print(f"{arguments.out}: {result.steps} steps, best after epoch {result.best_epoch} (held-out {best:.4f})")
    print(f"next: uflow-export --ckpt {arguments.out}")
    return ExitCode.OK


class _Bar:
    """The progress bar of the fit: loss, held-out loss, time left."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._bar = tqdm(desc="fitting the flow", unit=" step", disable=None, dynamic_ncols=True)

    def update(self, progress: "Progress") -> None:
        if self._bar.total is None:
            self._bar.reset(total=progress.steps)
            self._bar.initial = progress.step - 1
        self._bar.n = progress.step
        held_out = "" if progress.held_out is None else f", held-out {progress.held_out:.4f}"
        self._bar.set_postfix_str(f"loss {progress.loss:.4f}{held_out}", refresh=False)
        self._bar.update(0)

    def close(self) -> None:
        self._bar.close()


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``uflow-train``."""
    arguments = parser().parse_args(argv)
    run_command(lambda: run(arguments))

"""``uflow-train``: learn what good parts look like."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from uflow_edge.export.network.architecture import EXTRACTORS, FLOW_STEPS, INPUT_SIZE, Architecture
from uflow_edge.runtime.cli.command_line import (
    add_reading_options,
    command_parser,
    natural_int,
    positive_float,
    positive_int,
    run_command,
    share,
)
from uflow_edge.runtime.cli.logs import print_beside_bar
from uflow_edge.runtime.errors import BadInput, ExitCode, UsageError, require
from uflow_edge.runtime.text import counted
from uflow_edge.training.mvtec import CONFIGS
from uflow_edge.training.options import (
    CACHE_CHOICES,
    COUPLINGS,
    HOLD_OUT,
    STANDARDIZATION_CHOICES,
    Augmentation,
    TrainingOptions,
)
from uflow_edge.training.progress import FitBar, print_interrupted

FLIPS = {"none": (False, False), "horizontal": (True, False), "vertical": (False, True), "both": (True, True)}
_DEFAULT = "(default: %(default)s)"


def parser() -> argparse.ArgumentParser:
    """The command line of ``uflow-train``."""
    parser = command_parser(
        "uflow-train",
        "Train a U-Flow on images of good parts. Ctrl-C saves everything; the same command goes on from there.",
        [
            "uflow-train --data bottle/ --extractor efficientnet_lite0 --out bottle.ckpt",
            "uflow-train --data good_photos/ --out part.ckpt --epochs 60",
            "uflow-train --config bottle --data mvtec/bottle --out bottle.ckpt   # as the paper: hours on a CPU",
        ],
    )
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folder of good images, or a data set with train/good",
    )
    add("--out", type=Path, required=True, metavar="FILE", help="the checkpoint to write")
    add(
        "--config",
        choices=CONFIGS,
        metavar="CATEGORY",
        help="train as the authors of U-Flow did on a category of MVTec AD: extractor, input size, flow steps, "
        "learning rate, batch size, epochs, patience, couplings and standardising are theirs where not given here too; "
        f"one of {', '.join(CONFIGS)}",
    )
    add("--extractor", choices=EXTRACTORS, default="efficientnet_lite0", help=f"frozen backbone {_DEFAULT}")
    add(
        "--input-size",
        type=positive_int,
        metavar="N",
        help=f"side of the input in pixels (default: {INPUT_SIZE}, mcait: 448)",
    )
    add(
        "--flow-steps", type=positive_int, default=FLOW_STEPS, metavar="N", help=f"coupling blocks per scale {_DEFAULT}"
    )
    add(
        "--weights",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="file with the weights of the backbone; mcait needs two (default: ImageNet weights)",
    )
    _add_fitting(parser.add_argument_group("fitting"))
    data = parser.add_argument_group("data")
    _add_data(data)
    add_reading_options(data)
    return parser


def _add_fitting(group: argparse._ArgumentGroup) -> None:
    default = TrainingOptions()
    add = group.add_argument
    add("--epochs", type=positive_int, default=default.epochs, metavar="N", help=f"largest number of epochs {_DEFAULT}")
    add(
        "--patience",
        type=positive_int,
        default=default.patience,
        metavar="N",
        help=f"stop after this many epochs without a better held-out likelihood {_DEFAULT}",
    )
    add("--batch-size", type=positive_int, default=default.batch_size, metavar="N", help=f"images per step {_DEFAULT}")
    add(
        "--learning-rate",
        type=positive_float,
        default=default.learning_rate,
        metavar="X",
        help=f"learning rate at the start {_DEFAULT}",
    )
    add(
        "--seed",
        type=natural_int,
        default=default.seed,
        metavar="N",
        help=f"of all random numbers; the same seed gives the same checkpoint {_DEFAULT}",
    )
    add(
        "--couplings",
        choices=COUPLINGS,
        default=default.couplings,
        help=f"additive makes the energies the exact likelihood; affine is as in the paper {_DEFAULT}",
    )
    add("--restart", action="store_true", help="start again instead of continuing an interrupted run")
    add("--overwrite", action="store_true", help="replace an existing checkpoint")


def _add_data(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--standardize",
        choices=STANDARDIZATION_CHOICES,
        default="auto",
        help="standardize features: whiten, or scale by position (aligned parts), or by channel (textures); "
        f"auto takes what suits the held-out images best {_DEFAULT}",
    )
    add(
        "--hold-out",
        type=positive_float,
        default=HOLD_OUT,
        metavar="X",
        help="share of the images that is held out: they decide when training stops, and uflow-calibrate may use them, "
        f"also if it is given all images {_DEFAULT}",
    )
    add("--flip", choices=FLIPS, default="none", help=f"random flips; features are then not cached {_DEFAULT}")
    add(
        "--crop",
        type=share,
        default=1.0,
        metavar="X",
        help="random crops to this share of each side; features are then not cached (default: no crops)",
    )
    add(
        "--no-pictures",
        action="store_true",
        help="keep no held-out images in the checkpoint (otherwise 24, on which uflow-export compares graphs)",
    )
    add(
        "--cache",
        choices=CACHE_CHOICES,
        default="auto",
        help="where features are cached (default: in memory if they fit)",
    )


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; what a ``--config`` says takes the place of the defaults, so all that is given goes before it."""
    published = CONFIGS.get(parser().parse_args(argv).config)
    configured = parser()
    if published is not None:
        configured.set_defaults(**published.arguments())
    return configured.parse_args(argv)


def run(arguments: argparse.Namespace) -> ExitCode:
    """Train as the command line asks."""
    for module in ("torch", "timm", "FrEIA", "psutil"):
        require(module, "train")
    from uflow_edge.runtime.images.decode import Reading, use
    from uflow_edge.training.train import Data, train

    use(Reading.of(arguments), print)

    data = Data(
        arguments.data,
        Augmentation(*FLIPS[arguments.flip], arguments.crop),
        arguments.standardize,
        arguments.cache,
        tuple(arguments.weights),
        not arguments.no_pictures,
        arguments.hold_out,
    )
    options = TrainingOptions(
        arguments.learning_rate,
        arguments.batch_size,
        arguments.epochs,
        arguments.patience,
        arguments.seed,
        arguments.couplings,
    )
    side = arguments.input_size or EXTRACTORS[arguments.extractor].fixed_input_size or INPUT_SIZE
    try:
        architecture = Architecture.default(arguments.extractor, side, arguments.flow_steps)
    except BadInput as error:
        raise UsageError(f"--extractor, --input-size or --flow-steps: {error}") from error
    bar = FitBar("fitting the flow", arguments.epochs)
    try:
        result = train(
            data,
            architecture,
            options,
            arguments.out,
            restart=arguments.restart,
            overwrite=arguments.overwrite,
            report=_say,
            on_step=bar.update,
        )
    except KeyboardInterrupt:
        bar.close()
        print_interrupted(arguments.out)
        return ExitCode.INTERRUPTED
    finally:
        bar.close()
    best = result.held_out[result.best_epoch - 1]
    print(
        f"{arguments.out}: {counted(result.steps, 'step')}, best after epoch {result.best_epoch} (held-out {best:.4f})"
    )
    print(f"next: uflow-export --ckpt {arguments.out}")
    return ExitCode.OK


def _say(line: str) -> None:
    print_beside_bar(line, sys.stdout)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``uflow-train``."""
    run_command(lambda: parsed(argv), run)


if __name__ == "__main__":
    main()

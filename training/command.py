"""``uflow-train``: learn what good parts look like."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from uflow_edge.export.network.architecture import FLOW_STEPS, INPUT_SIZE, Architecture
from uflow_edge.export.network.backbones import EXTRACTORS
from uflow_edge.runtime.cli.command_line import run_command
from uflow_edge.runtime.cli.options import (
    add_batch_option,
    add_device_option,
    add_learning_rate_option,
    add_overwrite_option,
    add_reading_options,
    add_report_option,
    add_restart_option,
    add_seed_option,
)
from uflow_edge.runtime.cli.parser import command_parser
from uflow_edge.runtime.cli.values import positive_float, positive_int, share
from uflow_edge.runtime.errors import BadInput, ExitCode, UsageError, require
from uflow_edge.runtime.text import counted
from uflow_edge.training.mvtec import CONFIGS
from uflow_edge.training.options import (
    CACHE_CHOICES,
    COUPLINGS,
    HOLD_OUT,
    SCALES_CHOICES,
    STANDARDIZATION_CHOICES,
    WINDOW,
    Augmentation,
    TrainingOptions,
    alternatives,
    with_scales,
)
from uflow_edge.training.progress import log_file, run_fit

FLIPS = {"none": (False, False), "horizontal": (True, False), "vertical": (False, True), "both": (True, True)}


def parser() -> argparse.ArgumentParser:
    """The command line of ``uflow-train``."""
    parser = command_parser(
        "uflow-train",
        "Train a U-Flow on images of good parts. Ctrl-C saves everything; the same command continues from there.",
        [
            "uflow-train --data bottle/ --extractor efficientnet_lite0 --out bottle.ckpt",
            "uflow-train --data good_photos/ --out part.ckpt --epochs 60",
            "uflow-train --config bottle --data mvtec/bottle --out bottle.ckpt   # as the paper: hours on a CPU",
        ],
        {category: published.options() for category, published in CONFIGS.items()},
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
        "--extractor",
        metavar="NAME",
        default="efficientnet_lite0",
        help=f"frozen backbone; {', '.join(EXTRACTORS)}, or timm:NAME, a convolutional network of timm",
    )
    add(
        "--input-size",
        type=positive_int,
        metavar="N",
        help=f"side of the input in pixels (default: {INPUT_SIZE}, mcait: 448)",
    )
    add(
        "--scales",
        choices=SCALES_CHOICES,
        default="auto",
        help="joint: one law for the features of all strides together; separate: one per stride, as in the paper; "
        "auto: what finds more drawn defects, joint where nothing is judged; separate if the model would be too large",
    )
    add(
        "--pooling",
        type=positive_int,
        metavar="N",
        help="average features over N x N pixels (default: what finds most drawn defects, or the extractor's own)",
    )
    add(
        "--window",
        type=positive_int,
        metavar="N",
        help=f"average energies over N x N pixels before regions are formed (default: {WINDOW} if joint, else 1)",
    )
    add("--flow-steps", type=positive_int, default=FLOW_STEPS, metavar="N", help="coupling blocks per scale")
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
    add("--epochs", type=positive_int, default=default.epochs, metavar="N", help="largest number of epochs")
    add(
        "--patience",
        type=positive_int,
        default=default.patience,
        metavar="N",
        help="stop after this many epochs that find no more drawn defects, or without a better held-out likelihood "
        "where nothing is judged",
    )
    add_batch_option(group, default.batch_size, "images per step")
    add_learning_rate_option(group, default.learning_rate, "at the start")
    add_seed_option(group)
    add_device_option(group)
    add(
        "--couplings",
        choices=COUPLINGS,
        default=default.couplings,
        help="additive makes the energies the exact likelihood; affine is as in the paper",
    )
    add_restart_option(group)
    add_overwrite_option(group)
    add_report_option(group, "about what was tried, with held-out images")


def _add_data(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--standardize",
        choices=STANDARDIZATION_CHOICES,
        default="auto",
        help="standardize features: whiten, or scale by position (aligned parts), or by channel (textures); "
        "auto takes what finds most defects drawn into held-out images",
    )
    add(
        "--hold-out",
        type=positive_float,
        default=HOLD_OUT,
        metavar="X",
        help="share of the images that is held out: they decide when training stops, and uflow-calibrate may use them, "
        "also if it is given all images",
    )
    add("--flip", choices=FLIPS, default="none", help="random flips; features are then not cached")
    add(
        "--crop",
        type=share,
        default=1.0,
        metavar="X",
        help="random crops to this share of each side, 1 for none; features are then not cached",
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


def run(arguments: argparse.Namespace) -> ExitCode:
    """Train as the command line asks."""
    for module in ("torch", "timm", "FrEIA", "psutil"):
        require(module, "train")
    from uflow_edge.runtime.images.decode import Reading, use
    from uflow_edge.training.train import Data, train

    use(Reading.of(arguments))

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
        arguments.batch,
        arguments.epochs,
        arguments.patience,
        arguments.seed,
        arguments.couplings,
    )
    try:
        architecture = Architecture.default(arguments.extractor, arguments.input_size, arguments.flow_steps)
        if arguments.pooling is not None:
            architecture = replace(architecture, pooling=arguments.pooling)
        architecture = with_scales(architecture, arguments.scales, arguments.window)
    except BadInput as error:
        options_in_question = "--extractor, --input-size, --flow-steps, --scales, --pooling or --window"
        raise UsageError(f"{options_in_question}: {error}") from error
    result = run_fit(
        lambda bar: train(
            data,
            architecture,
            options,
            arguments.out,
            device=arguments.device,
            restart=arguments.restart,
            overwrite=arguments.overwrite,
            alternatives=alternatives(architecture, arguments.scales, arguments.pooling, arguments.window),
            report=arguments.report,
            on_step=bar.update,
            on_epoch=bar.end_epoch,
        ),
        "fitting the flow",
        arguments.out,
        arguments.epochs,
    )
    if result is None:
        return ExitCode.INTERRUPTED
    best = result.best
    print(
        f"{arguments.out}: {counted(result.steps, 'step')}, best after {counted(best.epoch, 'epoch')} "
        f"(held-out {best.held_out:.4f}); {log_file(arguments.out)} has all epochs"
    )
    print(f"next: uflow-export --ckpt {arguments.out}")
    return ExitCode.OK


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``uflow-train``."""
    run_command(lambda: parser().parse_args(argv), run)


if __name__ == "__main__":
    main()

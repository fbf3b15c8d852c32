"""``uflow-train-unet``: train a small diffusion UNet on a folder of photographs."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from uflow_edge.runtime.cli.command_line import (
    add_reading_options,
    command_parser,
    natural_int,
    positive_float,
    positive_int,
    run_command,
)
from uflow_edge.runtime.cli.logs import print_beside_bar
from uflow_edge.runtime.errors import ExitCode, require
from uflow_edge.training.diffusion_options import DiffusionOptions
from uflow_edge.training.progress import FitBar, print_interrupted

_DEFAULT = "(default: %(default)s)"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = "uflow-train-unet"
    parser = command_parser(
        command,
        "Train a small diffusion UNet that purifies: it learns the least noisy steps of the schedule only. "
        "Ctrl-C saves everything; the same command goes on from there.",
        [f"{command} --data photographs/ --out unet", "uflow-export --unet unet"],
    )
    default = DiffusionOptions()
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folder of at least two photographs that have never been JPEG files",
    )
    add("--out", type=Path, required=True, metavar="FOLDER", help="the folder to write, in the format of diffusers")
    add(
        "--image-size",
        type=positive_int,
        default=default.image_size,
        metavar="N",
        help=f"side of the patches in pixels {_DEFAULT}",
    )
    add(
        "--channels",
        type=positive_int,
        nargs="+",
        default=default.channels,
        metavar="N",
        help="channels of each level, finest first (default: 32 32 64)",
    )
    add(
        "--blocks", type=positive_int, default=default.blocks, metavar="N", help=f"residual blocks per level {_DEFAULT}"
    )
    add(
        "--noisiest-step",
        type=positive_int,
        default=default.noisiest_step,
        metavar="N",
        help=f"noisiest of 1000 steps to learn; uflow-purify takes --steps up to this {_DEFAULT}",
    )
    add("--steps", type=positive_int, default=default.steps, metavar="N", help=f"training steps {_DEFAULT}")
    add("--batch-size", type=positive_int, default=default.batch_size, metavar="N", help=f"patches per step {_DEFAULT}")
    add(
        "--learning-rate",
        type=positive_float,
        default=default.learning_rate,
        metavar="X",
        help=f"largest learning rate {_DEFAULT}",
    )
    add(
        "--seed",
        type=natural_int,
        default=default.seed,
        metavar="N",
        help=f"of all random numbers; the same seed gives the same network {_DEFAULT}",
    )
    add_reading_options(parser)
    add("--restart", action="store_true", help="start again instead of continuing an interrupted run")
    add("--overwrite", action="store_true", help="replace an existing network")
    return parser


def run(arguments: argparse.Namespace) -> ExitCode:
    """Train as the command line asks."""
    for module in ("torch", "diffusers"):
        require(module, "train")
    from uflow_edge.runtime.images.decode import Reading, use
    from uflow_edge.training.diffusion import train_unet

    use(Reading.of(arguments), print)

    options = DiffusionOptions(
        image_size=arguments.image_size,
        channels=tuple(arguments.channels),
        blocks=arguments.blocks,
        noisiest_step=arguments.noisiest_step,
        learning_rate=arguments.learning_rate,
        batch_size=arguments.batch_size,
        steps=arguments.steps,
        seed=arguments.seed,
    )
    bar = FitBar("training the UNet")
    try:
        result = train_unet(
            arguments.data,
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
    print(f"{arguments.out}: {result.steps} steps, held-out loss {result.held_out[-1]:.4f} (predicting no noise: 1)")
    print(result.denoising)
    print(f"next: uflow-export --unet {arguments.out}")
    return ExitCode.OK


def _say(line: str) -> None:
    print_beside_bar(line, sys.stdout)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_command(lambda: parser().parse_args(argv), run)


if __name__ == "__main__":
    main()

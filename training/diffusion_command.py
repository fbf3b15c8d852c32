"""``uflow-train-unet``: train a small diffusion UNet on a folder of photographs."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from uflow_edge.runtime.cli.command_line import run_command
from uflow_edge.runtime.cli.options import (
    add_batch_option,
    add_device_option,
    add_learning_rate_option,
    add_overwrite_option,
    add_reading_options,
    add_restart_option,
    add_seed_option,
)
from uflow_edge.runtime.cli.parser import command_parser
from uflow_edge.runtime.cli.values import positive_int
from uflow_edge.runtime.errors import ExitCode, require
from uflow_edge.training.diffusion_options import DiffusionOptions
from uflow_edge.training.progress import run_fit


def parser() -> argparse.ArgumentParser:
    """The command line of ``uflow-train-unet``."""
    command = "uflow-train-unet"
    parser = command_parser(
        command,
        "Train a small diffusion UNet that purifies: it learns the least noisy steps of the schedule only. "
        "Ctrl-C saves everything; the same command continues from there.",
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
        "--image-size", type=positive_int, default=default.image_size, metavar="N", help="side of the patches in pixels"
    )
    add(
        "--channels",
        type=positive_int,
        nargs="+",
        default=list(default.channels),
        metavar="N",
        help="channels of each level, finest first",
    )
    add("--blocks", type=positive_int, default=default.blocks, metavar="N", help="residual blocks per level")
    add(
        "--noisiest-step",
        type=positive_int,
        default=default.noisiest_step,
        metavar="N",
        help="noisiest of 1000 steps to learn; uflow-purify takes --noise up to this",
    )
    add("--steps", type=positive_int, default=default.steps, metavar="N", help="training steps")
    add_batch_option(parser, default.batch_size, "patches per step")
    add_learning_rate_option(parser, default.learning_rate, "at its largest")
    add_seed_option(parser)
    add_device_option(parser)
    add_reading_options(parser)
    add_restart_option(parser)
    add_overwrite_option(parser)
    return parser


def run(arguments: argparse.Namespace) -> ExitCode:
    """Train as the command line asks."""
    for module in ("torch", "diffusers"):
        require(module, "train")
    from uflow_edge.runtime.images.decode import Reading, use
    from uflow_edge.training.diffusion import train_unet

    use(Reading.of(arguments))

    options = DiffusionOptions(
        image_size=arguments.image_size,
        channels=tuple(arguments.channels),
        blocks=arguments.blocks,
        noisiest_step=arguments.noisiest_step,
        learning_rate=arguments.learning_rate,
        batch_size=arguments.batch,
        steps=arguments.steps,
        seed=arguments.seed,
    )
    result = run_fit(
        lambda bar: train_unet(
            arguments.data,
            options,
            arguments.out,
            device=arguments.device,
            restart=arguments.restart,
            overwrite=arguments.overwrite,
            on_step=bar.update,
        ),
        "training the UNet",
        arguments.out,
    )
    if result is None:
        return ExitCode.INTERRUPTED
    print(f"{arguments.out}: {result.steps} steps, held-out loss {result.held_out[-1]:.4f} (predicting no noise: 1)")
    print(result.denoising)
    print(f"next: uflow-export --unet {arguments.out}")
    return ExitCode.OK


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_command(lambda: parser().parse_args(argv), run)


if __name__ == "__main__":
    main()

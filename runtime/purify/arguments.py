"""The command line of ``uflow-purify``."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from uflow_edge.runtime.cli.options import (
    add_batch_option,
    add_bundle_option,
    add_engine_options,
    add_images_option,
    add_jsonl_option,
    add_overlap_option,
    add_overwrite_option,
    add_reading_options,
    add_report_option,
    add_seed_option,
)
from uflow_edge.runtime.cli.parser import command_parser
from uflow_edge.runtime.cli.values import finite_float, positive_int
from uflow_edge.runtime.errors import UsageError

if TYPE_CHECKING:
    from uflow_edge.runtime.diffusion.options import PurifyOptions


def parser() -> argparse.ArgumentParser:
    """The command line of ``uflow-purify``."""
    parser = command_parser(
        "uflow-purify",
        "Remove the traces of cameras, compression and edits from images: add a little noise, and let a diffusion "
        "network remove it again. For testing forensic detectors and for preparing images for inspection; not for "
        "passing off an image as an original. The metadata of each result says what it is.",
        [
            "uflow-purify --images photos/ --out purified                     # the only *.uflow bundle in this folder",
            "uflow-purify --images photos/ --out purified --guide ssim --report purified.html",
            "uflow-purify --images large.png --out purified --sampler ddim --respacing 10    # four times faster",
        ],
    )
    _add_files(parser)
    _add_method(parser)
    _add_network(parser)
    return parser


def _add_files(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("files")
    add_images_option(group, required=True)
    group.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folder for the results: PNG files, named after the images",
    )
    add_overwrite_option(group, "needed for those made with other settings")
    group.add_argument(
        "--keep-metadata",
        action="store_true",
        help="copy the ICC profile and EXIF data, except rotation, thumbnail and maker's notes",
    )
    add_reading_options(group)
    add_report_option(group, "with numbers and images")
    add_jsonl_option(group)


def _add_method(parser: argparse.ArgumentParser) -> None:
    from uflow_edge.runtime.diffusion.options import DEFAULT_GUIDE_SCALES, GUIDANCES, SAMPLERS
    from uflow_edge.runtime.diffusion.patches import DEFAULT_OVERLAP, MOST_OVERLAP, PATCHINGS

    scales = ", ".join(f"{guide} {scale:g}" for guide, scale in DEFAULT_GUIDE_SCALES.items())
    group = parser.add_argument_group("method")
    group.add_argument(
        "--noise",
        type=positive_int,
        default=40,
        metavar="T",
        help="amount of noise, as a step of the network's schedule (default: 40 of 1000)",
    )
    group.add_argument(
        "--guide", choices=GUIDANCES, default="none", help="keep the result similar to the original by this measure"
    )
    group.add_argument(
        "--guide-scale", type=finite_float, metavar="X", help=f"strength of the guide (default: {scales})"
    )
    group.add_argument("--sampler", choices=SAMPLERS, default="ddpm", help="ddim draws no noise after the first step")
    group.add_argument(
        "--respacing", type=positive_int, metavar="N", help="runs of the network per patch (default: as --noise)"
    )
    group.add_argument(
        "--patching",
        choices=PATCHINGS,
        default="blend",
        help="blend overlapping patches, or cut hard seams as upstream does",
    )
    add_overlap_option(group, f"up to {MOST_OVERLAP}", DEFAULT_OVERLAP)
    add_seed_option(group)


def _add_network(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("network")
    add_bundle_option(group, default="the only bundle of a UNet in this folder")
    add_batch_option(group, 4, "patches per run of the network")
    add_engine_options(group, ("fp32", "fp16"))


def options_of(arguments: argparse.Namespace) -> "PurifyOptions":
    """How to purify.

    Raises:
        UsageError: options that contradict each other.
    """
    from uflow_edge.runtime.diffusion.options import PurifyOptions
    from uflow_edge.runtime.diffusion.patches import DEFAULT_OVERLAP

    if arguments.overlap is not None and arguments.patching == "upstream":
        raise UsageError("--overlap needs --patching blend: upstream's patches do not overlap")
    return PurifyOptions(
        steps=arguments.noise,
        guide=arguments.guide,
        guide_scale=arguments.guide_scale,
        sampler=arguments.sampler,
        respacing=arguments.respacing,
        patching=arguments.patching,
        overlap=DEFAULT_OVERLAP if arguments.overlap is None else arguments.overlap,
        batch=arguments.batch,
        seed=arguments.seed,
    )

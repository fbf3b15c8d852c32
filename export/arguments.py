"""The command line of ``uflow-export``, and what its arguments mean."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from uflow_edge.export.engines import arguments as engine_arguments
from uflow_edge.export.triton import arguments as triton_arguments
from uflow_edge.runtime.bundle.manifest import (
    DEFAULT_OPSET,
    EXPORTED_PRECISIONS,
    OPSETS,
    PRECISIONS,
    BatchRange,
    Precision,
)
from uflow_edge.runtime.cli.options import add_bundle_option, add_overwrite_option, given, require_option
from uflow_edge.runtime.cli.parser import command_parser
from uflow_edge.runtime.cli.values import positive_int
from uflow_edge.runtime.errors import BadInput, UsageError

if TYPE_CHECKING:
    from uflow_edge.export.bundle import ExportOptions
    from uflow_edge.export.unet.bundle import UNetExportOptions

_OF_NETWORKS = ("out", "overwrite", "opset", "allow_parity_loss")
_OF_UFLOWS = ("extractor", "fit", "block_nfa")


def parser() -> argparse.ArgumentParser:
    """The command line of ``uflow-export``."""
    parser = command_parser(
        "uflow-export",
        "Turn a U-Flow checkpoint, or a diffusion UNet, into a bundle: ONNX graphs, a manifest, and the proof that "
        "the graphs compute what the checkpoint does. With --trt, also build TensorRT engines from the graphs.",
        [
            "uflow-export --ckpt bottle.ckpt                           # writes ./bottle.uflow/",
            "uflow-export --ckpt bottle.ckpt --dry-run                 # shows what it would write, and writes nothing",
            "uflow-export --ckpt bottle.ckpt --trt                     # and builds engines for this GPU",
            "uflow-export --ckpt bottle.ckpt --trt --trt-target rtx    # or for other RTX GPUs; needs no GPU",
            "uflow-export --bundle bottle.uflow --trt                  # on a Jetson: needs no torch",
            "uflow-export --bundle bottle.uflow --triton models/       # a repository for Triton Inference Server",
            "uflow-export --unet 256x256_diffusion_uncond.pt --out unet.uflow   # for uflow-purify",
        ],
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--ckpt", type=Path, metavar="FILE", help="U-Flow checkpoint; the authors', anomalib's or ours")
    source.add_argument(
        "--unet",
        type=Path,
        metavar="PATH",
        help="diffusion UNet: a state dict of guided-diffusion, or a folder of diffusers",
    )
    add_bundle_option(source, "build engines (--trt) or a Triton repository (--triton) from its graphs", default="")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would be written, its size and the work; write nothing (not with --unet)",
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=PRECISIONS,
        metavar="P",
        help="precision of the computation; "
        f"of the graphs to write: {' and '.join(EXPORTED_PRECISIONS)} (default: both); "
        "with --trt, of the engines to build: int8 too if it is calibrated (default: fp16); "
        "with --triton, of the one graph to serve (default: the bundle's first)",
    )
    parser.add_argument(
        "--batch",
        type=_batch,
        metavar="N|MIN:OPT:MAX",
        help="batch size; a number is fixed in the graph, a range is for engines and for Triton "
        f"(default: graphs take any, engines {BatchRange()})",
    )
    _add_networks(parser)
    engine_arguments.add(parser)
    triton_arguments.add(parser)
    return parser


def _add_networks(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("bundle, with --ckpt or --unet")
    group.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="the bundle to write (default: <checkpoint's name>.uflow in this folder)",
    )
    add_overwrite_option(group, "a bundle, or a --triton repository")
    group.add_argument(
        "--opset",
        type=positive_int,
        metavar="N",
        help=f"ONNX opset, {OPSETS[0]} to {OPSETS[-1]} (default: {DEFAULT_OPSET})",
    )
    group.add_argument(
        "--allow-parity-loss", action="store_true", help="also write a graph that misses its error bound"
    )
    group.add_argument(
        "--unet-config",
        type=Path,
        metavar="FILE",
        help="with --unet: YAML file with the flags of guided-diffusion that the tensors do not show",
    )
    group = parser.add_argument_group("bundle, with --ckpt alone")
    group.add_argument(
        "--extractor",
        metavar="NAME",
        help="frozen backbone; a checkpoint with another one is refused (default: accept any)",
    )
    for removed in ("--good", "--false-alarm-rate"):
        group.add_argument(removed, nargs="+", help=argparse.SUPPRESS)
    group.add_argument(
        "--fit",
        choices=["squash", "crop"],
        help="how frames become square: squash them, or crop the centre (default: as the checkpoint says, else squash)",
    )
    group.add_argument(
        "--block-nfa",
        action="store_true",
        help="have the graphs count exceedances too, for --rule block; their outputs are twice as large",
    )
    group.add_argument(
        "--parity-images",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="compare graphs and checkpoint on up to 32 of these images; if the network whitens, its FP16 "
        "weights are rounded to suit them (default: those in the checkpoint, or seeded noise, and images beside it)",
    )


def check_option_combinations(arguments: argparse.Namespace) -> None:
    """Refuse options that would silently do nothing.

    Raises:
        UsageError: the message names them, and what they belong to.
    """
    if removed := given(arguments, "good", "false_alarm_rate"):
        if arguments.unet:
            raise UsageError(f"{', '.join(removed)}: not with --unet, whose network has no threshold")
        raise UsageError(
            f"{', '.join(removed)}: uflow-export no longer sets the threshold; export without it, then run: "
            "uflow-calibrate --bundle <bundle> --good <images> --max-false-alarms <rate>"
        )
    if arguments.bundle and not (arguments.trt or arguments.triton):
        raise UsageError("--bundle needs --trt or --triton: name what to build from the graphs of the bundle")
    fixed = [name for name in (*_OF_NETWORKS, *_OF_UFLOWS) if not (arguments.triton and name == "overwrite")]
    if arguments.bundle and (found := given(arguments, *fixed)):
        raise UsageError(f"{', '.join(found)}: only with --ckpt or --unet; the graphs of a bundle stay as they are")
    triton_arguments.check_option_combinations(arguments)
    if arguments.unet and (found := given(arguments, *_OF_UFLOWS, "dry_run")):
        raise UsageError(f"{', '.join(found)}: not with --unet")
    if not arguments.bundle and "int8" in (arguments.precision or ()):
        raise UsageError("int8 needs images of the line: export first, then run uflow-calibrate --int8 on the bundle")
    require_option(arguments, "unet", "unet_config")
    require_option(arguments, "trt", *engine_arguments.NAMES)


def engine_precisions(arguments: argparse.Namespace) -> tuple[Precision, ...]:
    """Of the engines to build."""
    return _ordered(arguments.precision or ["fp16"])


def _ordered(precisions: Sequence[str]) -> tuple[Precision, ...]:
    return tuple(precision for precision in PRECISIONS if precision in precisions)


def _opset(asked: int | None) -> int:
    """Checked before a minute is spent on the network."""
    if asked is not None and asked not in OPSETS:
        raise BadInput(f"opset {asked}: the exporter writes {OPSETS[0]} to {OPSETS[-1]}; try {DEFAULT_OPSET}")
    return asked or DEFAULT_OPSET


def export_options(arguments: argparse.Namespace) -> "ExportOptions":
    """Of a U-Flow."""
    from uflow_edge.export.bundle import ExportOptions

    return ExportOptions(
        precisions=_ordered(arguments.precision or EXPORTED_PRECISIONS),
        opset=_opset(arguments.opset),
        batch=arguments.batch.fixed if arguments.batch else None,
        fit=arguments.fit,
        extractor=arguments.extractor,
        block_nfa=arguments.block_nfa,
        parity_images=tuple(arguments.parity_images or ()),
        allow_parity_loss=arguments.allow_parity_loss,
    )


def unet_export_options(arguments: argparse.Namespace) -> "UNetExportOptions":
    """Of a diffusion UNet."""
    from uflow_edge.export.unet.bundle import UNetExportOptions

    return UNetExportOptions(
        precisions=_ordered(arguments.precision or EXPORTED_PRECISIONS),
        opset=_opset(arguments.opset),
        batch=arguments.batch.fixed if arguments.batch else None,
        parity_images=tuple(arguments.parity_images or ()),
        allow_parity_loss=arguments.allow_parity_loss,
    )


def _batch(text: str) -> BatchRange:
    try:
        return BatchRange.parse(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error

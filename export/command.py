"""``uflow-export``: turn a checkpoint into a bundle."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from uflow_edge.runtime.bundle import DEFAULT_OPSET, SUFFIX
from uflow_edge.runtime.command_line import command_parser, positive_int, run_command
from uflow_edge.runtime.errors import ExitCode, UsageError, require
from uflow_edge.runtime.operating_point import DEFAULT_FALSE_ALARM_RATE


def parser() -> argparse.ArgumentParser:
    """The command line of ``uflow-export``."""
    parser = command_parser(
        "uflow-export",
        "Turn a U-Flow checkpoint into a bundle: an ONNX graph, a manifest, and the proof that they agree with it.",
        [
            "uflow-export --ckpt bottle.ckpt                           # writes ./bottle.uflow/",
            "uflow-export --ckpt bottle.ckpt --good bottle/held_out/   # and takes the threshold from good images",
        ],
    )
    parser.add_argument(
        "--ckpt", type=Path, required=True, metavar="FILE", help="a U-Flow checkpoint, the authors' or ours"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="the bundle (default: <checkpoint's name>.uflow in the current folder)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle that is there")
    parser.add_argument(
        "--good",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="held-out good images, not trained on, to take the threshold from",
    )
    parser.add_argument(
        "--false-alarm-rate",
        type=float,
        metavar="X",
        help=f"with --good: share of good images that may be called anomalous (default: {DEFAULT_FALSE_ALARM_RATE})",
    )
    parser.add_argument(
        "--fit",
        choices=["squash", "crop"],
        default="squash",
        help="how frames that are not square become so (default: %(default)s)",
    )
    parser.add_argument(
        "--opset", type=positive_int, default=DEFAULT_OPSET, metavar="N", help="ONNX opset (default: %(default)s)"
    )
    return parser


def run(arguments: argparse.Namespace) -> ExitCode:
    """Export as the command line asks."""
    if arguments.false_alarm_rate is not None and not arguments.good:
        raise UsageError("--false-alarm-rate needs --good: it is a promise made from good images")
    for module in ("torch", "timm", "FrEIA", "onnx", "onnxscript"):
        require(module, "export")
    from uflow_edge.export.bundle import ExportOptions, GoodImages, export_bundle

    folder = arguments.out or Path(arguments.ckpt.stem + SUFFIX)
    options = ExportOptions(opset=arguments.opset, fit=arguments.fit)
    good = None
    if arguments.good:
        rate = DEFAULT_FALSE_ALARM_RATE if arguments.false_alarm_rate is None else arguments.false_alarm_rate
        good = GoodImages(tuple(arguments.good), rate)
    bundle, parity = export_bundle(
        arguments.ckpt,
        folder,
        options,
        good,
        overwrite=arguments.overwrite,
        report=lambda stage: print(f"{stage} …", flush=True),
    )
    point = bundle.manifest.operating_point
    print(parity)
    if point.false_alarm_rate is None:
        print("threshold: log-NFA 0, the a contrario one; --good takes it from good images of your line")
    else:
        promise = f"at most {point.false_alarm_rate:.1%} false alarms, from {point.good_images} good images"
        print(f"threshold: {point.threshold:.2f}, {promise}")
    print(f"wrote {folder}/; next: uflow-infer --bundle {folder} --images <folder>")
    return ExitCode.OK


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``uflow-export``."""
    arguments = parser().parse_args(argv)
    run_command(lambda: run(arguments))

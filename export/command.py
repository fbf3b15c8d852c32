"""``uflow-export``: turn a checkpoint into a bundle, and a bundle's graphs into TensorRT engines."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from uflow_edge.export import console
from uflow_edge.export.plan_options import ON_THE_JETSON, RTX_COMPUTE_CAPABILITIES, PlanOptions
from uflow_edge.runtime.bundle import SUFFIX, Bundle
from uflow_edge.runtime.command_line import command_parser, positive_int, run_command
from uflow_edge.runtime.engines import EngineFailed
from uflow_edge.runtime.errors import ExitCode, MissingDependency, UsageError, require
from uflow_edge.runtime.manifest import DEFAULT_OPSET, EXPORTED_PRECISIONS, PRECISIONS, BatchRange, Precision
from uflow_edge.runtime.operating_point import DEFAULT_FALSE_ALARM_RATE
from uflow_edge.runtime.uflow_manifest import UFlowManifest

if TYPE_CHECKING:
    from uflow_edge.export.bundle import ExportOptions, GoodImages
    from uflow_edge.export.plans import PlanResult

_OF_CHECKPOINTS = (
    "out", "overwrite", "extractor", "good", "false_alarm_rate", "fit", "opset", "allow_parity_loss",
)  # fmt: skip
_OF_ENGINES = ("trt_target", "workspace", "version_compatible", "refittable", "dla_core", "compute_capability")


def parser() -> argparse.ArgumentParser:
    """The command line of ``uflow-export``."""
    parser = command_parser(
        "uflow-export",
        "Turn a U-Flow checkpoint into a bundle: ONNX graphs, a manifest, and the proof that they compute what the\n"
        "checkpoint does. With --trt, turn the graphs into TensorRT engines too.",
        [
            "uflow-export --ckpt bottle.ckpt                           # writes ./bottle.uflow/",
            "uflow-export --ckpt bottle.ckpt --good bottle/held_out/   # and takes the threshold from good images",
            "uflow-export --ckpt bottle.ckpt --plan                    # says what it would write, and writes nothing",
            "uflow-export --ckpt bottle.ckpt --trt                     # and builds engines for the GPU here",
            "uflow-export --ckpt bottle.ckpt --trt --trt-target rtx    # or for the RTX GPUs of others; needs no GPU",
            "uflow-export --bundle bottle.uflow --trt                  # on a Jetson: needs no torch",
        ],
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--ckpt", type=Path, metavar="FILE", help="a U-Flow checkpoint: the authors', anomalib's or ours"
    )
    source.add_argument("--bundle", type=Path, metavar="FOLDER", help="a bundle to build engines for, with --trt")
    parser.add_argument(
        "--plan", action="store_true", help="say what would be built, how large and how much work; write nothing"
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=PRECISIONS,
        metavar="P",
        help=f"with --ckpt: of the graphs to write, {' and '.join(EXPORTED_PRECISIONS)} (default: both); "
        "with --bundle: of the engines to build, int8 too where it has been calibrated (default: fp16)",
    )
    parser.add_argument(
        "--batch",
        type=_batch,
        metavar="N|MIN:OPT:MAX",
        help="images a run: a number fixes the graph to it; a range is what engines are built for, the graph takes any "
        f"(default: any, and {BatchRange()} for engines)",
    )

    bundle = parser.add_argument_group("bundle, with --ckpt")
    bundle.add_argument(
        "--out", type=Path, metavar="FOLDER", help="the bundle (default: <checkpoint's name>.uflow in this folder)"
    )
    bundle.add_argument("--overwrite", action="store_true", help="replace a bundle that is there")
    bundle.add_argument(
        "--extractor", metavar="NAME", help="insist on this extractor (default: whichever the checkpoint has)"
    )
    bundle.add_argument(
        "--good",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="held-out good images, not trained on, to take the threshold from",
    )
    bundle.add_argument(
        "--false-alarm-rate",
        type=float,
        metavar="X",
        help=f"with --good: share of good images that may be called anomalous (default: {DEFAULT_FALSE_ALARM_RATE})",
    )
    bundle.add_argument(
        "--fit",
        choices=["squash", "crop"],
        help="how frames that are not square become so (default: as the checkpoint says, else squash)",
    )
    bundle.add_argument("--opset", type=positive_int, metavar="N", help=f"ONNX opset (default: {DEFAULT_OPSET})")
    bundle.add_argument(
        "--parity-images",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="images to compare graphs and checkpoint on (default: seeded noise, and images beside the checkpoint)",
    )
    bundle.add_argument(
        "--allow-parity-loss", action="store_true", help="also write a graph that misses its bound, and say so"
    )

    engines = parser.add_argument_group("engines, with --trt", ON_THE_JETSON)
    engines.add_argument("--trt", action="store_true", help="build TensorRT engines into the bundle")
    engines.add_argument(
        "--trt-target",
        choices=["local", "rtx"],
        help="local: TensorRT for the GPU of this machine; rtx: TensorRT-RTX for others, ahead of time, without a GPU "
        "(default: local)",
    )
    engines.add_argument(
        "--workspace",
        type=positive_int,
        metavar="MIB",
        help=f"scratch memory an engine may use (default: {PlanOptions().workspace_mebibytes})",
    )
    engines.add_argument(
        "--version-compatible", action="store_true", help="let the engine run in later versions of TensorRT"
    )
    engines.add_argument("--refittable", action="store_true", help="let weights be exchanged without a new build")
    engines.add_argument(
        "--dla-core", type=int, metavar="N", help="run on this deep learning accelerator, the GPU taking the rest"
    )
    engines.add_argument(
        "--compute-capability",
        nargs="+",
        metavar="X.Y",
        help=f"of the GPUs an rtx engine runs on (default: {' '.join(RTX_COMPUTE_CAPABILITIES)})",
    )
    return parser


def run(arguments: argparse.Namespace) -> ExitCode:
    """Export as the command line asks."""
    _refuse_what_does_not_belong(arguments)
    options = _plan_options(arguments)
    if arguments.trt and not arguments.plan:
        from uflow_edge.export.tensorrt_library import find_toolchain

        find_toolchain(options)  # before minutes are spent on graphs
    if arguments.ckpt:
        return _export(arguments, options)
    bundle = Bundle.load(arguments.bundle, UFlowManifest)
    precisions = _engine_precisions(arguments)
    if arguments.plan:
        console.print_planned_engines(bundle.manifest, precisions, options)
    else:
        _build_engines(bundle, precisions, options, arguments.parity_images or ())
    return ExitCode.OK


def _refuse_what_does_not_belong(arguments: argparse.Namespace) -> None:
    def given(names: Sequence[str]) -> str:
        return ", ".join(f"--{name.replace('_', '-')}" for name in names if getattr(arguments, name))

    if arguments.bundle and not arguments.trt:
        raise UsageError("--bundle needs --trt: a bundle's graphs are turned into engines")
    if arguments.bundle and given(_OF_CHECKPOINTS):
        raise UsageError(f"{given(_OF_CHECKPOINTS)}: only with --ckpt; the graphs of a bundle are as they are")
    if not arguments.trt and (given(_OF_ENGINES) or arguments.dla_core == 0):
        raise UsageError(f"{given(_OF_ENGINES) or '--dla-core'}: only with --trt")
    if arguments.false_alarm_rate is not None and not arguments.good:
        raise UsageError("--false-alarm-rate needs --good: it is a promise made from good images")


def _plan_options(arguments: argparse.Namespace) -> PlanOptions:
    usual = PlanOptions()
    return PlanOptions(
        target=arguments.trt_target or usual.target,
        batch=arguments.batch,
        workspace_mebibytes=arguments.workspace or usual.workspace_mebibytes,
        version_compatible=arguments.version_compatible,
        refittable=arguments.refittable,
        dla_core=arguments.dla_core,
        compute_capabilities=tuple(arguments.compute_capability or usual.compute_capabilities),
    )


def _engine_precisions(arguments: argparse.Namespace) -> tuple[Precision, ...]:
    return _ordered(arguments.precision or ["fp16"])


def _ordered(precisions: Sequence[str]) -> tuple[Precision, ...]:
    return tuple(precision for precision in PRECISIONS if precision in precisions)


def _export(arguments: argparse.Namespace, plan_options: PlanOptions) -> ExitCode:
    for module in ("torch", "timm", "FrEIA", "onnx", "onnxscript"):
        require(module, "export")
    from uflow_edge.export.bundle import export_bundle
    from uflow_edge.export.forecast import print_forecast

    if "int8" in (arguments.precision or ()):
        raise UsageError("int8 takes images of the line: export first, then uflow-calibrate --int8 on the bundle")
    folder = arguments.out or Path(arguments.ckpt.stem + SUFFIX)
    options = _export_options(arguments)
    if arguments.plan:
        print_forecast(arguments.ckpt, folder, options)
        if arguments.trt:
            console.print_new_engines(_engine_precisions(arguments), plan_options)
        return ExitCode.OK
    exported = export_bundle(
        arguments.ckpt,
        folder,
        options,
        _good_images(arguments),
        overwrite=arguments.overwrite,
        report=_print_stage,
    )
    console.print_variants(exported.variants)
    if arguments.trt:
        _build_engines(exported.bundle, _engine_precisions(arguments), plan_options, arguments.parity_images or ())
    console.print_threshold(exported.bundle.manifest.operating_point)
    print(f"wrote {folder}/; next: uflow-infer --bundle {folder} --images <folder>")
    return ExitCode.OK


def _export_options(arguments: argparse.Namespace) -> "ExportOptions":
    from uflow_edge.export.bundle import ExportOptions

    return ExportOptions(
        precisions=_ordered(arguments.precision or EXPORTED_PRECISIONS),
        opset=arguments.opset or DEFAULT_OPSET,
        batch=arguments.batch.fixed if arguments.batch else None,
        fit=arguments.fit,
        extractor=arguments.extractor,
        parity_images=tuple(arguments.parity_images or ()),
        allow_parity_loss=arguments.allow_parity_loss,
    )


def _good_images(arguments: argparse.Namespace) -> "GoodImages | None":
    from uflow_edge.export.bundle import GoodImages

    if not arguments.good:
        return None
    rate = DEFAULT_FALSE_ALARM_RATE if arguments.false_alarm_rate is None else arguments.false_alarm_rate
    return GoodImages(tuple(arguments.good), rate)


def _build_engines(
    bundle: Bundle[UFlowManifest], precisions: Sequence[Precision], options: PlanOptions, images: Sequence[Path] = ()
) -> None:
    from uflow_edge.export.plans import build_plans

    bundle, results = build_plans(bundle, precisions, options, _print_stage)
    console.print_plans(results)
    if options.target == "local":
        _check_engines(bundle, results, images)


def _check_engines(bundle: Bundle[UFlowManifest], results: "Sequence[PlanResult]", images: Sequence[Path]) -> None:
    from uflow_edge.export.plan_parity import check_plans

    try:
        _, parities = check_plans(bundle, [result.plan for result in results], images)
    except (MissingDependency, EngineFailed) as error:  # the engines are there all the same
        print(f"not compared with the graph: {error}")
    else:
        console.print_plan_parities(results, parities)


def _print_stage(stage: str) -> None:
    print(f"{stage} …", flush=True)


def _batch(text: str) -> BatchRange:
    try:
        return BatchRange.parse(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``uflow-export``."""
    arguments = parser().parse_args(argv)
    run_command(lambda: run(arguments))

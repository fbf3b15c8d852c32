"""``uflow-export``: turn a checkpoint into a bundle, and a bundle's graphs into engines or what Triton serves."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from uflow_edge.export import arguments as cli
from uflow_edge.export import tables
from uflow_edge.export.engines import arguments as engine_arguments
from uflow_edge.export.engines.plan_options import PlanOptions
from uflow_edge.export.triton import arguments as triton_arguments
from uflow_edge.export.triton.repository import write_repository
from uflow_edge.runtime.bundle.folder import MANIFEST, SUFFIX, Bundle
from uflow_edge.runtime.bundle.manifest import Manifest, Precision
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.cli.command_line import run_command
from uflow_edge.runtime.engines import EngineFailed
from uflow_edge.runtime.errors import ExitCode, MissingDependency, require
from uflow_edge.runtime.operating_point import LOG_NFA_0
from uflow_edge.runtime.storage.files import check_writable

if TYPE_CHECKING:
    from uflow_edge.export.engines.plans import PlanResult


def run(arguments: argparse.Namespace) -> ExitCode:
    """Export as the command line asks."""
    cli.check_option_combinations(arguments)
    options = engine_arguments.options(arguments)
    if arguments.trt and not arguments.dry_run:
        from uflow_edge.export.engines.toolchain import find_toolchain

        find_toolchain(options)  # before minutes are spent on graphs
    if arguments.ckpt:
        return _export(arguments, options)
    if arguments.unet:
        return _export_unet(arguments, options)
    if arguments.triton:
        return _write_triton(arguments)
    bundle = Bundle.load(arguments.bundle, Manifest)
    if not arguments.dry_run:
        check_writable(bundle.folder / MANIFEST)
    precisions = cli.engine_precisions(arguments)
    if arguments.dry_run:
        tables.print_planned_engines(bundle.manifest, precisions, options)
    else:
        _build_engines(bundle, precisions, options, arguments.parity_images or ())
    return ExitCode.OK


def _export(arguments: argparse.Namespace, plan_options: PlanOptions) -> ExitCode:
    for module in ("torch", "timm", "FrEIA", "onnx", "onnxscript"):
        require(module, "export")
    from uflow_edge.export.bundle import export_bundle
    from uflow_edge.export.dry_run import print_dry_run

    folder = arguments.out or Path(arguments.ckpt.stem + SUFFIX)
    options = cli.export_options(arguments)
    if arguments.dry_run:
        print_dry_run(arguments.ckpt, folder, options)
        if arguments.trt:
            tables.print_new_engines(cli.engine_precisions(arguments), plan_options)
        return ExitCode.OK
    exported = export_bundle(arguments.ckpt, folder, options, overwrite=arguments.overwrite)
    tables.print_variants(exported.variants)
    if arguments.trt:
        _build_engines(exported.bundle, cli.engine_precisions(arguments), plan_options, arguments.parity_images or ())
    tables.print_threshold(exported.bundle.manifest.operating_point)
    calibrated = exported.bundle.manifest.operating_point != LOG_NFA_0
    following = "uflow-infer" if calibrated else "uflow-calibrate"
    what = "--images" if calibrated else "--good"
    print(f"wrote {folder}/; next: {following} --bundle {folder} {what} <folder>")
    return ExitCode.OK


def _export_unet(arguments: argparse.Namespace, plan_options: PlanOptions) -> ExitCode:
    for module in ("torch", "diffusers", "onnx", "onnxscript"):
        require(module, "export")
    from uflow_edge.export.unet.bundle import export_unet_bundle

    folder = arguments.out or Path(arguments.unet.stem + SUFFIX)
    exported = export_unet_bundle(
        arguments.unet, folder, arguments.unet_config, cli.unet_export_options(arguments), overwrite=arguments.overwrite
    )
    tables.print_unet_variants(exported.variants)
    if arguments.trt:
        _build_engines(exported.bundle, cli.engine_precisions(arguments), plan_options, arguments.parity_images or ())
    print(f"wrote {folder}/; next: uflow-purify --bundle {folder} --images <folder> --out <folder>")
    return ExitCode.OK


def _write_triton(arguments: argparse.Namespace) -> ExitCode:
    bundle = Bundle.load(arguments.bundle, UFlowManifest)
    options = triton_arguments.options(arguments)
    ensemble = write_repository(bundle, arguments.triton, options, overwrite=arguments.overwrite)
    print(
        f"wrote {arguments.triton}/, which serves {ensemble}; next: tritonserver --model-repository {arguments.triton}"
    )
    return ExitCode.OK


def _build_engines(
    bundle: Bundle[Manifest], precisions: Sequence[Precision], options: PlanOptions, images: Sequence[Path] = ()
) -> None:
    from uflow_edge.export.engines.plans import build_plans

    bundle, results = build_plans(bundle, precisions, options)
    tables.print_plans(results)
    if options.target == "local":
        _check_engines(bundle, results, images)


def _check_engines(bundle: Bundle[Manifest], results: "Sequence[PlanResult]", images: Sequence[Path]) -> None:
    from uflow_edge.export.plan_parity import check_plans

    try:
        _, parities = check_plans(bundle, [result.plan for result in results], images)
    except (MissingDependency, EngineFailed) as error:  # the engines are there all the same
        print(f"not compared with the graph: {error}")
    else:
        tables.print_plan_parities(results, parities)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``uflow-export``."""
    run_command(lambda: cli.parser().parse_args(argv), run)


if __name__ == "__main__":
    main()

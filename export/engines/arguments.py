"""The part of ``uflow-export``'s command line that is about TensorRT engines."""

import argparse

from uflow_edge.export.engines.plan_options import ON_THE_JETSON, RTX_COMPUTE_CAPABILITIES, PlanOptions
from uflow_edge.runtime.cli.values import natural_int, positive_int

NAMES = ("trt_target", "workspace", "version_compatible", "refittable", "dla_core", "compute_capability")
"""The options that need ``--trt``."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("engines, with --trt", ON_THE_JETSON)
    group.add_argument("--trt", action="store_true", help="build TensorRT engines into the bundle")
    group.add_argument(
        "--trt-target",
        choices=["local", "rtx"],
        help="local: TensorRT for the GPU of this machine; rtx: TensorRT-RTX for others, ahead of time, without a GPU "
        "(default: local)",
    )
    group.add_argument(
        "--workspace",
        type=positive_int,
        metavar="MIB",
        help=f"scratch memory that an engine may use (default: {PlanOptions().workspace_mebibytes})",
    )
    group.add_argument(
        "--version-compatible", action="store_true", help="let the engine run in later versions of TensorRT"
    )
    group.add_argument("--refittable", action="store_true", help="let weights be replaced without a new build")
    group.add_argument(
        "--dla-core",
        type=natural_int,
        metavar="N",
        help="run on this deep learning accelerator; layers that it does not support run on the GPU",
    )
    group.add_argument(
        "--compute-capability",
        nargs="+",
        metavar="X.Y",
        help=f"compute capabilities that an rtx engine is built for (default: {' '.join(RTX_COMPUTE_CAPABILITIES)})",
    )


def options(arguments: argparse.Namespace) -> PlanOptions:
    """How to build the engines."""
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

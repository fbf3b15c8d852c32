"""The part of ``uflow-export``'s command line that is about Triton."""

import argparse
from pathlib import Path

from uflow_edge.export.triton.repository import ONLY_PLAN, TritonOptions
from uflow_edge.runtime.cli.options import require_option
from uflow_edge.runtime.errors import UsageError


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("model repository, with --bundle")
    group.add_argument(
        "--triton", type=Path, metavar="REPOSITORY", help="write a model repository for Triton Inference Server"
    )
    group.add_argument(
        "--triton-engine",
        nargs="?",
        const=ONLY_PLAN,
        metavar="FILE",
        help="serve this TensorRT engine of the bundle instead of a graph (default: the only one it has)",
    )


def check_option_combinations(arguments: argparse.Namespace) -> None:
    """Refuse options that would silently do nothing.

    Raises:
        UsageError: the message names them, and what they belong to.
    """
    require_option(arguments, "triton", "triton_engine")
    if not arguments.triton:
        return
    if not arguments.bundle:
        raise UsageError("--triton needs --bundle: export the checkpoint first")
    if arguments.trt or arguments.dry_run:
        raise UsageError(
            "--triton: not with --trt or --dry-run; build an engine first, then serve it with --triton-engine"
        )
    if arguments.parity_images:
        raise UsageError("--parity-images: not with --triton, which compares nothing")
    if len(arguments.precision or ()) > 1:
        raise UsageError("--triton serves one graph: name one --precision")


def options(arguments: argparse.Namespace) -> TritonOptions:
    """How to write the repository."""
    (precision,) = arguments.precision or [None]
    return TritonOptions(precision, arguments.triton_engine, arguments.batch)

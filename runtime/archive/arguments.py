"""``--ray`` and the options that belong to it, the same for every command that can work on a cluster."""

import argparse

from uflow_edge.runtime.archive.cluster import ClusterOptions
from uflow_edge.runtime.cli.options import require_option
from uflow_edge.runtime.cli.values import finite_float, positive_int


def add_ray_options(parser: argparse.ArgumentParser) -> "argparse._ArgumentGroup":
    """Add ``--ray`` and its options; returns their group, to which a command adds where results go."""
    group = parser.add_argument_group("archives on a Ray cluster")
    group.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="work on a cluster: local starts one on this machine, auto or HOST:PORT joins one; the same command "
        "continues a run that was stopped (docs/scale-out.md)",
    )
    group.add_argument(
        "--ray-workers",
        type=positive_int,
        metavar="N",
        help="number of workers, each with an engine of --threads (default: one per core)",
    )
    group.add_argument("--ray-retry", action="store_true", help="repeat the shards in which an image could not be read")
    group.add_argument(
        "--ray-gpus", type=finite_float, metavar="X", help="GPUs per worker, such as 0.5 (default: none)"
    )
    return group


def cluster_options(arguments: argparse.Namespace) -> ClusterOptions:
    """The cluster that ``--ray`` names.

    Raises:
        UsageError: an impossible number or address.
    """
    return ClusterOptions(arguments.ray, arguments.ray_workers, arguments.threads or 1, arguments.ray_gpus or 0.0)


def check_ray_options(arguments: argparse.Namespace, *results: str) -> None:
    """Refuse options that would silently do nothing without ``--ray``; ``results`` are those of the command.

    Raises:
        UsageError: one of them is given.
    """
    require_option(arguments, "ray", "ray_workers", "ray_retry", "ray_gpus", *results)

"""``--ray`` and what belongs to it, the same for every command that can work on a cluster."""

import argparse

from uflow_edge.runtime.archive.cluster import ClusterOptions
from uflow_edge.runtime.cli.command_line import finite_float, positive_int
from uflow_edge.runtime.errors import UsageError


def add_ray_options(parser: argparse.ArgumentParser) -> "argparse._ArgumentGroup":
    """Add ``--ray`` and the options that every command has with it; returns their group, for where results go."""
    group = parser.add_argument_group("archives, on a Ray cluster")
    group.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="work on a cluster: local starts one on this machine, auto or HOST:PORT joins one; the same command goes "
        "on where it was stopped (docs/scale-out.md)",
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
    """What ``--ray …`` asks for.

    Raises:
        UsageError: it cannot be meant.
    """
    return ClusterOptions(arguments.ray, arguments.ray_workers, arguments.threads or 1, arguments.ray_gpus or 0.0)


def refuse_without_ray(arguments: argparse.Namespace, *names: str) -> None:
    """Options that would silently do nothing without ``--ray``.

    Raises:
        UsageError: one of them is given.
    """
    for name in ("ray_workers", "ray_retry", "ray_gpus", *names):
        if getattr(arguments, name) and not arguments.ray:
            raise UsageError(f"--{name.replace('_', '-')} needs --ray")

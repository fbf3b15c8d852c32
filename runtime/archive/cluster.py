"""The Ray cluster that an archive is worked through on: this machine's cores for a while, or one that is joined."""

import logging
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from uflow_edge.runtime.errors import MissingDependency, UsageError, require

LOCAL = "local"
EXTRA = "ray"
_PATIENCE = 10.0  # seconds
_OBJECT_STORE = 100 << 20  # bytes; only numbers of shards pass through it


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Which cluster, and what of it is used.

    Attributes:
        address: ``local`` starts one in this process, for as long as it is needed; ``auto``, ``HOST:PORT`` join one.
        workers: processes that hold an engine; None: as many as the cluster has room for.
        cores: a worker computes on, and reserves.
        gpus: a worker reserves; several may share one.

    Raises:
        UsageError: on construction, for numbers that cannot be meant, or an address of Ray Client.
    """

    address: str = LOCAL
    workers: int | None = None
    cores: int = 1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if (self.workers is not None and self.workers < 1) or self.cores < 1 or self.gpus < 0:
            raise UsageError(f"{self}: expected 1 worker or more, each with 1 core or more")
        if self.address.startswith("ray://"):
            raise UsageError(
                f"--ray {self.address}: not through Ray Client, for this command needs images and results itself. Run "
                "it on a machine of the cluster with --ray auto, or hand it in there with: ray job submit"
            )


@contextmanager
def connected(options: ClusterOptions) -> Iterator[int]:
    """A connection to the cluster; yields the number of workers to use, and leaves it at the end.

    A program that is connected already, as a job that was handed in is, stays so.

    Raises:
        MissingDependency: Ray is not installed, or no cluster of its version answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # what a line inspects is nobody else's business
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # a thread of Ray Data's may outlive the connection
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray warns of what Ray Data itself does
    ray = require("ray", EXTRA)
    require("ray.data", EXTRA)
    require("pyarrow", EXTRA)
    if ray.is_initialized():
        yield _workers(options)
        return
    with _quiet():
        _connect(options)
    try:
        yield _workers(options)
    finally:
        ray.shutdown()


def _connect(options: ClusterOptions) -> None:
    ray = require("ray", EXTRA)
    own = options.address == LOCAL
    asked = {"num_cpus": options.workers * options.cores} if own and options.workers else {}
    size = {"object_store_memory": _OBJECT_STORE, "include_dashboard": False} if own else {}
    try:
        _knock(options.address)
        ray.init(options.address, logging_level=logging.ERROR, log_to_driver=False, **asked, **size)
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise MissingDependency(
            f"--ray {options.address}: no Ray cluster can be joined there ({reason}). Start one with ray start --head, "
            f"or name --ray {LOCAL}"
        ) from error


def _knock(address: str) -> None:
    """Raises OSError where nobody listens at HOST:PORT, which takes Ray itself minutes; ValueError where it is none."""
    host, _, port = address.rpartition(":")
    if host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()


def _workers(options: ClusterOptions) -> int:
    """As many as asked for, or as there is room for."""
    if options.workers is not None:
        return options.workers
    there = require("ray", EXTRA).cluster_resources()
    room = there.get("CPU", 0) // options.cores
    if options.gpus:
        room = min(room, there.get("GPU", 0) // options.gpus)
    return max(int(room), 1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what Ray tells of its own settings, some of which its compiled part writes past Python."""
    sys.stderr.flush()
    with Path(os.devnull).open("w") as nowhere, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stderr = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)

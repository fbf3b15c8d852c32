"""The Ray cluster for a run over an archive: a temporary one on this machine, or an existing one."""

import logging
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from uflow_edge.runtime.errors import Unavailable, UsageError, require

LOCAL = "local"
EXTRA = "ray"
_TIMEOUT_S = 10.0
_OBJECT_STORE = 100 << 20  # bytes; it only holds shard numbers and summaries


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """The cluster, and the share of it to use.

    Attributes:
        address: ``local`` starts a cluster on this machine; ``auto`` or ``HOST:PORT`` joins an existing one.
        workers: number of workers, each a process with an engine; None for as many as fit.
        gpus: GPUs per worker; a fraction lets workers share one.

    Raises:
        UsageError: on construction, if a number is out of range or the address is one of Ray Client.
    """

    address: str = LOCAL
    workers: int | None = None
    cores: int = 1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if (self.workers is not None and self.workers < 1) or self.cores < 1 or self.gpus < 0:
            raise UsageError(f"{self}: expected at least 1 worker, 1 core and 0 GPUs")
        if self.address.startswith("ray://"):
            raise UsageError(
                f"--ray {self.address}: Ray Client is not supported, because this command needs direct access to "
                "images and results. Run it on a machine of the cluster with --ray auto, or submit it with: ray job "
                "submit"
            )


@contextmanager
def connected(options: ClusterOptions) -> Iterator[int]:
    """Connect to the cluster; yields the number of workers, and disconnects at the end.

    A program that is connected already, such as a submitted job, stays connected.

    Raises:
        MissingDependency: Ray is not installed.
        Unavailable: there is no cluster at the address, or its version of Ray differs.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage statistics
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # a thread of Ray Data may outlive the connection
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # silence warnings that Ray Data triggers itself
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
    cores = {"num_cpus": options.workers * options.cores} if own and options.workers else {}
    size = {"object_store_memory": _OBJECT_STORE, "include_dashboard": False} if own else {}
    try:
        _check_reachable(options.address)
        ray.init(options.address, logging_level=logging.ERROR, log_to_driver=False, **cores, **size)
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise Unavailable(
            f"--ray {options.address}: cannot join a Ray cluster there ({reason}). Start one with ray start --head, "
            f"or use --ray {LOCAL}"
        ) from error


def _check_reachable(address: str) -> None:
    """Fail within seconds if nobody listens at HOST:PORT; Ray itself needs minutes. Raises OSError or ValueError."""
    host, _, port = address.rpartition(":")
    if host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT_S).close()


def _workers(options: ClusterOptions) -> int:
    if options.workers is not None:
        return options.workers
    resources = require("ray", EXTRA).cluster_resources()
    fitting = resources.get("CPU", 0) // options.cores
    if options.gpus:
        fitting = min(fitting, resources.get("GPU", 0) // options.gpus)
    return max(int(fitting), 1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Ray's messages about its own settings, including those of its compiled part."""
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

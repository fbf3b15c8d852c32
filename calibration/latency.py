"""Measures how long each graph of a bundle takes on this machine, for the report's table of costs."""

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from functools import partial
from typing import TypeVar

import numpy as np

from uflow_edge.export.graphs.parity import engines_here
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest

_ROUNDS = 15

K = TypeVar("K")


def latencies_ms(bundle: Bundle[UFlowManifest]) -> Mapping[tuple[str, str], float]:
    """Median milliseconds per image, by graph file and engine name.

    onnxruntime runs all graphs of the bundle, and so does OpenVINO where it is installed.
    """
    picture = np.full(bundle.manifest.signature.inputs[0].zeros(1).shape, 127, np.uint8)
    with ExitStack() as stack:
        runs: dict[tuple[str, str], Callable[[], float]] = {}
        for variant in bundle.manifest.variants:
            for make in engines_here(bundle.path(variant), bundle.manifest, variant):
                engine = stack.enter_context(closing(make()))
                runs[variant.file, engine.name] = partial(seconds, partial(engine.run, picture))
        return {key: statistics.median(times) for key, times in interleaved_ms(runs, _ROUNDS).items()}


def interleaved_ms(contenders: Mapping[K, Callable[[], float]], rounds: int) -> dict[K, list[float]]:
    """Milliseconds of contenders that take turns in every round, so that all meet the same disturbances.

    Args:
        contenders: by name; each returns the seconds that it took.
        rounds: how often each is called, after one round to warm up.
    """
    milliseconds: dict[K, list[float]] = {name: [] for name in contenders}
    for call in contenders.values():
        call()
    for _ in range(rounds):
        for name, call in contenders.items():
            milliseconds[name].append(1e3 * call())
    return milliseconds


def seconds(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds that a call takes by a clock."""
    start = clock()
    call()
    return clock() - start

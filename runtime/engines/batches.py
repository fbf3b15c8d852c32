"""Run any number of samples through an engine with a limited batch size."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.bundle.manifest import BatchRange, Variant
from uflow_edge.runtime.engines import Outputs
from uflow_edge.runtime.numeric import FloatMap

MOST_AT_ONCE = 8
"""Samples per run where a graph takes any number. A sample needs 1 to 16 MB during a run, and a frame may be cut into
a thousand tiles. Larger batches make no engine faster on a CPU."""


def batch_of(variant: Variant) -> BatchRange | None:
    """Batch sizes that a graph takes; None if it takes any."""
    return None if variant.batch is None else BatchRange(variant.batch, variant.batch, variant.batch)


def run_in_batches(
    inputs: Sequence[NDArray[Any]],
    batch: BatchRange | None,
    run: Callable[[Sequence[NDArray[Any]]], Sequence[FloatMap]],
) -> Outputs:
    """Run a graph on N ≥ 1 samples.

    Args:
        inputs: (N, …) each.
        batch: samples per run; the last run is padded to the minimum. None: up to `MOST_AT_ONCE`.
        run: takes n samples of every input and returns the outputs, (n, …) each.

    Returns:
        The outputs of the N samples.
    """
    total = len(inputs[0])
    smallest, largest = (1, MOST_AT_ONCE) if batch is None else (batch.minimum, batch.maximum)
    runs = []
    for start in range(0, total, largest):
        parts = [values[start : start + largest] for values in inputs]
        filling = max(smallest - len(parts[0]), 0)
        if filling:
            parts = [np.concatenate([part, np.repeat(part[-1:], filling, axis=0)]) for part in parts]
        runs.append(run(parts))
    outputs = runs[0] if len(runs) == 1 else [np.concatenate(found) for found in zip(*runs, strict=True)]
    return tuple(output[:total] for output in outputs)

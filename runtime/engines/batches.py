"""Any number of samples through an engine that takes only some."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.bundle.manifest import BatchRange, Variant
from uflow_edge.runtime.engines import Outputs
from uflow_edge.runtime.numeric import FloatMap

MOST_AT_ONCE = 8
"""Samples a run where a graph takes any number: each takes 1 to 16 MB while it is computed, and a frame may have a
thousand parts. More at once make no engine faster on a CPU."""


def batch_of(variant: Variant) -> BatchRange | None:
    """Samples a run that a graph takes: the one number it is fixed to, or any (None)."""
    return None if variant.batch is None else BatchRange(variant.batch, variant.batch, variant.batch)


def run_in_batches(
    inputs: Sequence[NDArray[Any]],
    batch: BatchRange | None,
    run: Callable[[Sequence[NDArray[Any]]], Sequence[FloatMap]],
) -> Outputs:
    """Run a graph on as many samples as there are, at least one.

    Args:
        inputs: (N, …) each.
        batch: how many a run; the last run is filled up to the minimum. None: any number, up to `MOST_AT_ONCE`.
        run: n samples of every input to the outputs, (n, …) each.

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

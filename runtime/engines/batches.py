"""Any number of images through an engine that takes only some."""

from collections.abc import Callable, Sequence

import numpy as np

from uflow_edge.runtime.bundle import BatchRange, Variant
from uflow_edge.runtime.engines import LatentStatistics
from uflow_edge.runtime.numeric import FloatMap, Image


def batch_of(variant: Variant) -> BatchRange | None:
    """Images a run that a graph takes: the one number it is fixed to, or any (None)."""
    return None if variant.batch is None else BatchRange(variant.batch, variant.batch, variant.batch)


def run_in_batches(
    images: Image, batch: BatchRange | None, run: Callable[[Image], Sequence[FloatMap]]
) -> LatentStatistics:
    """Run a graph on as many images as there are, at least one.

    Args:
        images: (N, S, S, 3) uint8.
        batch: how many a run; the last run is filled up to the minimum. None: all at once.
        run: (n, S, S, 3) uint8 to energies, then exceedances, each (n, H_i, W_i) float32.

    Returns:
        Statistics of the N images.
    """
    smallest, largest = (1, len(images)) if batch is None else (batch.minimum, batch.maximum)
    runs = []
    for start in range(0, len(images), largest):
        part = images[start : start + largest]
        filling = max(smallest - len(part), 0)
        runs.append(run(np.concatenate([part, np.repeat(part[-1:], filling, axis=0)]) if filling else part))
    outputs = list(runs[0]) if len(runs) == 1 else [np.concatenate(parts) for parts in zip(*runs, strict=True)]
    return split([output[: len(images)] for output in outputs])


def split(outputs: Sequence[FloatMap]) -> LatentStatistics:
    """Energies, then exceedances, as all graphs have them."""
    scales = len(outputs) // 2
    return LatentStatistics(tuple(outputs[:scales]), tuple(outputs[scales:]))

"""Any number of images through an engine that takes only some."""

from collections.abc import Callable, Sequence

import numpy as np

from uflow_edge.runtime.engines import LatentStatistics
from uflow_edge.runtime.numeric import FloatMap, Image


def run_in_batches(images: Image, batch: int | None, run: Callable[[Image], Sequence[FloatMap]]) -> LatentStatistics:
    """Run a graph on as many images as there are.

    Args:
        images: (N, S, S, 3) uint8.
        batch: how many the graph is fixed to; the last run is then filled up. None: all at once.
        run: (batch, S, S, 3) uint8 to energies, then exceedances, each (batch, H_i, W_i) float32.

    Returns:
        Statistics of the N images.
    """
    if batch is None or batch == len(images):
        outputs = list(run(images))
    else:
        filling = -len(images) % batch
        filled = np.concatenate([images, np.repeat(images[-1:], filling, axis=0)]) if filling else images
        runs = [run(filled[start : start + batch]) for start in range(0, len(filled), batch)]
        outputs = [np.concatenate(parts)[: len(images)] for parts in zip(*runs, strict=True)]
    scales = len(outputs) // 2
    return LatentStatistics(tuple(outputs[:scales]), tuple(outputs[scales:]))

"""Features of the frozen extractor, computed once, so that later only the flow takes time.

All features here are as the backbone gives them: the extractor's ``prepare`` and ``standardize`` follow.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import gettempdir
from typing import Protocol

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from uflow_edge.export.network.uflow import EnergyGraph
from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.images.files import read_image
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.resize.cpu import model_input
from uflow_edge.runtime.storage.files import scratch_folder
from uflow_edge.training.options import Augmentation, CacheChoice

_BATCH = 8
_MEMORY_SHARE = 0.3
"""Share of the free memory that features may take; larger caches go to disk."""


class Features(Protocol):
    """Features of a fixed list of images."""

    def __len__(self) -> int:
        """Number of images."""

    def batch(self, indices: NDArray[np.intp], epoch: int) -> tuple[Tensor, ...]:
        """Features of some images, (N, C_i, H_i, W_i) per tap, finest first, in host memory.

        The epoch decides the augmentation.
        """


def extract(graph: EnergyGraph, images: Sequence[Image]) -> tuple[Tensor, ...]:
    """Run the frozen extractor on images of the model's input size, (S, S, 3) uint8 RGB.

    Returns:
        Features in host memory, whatever device the graph is on.
    """
    pictures = torch.from_numpy(np.stack(images)).to(graph.scale.device)
    with torch.inference_mode():
        return tuple(feature.cpu() for feature in graph.network.feature_extractor.tapped(graph.normalized(pictures)))


class CachedFeatures:
    """The features of all images, in memory, or on disk if memory is short.

    Use it as a context manager, which removes the temporary folder of a cache on disk.
    """

    def __init__(
        self,
        graph: EnergyGraph,
        images: Sequence[Path | Image],
        *,
        where: CacheChoice = "auto",
        folder: Path | None = None,
    ) -> None:
        architecture = graph.network.architecture
        shapes = [(len(images), scale.channels, scale.side, scale.side) for scale in architecture.tapped]
        self.bytes = sum(4 * int(np.prod(shape)) for shape in shapes)
        if where == "auto":
            where = "memory" if self.bytes <= _MEMORY_SHARE * psutil.virtual_memory().available else "disk"
        self.where: CacheChoice = where
        self._stack = ExitStack()
        self._folder: Path | None = None
        if where == "disk":
            self._folder = self._stack.enter_context(scratch_folder(folder or Path(gettempdir())))
        try:
            self._maps = [self._allocate(i, shape) for i, shape in enumerate(shapes)]
            self._fill(graph, images)
        except BaseException:
            self._stack.close()
            raise

    def _fill(self, graph: EnergyGraph, images: Sequence[Path | Image]) -> None:
        starts = range(0, len(images), _BATCH)
        for start in progress(starts, "extracting features", unit="batch"):
            read = [read_image(one) if isinstance(one, Path) else one for one in images[start : start + _BATCH]]
            batch = [model_input(image, graph.network.architecture.input_size) for image in read]
            for cached, feature in zip(self._maps, extract(graph, batch), strict=True):
                cached[start : start + len(batch)] = feature.numpy()

    def _allocate(self, scale: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        if self._folder is None:
            return np.empty(shape, np.float32)
        return np.lib.format.open_memmap(self._folder / f"scale{scale}.npy", mode="w+", dtype=np.float32, shape=shape)

    def __len__(self) -> int:
        return len(self._maps[0])

    def batch(self, indices: NDArray[np.intp], epoch: int = 0) -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(cached[indices]) for cached in self._maps)

    def __enter__(self) -> "CachedFeatures":
        return self

    def __exit__(self, *_: object) -> None:
        self._maps.clear()
        self._stack.close()


class AugmentedFeatures:
    """Features of augmented images, computed again in every epoch."""

    def __init__(self, graph: EnergyGraph, paths: Sequence[Path], augmentation: Augmentation, seed: int) -> None:
        self._graph = graph
        self._paths = paths
        self._augmentation = augmentation
        self._seed = seed

    def __len__(self) -> int:
        return len(self._paths)

    def batch(self, indices: NDArray[np.intp], epoch: int) -> tuple[Tensor, ...]:
        """Features of some augmented images; seed, epoch and image decide the augmentation."""
        side = self._graph.network.architecture.input_size
        images = []
        for index in indices:
            random = np.random.default_rng((self._seed, epoch, int(index)))
            images.append(model_input(self._augmentation.apply(read_image(self._paths[index]), random), side))
        return tuple(feature.clone() for feature in extract(self._graph, images))

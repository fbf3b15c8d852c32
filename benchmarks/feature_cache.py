"""What caching the features saves: an epoch of the flow on cached features against one that recomputes them.

``python -m uflow_edge.benchmarks.feature_cache``
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from skimage import data

from uflow_edge.benchmarks.timing import interleaved_medians
from uflow_edge.export.architecture import Architecture
from uflow_edge.export.network import EnergyGraph
from uflow_edge.runtime.nfa.block import DEFAULT_PROBABILITY
from uflow_edge.training.features import AugmentedFeatures, CachedFeatures, Features
from uflow_edge.training.fit import fit_flow
from uflow_edge.training.options import Augmentation, TrainingOptions
from uflow_edge.training.train import seeded_network

IMAGES = 32
ROUNDS = 3


def main() -> None:
    """Print both times and their ratio."""
    architecture = Architecture.default("efficientnet_lite0")
    graph = EnergyGraph(seeded_network(architecture, 0), DEFAULT_PROBABILITY).eval()
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        random = np.random.default_rng(0)
        paths = []
        for i in range(IMAGES):
            y, x = random.integers(0, 512 - 300, 2)
            paths.append(folder / f"{i:03d}.png")
            Image.fromarray(data.brick()[y : y + 300, x : x + 300]).save(paths[-1])
        with CachedFeatures(graph, paths) as cached, CachedFeatures(graph, paths[:2]) as held_out:

            def epoch(features: Features) -> None:
                options = TrainingOptions(epochs=1)
                network = seeded_network(architecture, 0)
                fit_flow(network, features, held_out, options, resume_file=folder / "x.resume", run={})

            recomputed = AugmentedFeatures(graph, paths, Augmentation(), seed=0)
            contenders = {"cached": lambda: epoch(cached), "recomputed": lambda: epoch(recomputed)}
            medians = interleaved_medians(contenders, ROUNDS)
    print(f"one epoch of the flow on {IMAGES} images, efficientnet_lite0 at 256, median of {ROUNDS}")
    for name, milliseconds in medians.items():
        print(f"  features {name:12} {milliseconds / 1e3:7.2f} s")
    print(f"  ratio                 {medians['recomputed'] / medians['cached']:7.2f}")


if __name__ == "__main__":
    main()

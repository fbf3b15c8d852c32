"""Time of the tree score, from energy maps to score map: ``python -m uflow_edge.benchmarks.studies.tree_nfa``."""

from collections.abc import Callable
from functools import partial

import numpy as np

from uflow_edge.benchmarks.studies.timing import interleaved_medians
from uflow_edge.runtime.nfa import tree_score
from uflow_edge.runtime.nfa.tree import TREE_RULES
from uflow_edge.runtime.numeric import FloatMap

SHAPES = {
    "28² + 14²  (mcait at 448)": ((28, 816), (14, 192)),
    "64² + 32² + 16²  (resnet18 at 256)": ((64, 84), (32, 80), (16, 128)),
    "112² + 56² + 28²  (resnet18 at 448)": ((112, 84), (56, 80), (28, 128)),
}
TARGET = (256, 256)
ROUNDS = 200


def planted_energies(scales: tuple[tuple[int, int], ...], seed: int = 0) -> list[FloatMap]:
    """Energies of latents that follow the null model, but for a disc of twice the energy in the middle."""
    random = np.random.default_rng(seed)
    maps = []
    for side, channels in scales:
        energy = random.chisquare(channels, (side, side)).astype(np.float32)
        y, x = np.mgrid[:side, :side] / side - 0.5
        maps.append(np.where(x**2 + y**2 < 0.01, 2 * energy, energy))
    return maps


def main() -> None:
    """Print a table of medians."""
    print(f"tree score, energy maps in, {TARGET[0]}x{TARGET[1]} score map out; median of {ROUNDS} rounds, in ms\n")
    print(f"{'maps':38}" + "".join(f"{rule:>12}" for rule in TREE_RULES))
    for name, scales in SHAPES.items():
        energies, channels = planted_energies(scales), [c for _, c in scales]
        contenders: dict[str, Callable[[], object]] = {
            rule: partial(tree_score, energies, channels, TARGET, rule=rule) for rule in TREE_RULES
        }
        medians = interleaved_medians(contenders, ROUNDS)
        print(f"{name:38}" + "".join(f"{medians[rule]:12.2f}" for rule in TREE_RULES))


if __name__ == "__main__":
    main()

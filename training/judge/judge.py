"""How well a scorer tells good images from the same images with a defect drawn into them: a judge of candidates.

Held-out likelihood says how well a model describes good features, not what it finds: flows raise it by correlations
of neighbouring pixels that say nothing about defects (Kirichenko, Izmailov, Wilson, "Why normalizing flows fail to
detect out-of-distribution data", 2020).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uflow_edge.runtime.numeric import Image
from uflow_edge.training.evaluation.ranking import Ranking
from uflow_edge.training.judge.pseudo_defects import KINDS, draw

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Drawn:
    """A good image with a defect drawn into it.

    Attributes:
        image: (H, W, 3) uint8.
        mask: (H, W), where the defect is.
    """

    image: Image
    mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a scorer finds.

    Attributes:
        aurocs: of the drawn images of each kind against all good ones.
    """

    aurocs: Mapping[str, float]

    @property
    def found(self) -> float:
        """The mean over kinds, by which candidates are compared."""
        return float(np.mean(list(self.aurocs.values())))


def drawn_images(images: Sequence[Image], seed: int) -> dict[str, list[Drawn]]:
    """Every kind of pseudo-defect in every image, by the kind's name; the same seed draws the same.

    Args:
        images: good ones, (H, W, 3) uint8 each, at least two; textures are taken from the next ones.
    """
    drawn: dict[str, list[Drawn]] = {}
    for number, (name, kind) in enumerate(KINDS.items()):
        drawn[name] = [
            Drawn(*draw(kind, image, images[i - 1], np.random.default_rng((seed, number, i))))
            for i, image in enumerate(images)
        ]
    return drawn


def judge(score: Callable[[T], ArrayLike], good: T, drawn: Mapping[str, T]) -> Judgement:
    """Score good images and, for each kind, the same images with a defect.

    Args:
        score: images, or whatever stands for them such as their features, to one score each; higher is more anomalous.
    """
    of_good = np.asarray(score(good))
    aurocs = {}
    for kind, images in drawn.items():
        of_drawn = np.asarray(score(images))
        is_drawn = np.repeat([False, True], [len(of_good), len(of_drawn)])
        aurocs[kind] = Ranking.of(np.concatenate([of_good, of_drawn]), is_drawn).auroc
    return Judgement(aurocs)

"""Pseudo-defects and the judge that draws them."""

import numpy as np
import pytest

from uflow_edge.runtime.numeric import Image
from uflow_edge.training.judge.judge import Judgement, drawn_images, judge
from uflow_edge.training.judge.pseudo_defects import KINDS, draw


def surface(seed: int, side: int = 96) -> Image:
    """A good image: a gradient with grain."""
    random = np.random.default_rng(seed)
    grey = np.linspace(60, 180, side)[:, np.newaxis] + random.normal(0, 6, (side, side))
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[:, :, np.newaxis], 3, axis=2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_changes_the_image_in_its_mask_and_nowhere_far_from_it(kind: str) -> None:
    image = surface(0)
    for seed in range(10):
        defective, mask = draw(KINDS[kind], image, surface(1, 80), np.random.default_rng(seed))
        assert (defective.dtype, defective.shape, mask.shape) == (np.uint8, image.shape, (96, 96))
        assert 0 < mask.mean() < 0.6
        changed = (defective != image).any(axis=2)
        assert changed[mask].mean() > 0.1
        assert changed.mean() < 0.8


def test_sizes_and_contrasts_differ() -> None:
    image = surface(0)
    drawn = [draw(KINDS["stain"], image, image, np.random.default_rng(seed)) for seed in range(40)]
    areas = [mask.mean() for _, mask in drawn]
    contrasts = [np.abs(picture.astype(float) - image)[mask].mean() for picture, mask in drawn]
    assert max(areas) > 5 * min(areas)
    assert max(contrasts) > 4 * min(contrasts)


def test_the_same_seed_draws_the_same_and_another_seed_something_else() -> None:
    images = [surface(seed) for seed in range(2)]
    first, again, other = (drawn_images(images, seed) for seed in (0, 0, 1))
    for kind in KINDS:
        for one, same, different in zip(first[kind], again[kind], other[kind], strict=True):
            assert np.array_equal(one.image, same.image)
            assert np.array_equal(one.mask, same.mask)
            assert not np.array_equal(one.mask, different.mask)


def test_a_scorer_that_sees_differences_is_judged_better_than_a_blind_one() -> None:
    images = [surface(seed) for seed in range(6)]
    drawn = {kind: [one.image for one in all_of_it] for kind, all_of_it in drawn_images(images, seed=0).items()}
    expected = np.mean(images, axis=0)

    def largest_difference(some: list[Image]) -> list[float]:
        return [float(np.abs(image - expected).max()) for image in some]

    seeing = judge(largest_difference, images, drawn)
    blind = judge(lambda some: [0.0] * len(some), images, drawn)
    assert set(seeing.aurocs) == set(KINDS)
    assert seeing.found > 0.7
    assert blind.found == 0.5


def test_kinds_count_alike() -> None:
    assert Judgement({"scratch": 1.0, "stain": 0.5}).found == 0.75

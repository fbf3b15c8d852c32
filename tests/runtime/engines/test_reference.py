"""The pictures that a bundle carries: photographs are told from the noise that stands in for them."""

import numpy as np

from uflow_edge.runtime.engines.reference import StoredReference, noise_images
from uflow_edge.runtime.inspection import LatentStatistics


def test_photographs_are_told_from_noise() -> None:
    photograph = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    noise = noise_images(32)
    empty = LatentStatistics((), ())
    mixed = StoredReference((noise[3], photograph, noise[0]), (empty,) * 3)
    (found,) = mixed.photographs_bgr()
    np.testing.assert_array_equal(found, photograph[:, :, ::-1])
    assert StoredReference(tuple(noise[:3]), (empty,) * 3).photographs_bgr() == []

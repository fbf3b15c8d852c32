"""Drawn defects are where their masks say, and only there."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uflow_edge.benchmarks.studies.texture_defects import KINDS, write_category
from uflow_edge.benchmarks.studies.texture_picture import SIDE
from uflow_edge.training.evaluation.ground_truth import labelled_images, read_truth


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_every_defect_covers_some_of_the_picture(kind: Callable, seed: int) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    defect, layer = kind(frame, frame, np.random.default_rng(seed))
    assert defect.shape == frame.shape and defect.dtype == np.uint8
    assert layer.shape == (SIDE, SIDE) and layer.min() >= 0 and layer.max() <= 1
    assert 20 <= np.count_nonzero(layer >= 0.5) <= SIDE * SIDE // 6


def test_a_written_category_can_be_evaluated(tmp_path) -> None:
    photograph = np.random.default_rng(0).integers(0, 256, (512, 512), np.uint8)
    write_category(tmp_path, photograph)
    images = labelled_images(tmp_path)
    assert sum(image.is_good for image in images) == 30 and len(images) == 90
    assert all(read_truth(image, (SIDE, SIDE)).any() != image.is_good for image in images)

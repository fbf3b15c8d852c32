"""Images in the batches that a graph takes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from uflow_edge.runtime.bundle.manifest import BatchRange
from uflow_edge.runtime.engines.batches import MOST_AT_ONCE, run_in_batches


@given(st.integers(1, 20), st.integers(1, 6), st.integers(0, 5))
def test_any_number_of_images_goes_through_any_batch(count, minimum, more) -> None:
    batch = BatchRange(minimum, minimum, minimum + more)
    images = np.arange(count * 12).reshape(count, 2, 2, 3).astype(np.uint8)
    steps = np.arange(count, dtype=np.float32)
    sizes = []

    def run(parts: list[np.ndarray]) -> list[np.ndarray]:
        pictures, numbers = parts
        sizes.append(len(pictures))
        return [pictures.sum(axis=3).astype(np.float32), -numbers]

    summed, negative = run_in_batches([images, steps], batch, run)
    assert all(batch.minimum <= size <= batch.maximum for size in sizes)
    assert len(sizes) == -(-count // batch.maximum)
    expected = images.sum(axis=3).astype(np.float32)
    np.testing.assert_array_equal(summed, expected)
    np.testing.assert_array_equal(negative, -steps)
    sizes.clear()
    np.testing.assert_array_equal(run_in_batches([images, steps], None, run)[0], expected)
    assert max(sizes) <= MOST_AT_ONCE

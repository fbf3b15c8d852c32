"""Kept measurements: known by content, whole or not at all."""

from pathlib import Path

import numpy as np
import pytest

from uflow_edge.calibration.int8.cache import Measurement, cache_file, cached
from uflow_edge.calibration.int8.ranges import BINS, Magnitudes

pytestmark = pytest.mark.long

PICTURES = [np.full((4, 4, 3), i, np.uint8) for i in range(3)]
FOUND = {"layer.0/out": Magnitudes(np.array([1.0, 2.0]), np.arange(BINS))}


def once() -> Measurement:
    return FOUND


def never() -> Measurement:
    raise AssertionError("measured again")


def test_what_is_kept_is_not_measured_again(tmp_path: Path) -> None:
    path = cache_file(tmp_path / "new", "graph", "ranges", PICTURES)
    cached(path, once)
    found = cached(path, never)
    assert found.keys() == FOUND.keys()
    np.testing.assert_array_equal(found["layer.0/out"].by_channel, [1.0, 2.0])
    np.testing.assert_array_equal(found["layer.0/out"].counts, np.arange(BINS))


def test_order_does_not_matter_but_content_does(tmp_path: Path) -> None:
    path = cache_file(tmp_path, "graph", "ranges", PICTURES)
    assert cache_file(tmp_path, "graph", "ranges", PICTURES[::-1]) == path
    others = [
        cache_file(tmp_path, "another", "ranges", PICTURES),
        cache_file(tmp_path, "graph", "other ranges", PICTURES),
        cache_file(tmp_path, "graph", "ranges", PICTURES[1:]),
        cache_file(tmp_path, "graph", "ranges", [PICTURES[0] + 9, *PICTURES[1:]]),
    ]
    assert len({path, *others}) == 5


@pytest.mark.parametrize("damage", ["truncated", "empty", "something else"])
def test_a_damaged_file_is_measured_again(tmp_path: Path, damage: str) -> None:
    path = cache_file(tmp_path, "graph", "ranges", PICTURES)
    cached(path, once)
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "something else": b"text"}[damage])
    assert cached(path, once) is FOUND
    assert path.read_bytes() == content or cached(path, never)


def test_a_failed_measurement_leaves_nothing(tmp_path: Path) -> None:
    path = cache_file(tmp_path, "graph", "ranges", PICTURES)
    with pytest.raises(AssertionError):
        cached(path, never)
    assert list(tmp_path.iterdir()) == []

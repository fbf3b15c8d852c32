"""Regions of interest and tiles: all of it is covered, and what is found is where it is."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.engines import Outputs
from uflow_edge.runtime.errors import BadInput, UsageError
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.views import ViewOptions, parse_region, stitch

SIDE = 64


@pytest.fixture(scope="module")
def manifest(exported):
    from uflow_edge.runtime.bundle.folder import Bundle

    return Bundle.load(exported, UFlowManifest).manifest


class BrightEngine:
    """Latents are calm, but where the picture is white: there each scale's energy is forty times the mean."""

    name = "bright"
    precision = "fp32"

    def __init__(self, manifest) -> None:
        self.manifest = manifest
        self.batches: list[int] = []

    def run(self, images: np.ndarray) -> Outputs:
        self.batches.append(len(images))
        energies = []
        for scale in self.manifest.scales:
            blocks = images[..., 0].reshape(len(images), scale.height, scale.stride, scale.width, scale.stride)
            white = blocks.mean(axis=(2, 4)) > 200
            energies.append(np.where(white, 40 * scale.channels, scale.channels).astype(np.float32))
        return (*energies, *(np.zeros_like(energy) for energy in energies))

    def close(self) -> None:
        pass


def frame_with_square(height: int, width: int, y: int, x: int, side: int) -> np.ndarray:
    frame = np.zeros((height, width, 3), np.uint8)
    frame[y : y + side, x : x + side] = 255
    return frame


@given(
    height=st.integers(1, 500),
    width=st.integers(1, 500),
    tile=st.integers(30, 200),
    overlap=st.sampled_from([0, 0.25, 0.5]),
)
def test_tiles_cover_the_frame_and_overlap(height: int, width: int, tile: int, overlap: float) -> None:
    boxes = ViewOptions(tile=tile, overlap=overlap).boxes((height, width), "squash")
    covered = np.zeros((height, width), np.int32)
    for left, top, right, bottom in boxes:
        assert (right - left, bottom - top) == (min(tile, width), min(tile, height))
        covered[top:bottom, left:right] += 1
    assert covered.min() >= 1
    starts = sorted({left for left, *_ in boxes})
    assert all(b - a <= math.ceil(tile * (1 - overlap)) for a, b in pairwise(starts))


def test_a_frame_is_not_cut_to_crumbs() -> None:
    with pytest.raises(BadInput, match="cuts the frame into 1875 parts, more than 1024"):
        ViewOptions(tile=16, overlap=0).boxes((400, 1200), "squash")


def test_regions_are_fitted_each_on_its_own() -> None:
    regions = ((0, 0, 40, 20), (10, 10, 30, 40))
    assert ViewOptions(regions).boxes((50, 60), "squash") == regions
    assert ViewOptions(regions).boxes((50, 60), "crop") == ((10, 0, 30, 20), (10, 15, 30, 35))
    with pytest.raises(BadInput, match=r"region of interest 10,10,20,30 reaches beyond the frame of 60 x 39 pixels"):
        ViewOptions(regions).boxes((39, 60), "squash")


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "", "1,2,3,4,5", "1.5,0,3,3"])
def test_what_is_no_region(text: str) -> None:
    with pytest.raises(UsageError, match="expected X,Y,WIDTH,HEIGHT"):
        parse_region(text)


@pytest.mark.parametrize(
    "choices", [{"regions": ((5, 5, 5, 9),)}, {"regions": ((-1, 0, 5, 9),)}, {"overlap": 1.0}, {"tile": 0}], ids=str
)
def test_what_cannot_be_looked_at(choices) -> None:
    with pytest.raises(UsageError):
        ViewOptions(**choices)


def test_region_text_and_box() -> None:
    assert parse_region("3,4,10,20") == (3, 4, 13, 24)


def test_a_defect_is_found_where_it_is_in_a_large_frame(manifest) -> None:
    engine = BrightEngine(manifest)
    inspector = Inspector(manifest, engine, ViewOptions(tile=128))
    frame = frame_with_square(300, 500, 200, 390, 48)
    inspection = inspector.examine(frame)
    assert engine.batches == [3 * 5]
    assert inspection.box == (0, 0, 500, 300)
    assert inspection.score.shape == (150, 250)  # 64 pixels of the model for 128 of the frame
    verdict = inspection.verdict
    (region,) = verdict.regions
    assert verdict.anomalous
    assert (region.x, region.y) == (pytest.approx(390, abs=20), pytest.approx(200, abs=20))
    assert verdict.mask[200:248, 390:438].mean() > 0.95
    assert verdict.mask.sum() < 2.5 * 48 * 48
    assert [energy.shape for energy in inspection.energies] == [(19, 31), (9, 16)]


def test_the_number_of_tests_grows_with_the_parts(manifest) -> None:
    """The same part of the frame, alone and as one of two: its NFA doubles."""
    frame = frame_with_square(64, 128, 16, 16, 24)
    alone = Inspector(manifest, BrightEngine(manifest), ViewOptions(((0, 0, 64, 64),))).inspect(frame)
    of_two = Inspector(manifest, BrightEngine(manifest), ViewOptions(((0, 0, 64, 64), (64, 0, 128, 64)))).inspect(frame)
    assert of_two.score == pytest.approx(alone.score - math.log10(2), abs=1e-3)


def test_nothing_outside_a_region_is_judged(manifest) -> None:
    frame = frame_with_square(128, 128, 0, 0, 40)
    inside = ViewOptions(((64, 64, 128, 128),))
    assert not Inspector(manifest, BrightEngine(manifest), inside).inspect(frame).anomalous
    both = ViewOptions(((0, 0, 64, 64), (64, 64, 128, 128)))
    verdict = Inspector(manifest, BrightEngine(manifest), both).inspect(frame)
    assert verdict.anomalous
    assert not verdict.mask[:64, 64:].any()
    assert not verdict.mask[64:, :64].any()


def test_a_single_map_is_not_touched() -> None:
    one = np.arange(12, dtype=np.float32).reshape(3, 4)
    found, box = stitch([one], [(5, 6, 50, 60)], outside=0)
    assert found is one
    assert box == (5, 6, 50, 60)


def test_the_larger_value_wins_where_maps_overlap() -> None:
    low, high = np.full((4, 4), 1, np.float32), np.full((4, 4), 2, np.float32)
    found, box = stitch([low, high], [(0, 0, 40, 40), (20, 0, 60, 40)], outside=-math.inf)
    assert box == (0, 0, 60, 40)
    np.testing.assert_array_equal(found, np.array([[1, 1, 2, 2, 2, 2]] * 4, np.float32))

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uflow_edge.runtime.diffusion.patches import PATCHINGS, Layout, cut
from uflow_edge.runtime.errors import UsageError


def there_and_back(picture: np.ndarray, layout: Layout) -> np.ndarray:
    patches = cut(layout.padded(picture), layout.corners, layout.patch)
    assert patches.shape == (len(layout.corners), len(picture), layout.patch, layout.patch)
    return layout.stitched(zip(layout.corners, patches, strict=True), len(picture))


@pytest.mark.parametrize("case", ["ragged", "exact"])
def test_upstreams_patches_in_upstreams_order(arrays, case: str) -> None:
    theirs = {name.removeprefix(f"{case}_"): array for name, array in arrays("patches").items()}
    picture = theirs["image"][0]
    layout = Layout.of(picture.shape[1:], 16, "upstream")
    padded = layout.padded(picture)
    assert padded.shape[1:] == tuple(theirs["padded_shape"])
    np.testing.assert_array_equal(cut(padded, layout.corners, 16), theirs["patches"])
    np.testing.assert_array_equal(there_and_back(picture, layout), theirs["restored"][0])


@settings(deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    patch=st.integers(1, 40),
    overlap=st.floats(0, 0.75),
    patching=st.sampled_from(PATCHINGS),
)
def test_cut_and_stitched_a_picture_is_what_it_was(height, width, patch, overlap, patching) -> None:
    picture = np.random.default_rng(height).uniform(-1, 1, (2, height, width)).astype(np.float32)
    layout = Layout.of((height, width), patch, patching, overlap)
    np.testing.assert_allclose(there_and_back(picture, layout), picture, atol=1e-6)


@settings(deadline=None)
@given(extent=st.integers(1, 3000), patch=st.integers(4, 300), overlap=st.floats(0, 0.75))
def test_patches_cover_evenly_and_never_reach_beyond(extent: int, patch: int, overlap: float) -> None:
    starts = np.array(Layout.of((extent, 1), patch, "blend", overlap).tops)
    assert starts[0] == 0
    assert starts[-1] == max(extent - patch, 0)
    gaps = np.diff(starts)
    assert (gaps <= np.floor(patch * (1 - overlap))).all()
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1
    # One patch less could not keep the overlap.
    assert gaps.size == 0 or (gaps.size - 1) * np.floor(patch * (1 - overlap)) < extent - patch


@pytest.mark.parametrize(
    ("size", "overlap", "count"),
    [((256, 256), 0.25, 1), ((256, 512), 0.0, 2), ((256, 512), 0.25, 3), ((10, 300), 0.25, 2), ((1024, 1024), 0, 16)],
)
def test_no_patch_is_wasted(size, overlap: float, count: int) -> None:
    assert len(Layout.of(size, 256, "blend", overlap).corners) == count


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (5, 3), (37, 64)])
def test_small_pictures_are_continued_by_their_mirror_image(size) -> None:
    picture = np.random.default_rng(0).uniform(0.5, 1, (3, *size)).astype(np.float32)
    layout = Layout.of(size, 64, "blend")
    padded = layout.padded(picture)
    assert padded.shape == (3, 64, 64)
    assert padded.min() >= 0.5  # no grey, no black
    np.testing.assert_array_equal(padded[:, : size[0], : size[1]], picture)


def test_a_step_between_patches_becomes_a_ramp() -> None:
    layout = Layout.of((64, 112), 64, "blend", 0.25)
    ones = np.ones((1, 64, 64), np.float32)
    stitched = layout.stitched([(layout.corners[0], 0 * ones), (layout.corners[1], ones)], 1)
    assert np.abs(np.diff(stitched[0, 0])).max() < 0.1
    assert np.diff(stitched[0, 0]).min() >= -1e-6
    hard = Layout.of((64, 112), 64, "upstream")
    steps = [(corner, float(corner == (0, 64)) * ones) for corner in hard.corners]
    assert np.abs(np.diff(hard.stitched(steps, 1)[0, 0])).max() == 1


@pytest.mark.parametrize("overlap", [-0.1, 0.8, float("nan")])
def test_an_overlap_that_cannot_be_meant_is_refused(overlap: float) -> None:
    with pytest.raises(UsageError, match="overlap"):
        Layout.of((64, 64), 64, "blend", overlap)

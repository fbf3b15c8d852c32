"""Pictures of verdicts: readable, marked as ours, within their quota."""

import os

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factories import result
from sink_processes import CHANNELS, names
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.sinks.overlays import OverlayFolder, is_ours


@pytest.mark.parametrize(("picture_format", "suffix"), [("png", ".png"), ("jpeg", ".jpg")])
def test_pictures_can_be_read_and_are_marked_as_ours(tmp_path, picture_format, suffix: str) -> None:
    sink = OverlayFolder(tmp_path / "seen", CHANNELS, picture_format=picture_format)
    sink.put(*result(0, 7.5, name="belt/part"))
    path = tmp_path / "seen" / "belt" / f"part{suffix}"
    assert names(tmp_path / "seen") == [f"belt/part{suffix}"]
    assert cv2.imread(str(path)).shape == (84, 400, 3)
    assert is_ours(path)
    plain = tmp_path / f"photo{suffix}"
    cv2.imwrite(str(plain), cv2.imread(str(path)))
    assert not is_ours(plain)


def test_png_is_exact(tmp_path) -> None:
    from uflow_edge.runtime.overlay import draw_overlay

    frame, inspection = result(5, 7.5)
    OverlayFolder(tmp_path, CHANNELS).put(frame, inspection)
    saved = cv2.imread(str(tmp_path / "frame-000005.png"))
    np.testing.assert_array_equal(saved, draw_overlay(frame.image_bgr, inspection, CHANNELS))


def test_only_anomalies(tmp_path) -> None:
    sink = OverlayFolder(tmp_path, CHANNELS, anomalies_only=True)
    for index in range(4):
        frame, inspection = result(index, 7.5 if index == 2 else -3.25)
        assert (sink.needed(frame, inspection) is not None) == (index == 2)
        sink.put(frame, inspection)
    assert names(tmp_path) == ["frame-000002.png"]


def test_never_two_frames_under_one_name(tmp_path) -> None:
    for index in range(3):  # three runs
        sink = OverlayFolder(tmp_path, CHANNELS)
        sink.put(*result(index, name="part"))
    sink.put(*result(3, name="part"))
    assert names(tmp_path) == ["part-2.png", "part-3.png", "part-4.png", "part.png"]


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 6), st.lists(st.booleans(), min_size=1, max_size=12))
def test_the_quota_holds_and_the_newest_stay(tmp_path_factory, pictures: int, restarts: list[bool]) -> None:
    folder = tmp_path_factory.mktemp("seen")
    (folder / "photo.png").write_bytes(b"somebody else's")
    trial = tmp_path_factory.mktemp("trial")
    OverlayFolder(trial, CHANNELS).put(*result(0))
    size = (trial / "frame-000000.png").stat().st_size
    quota = size * pictures + size // 2  # noise compresses alike: so many pictures fit
    sink = OverlayFolder(folder, CHANNELS, quota=quota)
    for index, restart in enumerate(restarts):
        if restart:
            sink = OverlayFolder(folder, CHANNELS, quota=quota)
        sink.put(*result(index))
        os.utime(folder / f"frame-{index:06d}.png", ns=(index, index))  # a clock without ties
        ours = [path for path in folder.iterdir() if path.name != "photo.png"]
        assert sum(path.stat().st_size for path in ours) <= quota
        newest = range(max(0, index + 1 - pictures), index + 1)
        assert sorted(path.name for path in ours) == [f"frame-{i:06d}.png" for i in newest]
    assert (folder / "photo.png").read_bytes() == b"somebody else's"


def test_pictures_that_others_delete_do_not_disturb_the_quota(tmp_path) -> None:
    sink = OverlayFolder(tmp_path, CHANNELS, quota=200_000)
    for index in range(2):
        sink.put(*result(index))
    (tmp_path / "frame-000000.png").unlink()
    for index in range(2, 12):
        sink.put(*result(index))
    assert "frame-000011.png" in names(tmp_path)


def test_a_quota_below_one_picture_is_a_mistake(tmp_path) -> None:
    with pytest.raises(BadInput, match="exceeds the quota of 100: raise the quota"):
        OverlayFolder(tmp_path, CHANNELS, quota=100).put(*result(0))
    assert names(tmp_path) == []


def test_what_an_overlay_folder_cannot_be(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        OverlayFolder(tmp_path / "file", CHANNELS)

"""Pictures of the live page: what they show, which are kept, and for whom they are drawn."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from live_page import CHANNELS, Line, decoded, httpx, shown
from uflow_edge.runtime.heat import colour_bar_png
from uflow_edge.runtime.page import LivePage
from uflow_edge.runtime.page import pictures as drawing
from uflow_edge.runtime.page.state import GALLERY
from waiting import wait_until


def test_the_picture_shows_frame_heat_and_outline() -> None:
    good, bad = (decoded(drawing.render_picture(*shown(score=score), CHANNELS)) for score in (-3.0, 9.0))
    assert good.shape == bad.shape == (480, 640, 3)
    assert np.abs(good.astype(int) - 90).max() <= 3
    assert np.abs(bad[:80].astype(int) - 90).max() <= 3  # far from the defect: the frame as it is
    assert (bad > 230).all(axis=2).any()  # the outline
    assert np.ptp(bad[240, 320].astype(int)) > 30  # inside it is coloured


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_pictures_keep_within_bounds(height: int, width: int) -> None:
    scaled = drawing.scaled((height, width), 640, 1280)
    assert 640 <= max(scaled) <= 1280
    assert min(scaled) >= 1


def test_anomalies_are_kept_newest_first_and_bounded(page: LivePage, http: httpx.Client) -> None:
    for i in range(GALLERY + 3):
        page.keep(pending_result(page, i), drawing.AnomalyPictures(b"large %d" % i, b"small %d" % i))
    listed = http.get("/api/anomalies").json()
    assert [anomaly["frame"] for anomaly in listed] == list(range(GALLERY + 2, 2, -1))
    newest = listed[0]
    assert http.get(f"/api/anomalies/{newest['id']}.jpg").content == b"large %d" % (GALLERY + 2)
    assert http.get(f"/api/anomalies/{newest['id']}/small.jpg").content == b"small %d" % (GALLERY + 2)
    assert http.get("/api/anomalies/1.jpg").status_code == 404
    assert http.get("/api/anomalies/elephant.jpg").status_code == 422


def pending_result(page: LivePage, index: int):
    page.put(*shown(index, score=9.0))
    result = page.next_pending()
    assert result is not None
    return result


def test_an_anomaly_gets_its_picture_though_nobody_watches(page: LivePage, http: httpx.Client) -> None:
    page.put(*shown(0))
    page.put(*shown(1, score=9.0))
    wait_until(lambda: bool(page.anomalies()))
    (anomaly,) = http.get("/api/anomalies").json()
    assert (anomaly["frame"], anomaly["score"], anomaly["threshold"], anomaly["regions"]) == (1, 9.0, 0.0, 1)
    picture = http.get(f"/api/anomalies/{anomaly['id']}.jpg")
    assert picture.headers["content-type"] == "image/jpeg"
    assert decoded(picture.content).shape == (480, 640, 3)
    assert decoded(http.get(f"/api/anomalies/{anomaly['id']}/small.jpg").content).shape == (180, 240, 3)


def test_a_file_whose_name_is_no_utf_8_is_shown(page: LivePage, http: httpx.Client) -> None:
    frame, inspection = shown(1, score=9.0)
    verdict = replace(inspection.verdict, source="caf\udce9.png")
    page.put(replace(frame, source=verdict.source), replace(inspection, verdict=verdict))
    wait_until(lambda: bool(page.anomalies()))
    (anomaly,) = http.get("/api/anomalies").json()
    (camera,) = http.get("/api/status").json()["cameras"]
    assert anomaly["source"] == camera["last"]["source"] == "caf\\udce9.png"


def test_a_flood_of_anomalies_keeps_few_frames_and_says_so(line: Line) -> None:
    page = LivePage(CHANNELS, line.controls())
    for i in range(100):
        page.put(*shown(i, score=9.0))
    waiting = []
    while (result := page.next_pending()) is not None:
        waiting.append(result.frame.index)
    assert waiting == list(range(92, 100))
    assert page.status().gallery.skipped == 92


def test_a_single_picture_for_other_screens(page: LivePage, http: httpx.Client) -> None:
    assert http.get("/api/picture.jpg").status_code == 404
    page.put(*shown())
    assert decoded(http.get("/api/picture.jpg").content).shape == (480, 640, 3)
    assert http.get("/api/picture.jpg", params={"camera": "elsewhere"}).status_code == 404


def test_the_colour_scale_is_the_one_of_the_pictures(http: httpx.Client) -> None:
    answer = http.get("/api/colours.png")
    assert (answer.headers["content-type"], answer.content) == ("image/png", colour_bar_png())

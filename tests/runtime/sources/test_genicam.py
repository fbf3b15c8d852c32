"""GenICam: the package genicam comes with a GenTL producer that plays a game instead of filming."""

import itertools
import signal
import threading
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from extras import extra
from factories import failing
from uflow_edge.runtime.errors import MissingDependency, Unavailable, UsageError
from uflow_edge.runtime.sources import CameraOptions, parse_camera
from waiting import NEVER


@pytest.fixture
def producers(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the standard's variable names."""
    extra("harvesters.core")
    genicam = extra("genicam")
    folder = Path(genicam.__file__).parent
    if not list(folder.glob("*.cti")):
        pytest.skip("this genicam comes without a producer")
    monkeypatch.setenv("GENICAM_GENTL64_PATH", f"/absent:{folder}")
    return folder


def test_a_genicam_camera_by_serial_number(producers: Path, logged: list[str]) -> None:
    on_interrupt = signal.getsignal(signal.SIGINT)
    options = CameraOptions(width=200, height=120, fps=20, pixel_format="Mono8", exposure_us=100)
    source = parse_camera("genicam:1", options)
    assert source.name == "camera genicam:1"
    for first in (0, 100):  # it is given back, so it can be had again
        before = time.time()
        with closing(source.frames(NEVER, first)) as frames:
            some = list(itertools.islice(frames, 3))
        assert [frame.image_bgr.shape for frame in some] == [(120, 200, 3)] * 3
        assert all(frame.index >= first for frame in some)
        assert all(np.ptp(frame.image_bgr, axis=2).max() == 0 for frame in some), "grey"
        assert before <= some[0].captured <= some[1].captured <= some[2].captured <= time.time()
    assert signal.getsignal(signal.SIGINT) is on_interrupt, "Ctrl-C stays ours"
    assert logged == ["camera genicam:1 did not accept ExposureTime 100: it has no such feature"]


def test_the_first_genicam_camera_in_colour(producers: Path) -> None:
    with closing(parse_camera("genicam:").frames(NEVER)) as frames:
        picture = next(frames).image_bgr
    red = picture[(np.ptp(picture, axis=2) > 100)]
    assert len(red), "the game of the first one is red"
    assert (red[:, 2] > red[:, 0]).all()


def test_genicam_cameras_that_cannot_be_had(producers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable, match="genicam:99 cannot be opened.* Found: 0, 1, 2"):
        next(parse_camera("genicam:99").frames(NEVER))
    with closing(parse_camera("genicam:0").frames(NEVER)) as taken:
        next(taken)
        with pytest.raises(Unavailable, match="genicam:0 cannot be opened"):
            next(parse_camera("genicam:0").frames(NEVER))
    monkeypatch.setenv("GENICAM_GENTL64_PATH", str(producers / "licenses"))
    with pytest.raises(MissingDependency, match="no GenTL producer found"):
        next(parse_camera("genicam:").frames(NEVER))


def test_a_genicam_camera_that_is_pulled_out(producers: Path) -> None:
    from genicam.gentl import IoException

    from uflow_edge.runtime.sources.genicam import GenicamDevice

    gone = SimpleNamespace(
        start=lambda: None,
        try_fetch=lambda timeout: failing(IoException("unplugged"))(),
        destroy=failing(IoException("unplugged")),
    )
    reset = threading.Event()
    device = GenicamDevice(SimpleNamespace(reset=reset.set), gone, "camera genicam:")
    assert device.read() is None
    device.release()
    assert reset.is_set()


@pytest.mark.parametrize("pattern", ["RG", "GR", "GB", "BG"])
def test_bayer_patterns_put_colours_where_they_belong(pattern: str) -> None:
    from uflow_edge.runtime.sources.genicam import to_bgr

    colour = {"B": 200, "G": 100, "R": 50}
    other = {"R": "B", "B": "R"}
    second = "".join(reversed([other.get(letter, letter) for letter in pattern]))
    tile = np.uint8([[colour[letter] for letter in row] for row in (pattern, second)])
    mosaic = np.tile(tile, (8, 8))
    assert np.all(to_bgr(mosaic.ravel(), (16, 16), f"Bayer{pattern}8")[4:12, 4:12] == [200, 100, 50])


def test_genicam_rows_may_be_padded_and_buffers_are_not_shared() -> None:
    from uflow_edge.runtime.sources.genicam import to_bgr

    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    padded = np.zeros((5, 24), np.uint8)
    padded[:, :21] = picture.reshape(5, 21)
    for data in (padded.ravel(), picture.ravel()):
        result = to_bgr(data, (5, 7), "BGR8")
        assert np.array_equal(result, picture)
        assert not np.shares_memory(result, data)
    assert np.array_equal(to_bgr(padded.ravel(), (5, 7), "RGB8"), picture[:, :, ::-1])
    with pytest.raises(UsageError, match="pixel format Mono12p is not supported; set the camera to one of Mono8"):
        to_bgr(padded.ravel(), (5, 7), "Mono12p")

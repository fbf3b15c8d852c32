"""Sources by the addresses that a person types."""

import subprocess
import sys

import cv2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uflow_edge.runtime.errors import MissingDependency, UsageError
from uflow_edge.runtime.sources import CameraOptions, parse_camera
from waiting import NEVER


def test_importing_the_sources_loads_nothing_heavy() -> None:
    code = (
        "import sys, uflow_edge.runtime.sources, uflow_edge.runtime.line.triggers\n"
        "assert not {'cv2', 'numpy', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@given(width=st.integers(1, 400), height=st.integers(1, 400), fps=st.integers(0, 1000))
def test_a_synthetic_camera_is_what_its_address_says(width: int, height: int, fps: int) -> None:
    camera = parse_camera(f"synthetic:{width}x{height}@{fps}")
    assert camera.name == f"synthetic {width}x{height}@{fps}"
    assert camera.live
    frame = next(iter(camera.frames(NEVER, 7)))
    assert frame.image_bgr.shape == (height, width, 3)
    assert frame.index == 7
    again = parse_camera("synthetic:", CameraOptions(width=width, height=height, fps=fps))
    assert again.name == camera.name


@given(st.sampled_from(["{}", "/dev/video{}", "rtsp://10.0.0.{}:554/live", "https://host/{}", "belt-{}.avi"]))
def test_a_camera_is_named_as_it_was_typed(form: str) -> None:
    text = form.format(97)
    camera = parse_camera(text)
    assert camera.name == f"camera {text}"
    assert camera.live


@given(user=st.text("abcß", min_size=1), password=st.text("xyzß!$&*+=%2@:", min_size=1))
def test_a_password_is_never_shown(user: str, password: str) -> None:
    name = parse_camera(f"rtsp://{user}:{password}@camera.local:554/live").name
    assert name == f"camera rtsp://{user}:***@camera.local:554/live"


@given(st.text())
def test_whatever_is_typed_there_is_a_camera_or_one_clear_line(text: str) -> None:
    try:
        assert parse_camera(text).name
    except UsageError as error:
        assert "camera" in str(error) or "gst:" in str(error)
    except MissingDependency as error:
        assert "GStreamer" in str(error) or "'.[genicam]" in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "front",
        "csi://",
        "csi://left",
        "ftp://host/x.avi",
        "rtsp://",
        "rtsp://[half",
        "synthetic:big",
        "synthetic:640x480@",
        "synthetic:0x10",
        "synthetic:99999x10@30",
        "gst:",
    ],
)
def test_what_makes_no_sense(text: str) -> None:
    with pytest.raises(UsageError):
        parse_camera(text)


@pytest.mark.parametrize(
    "options",
    [{"width": 0, "height": 1}, {"width": 640}, {"fps": -1}, {"exposure_us": 0}, {"buffers": 0}, {"silence_s": -1}],
)
def test_options_that_make_no_sense(options: dict) -> None:
    with pytest.raises(UsageError, match="camera option"):
        CameraOptions(**options)


@pytest.mark.parametrize("text", ["csi://0", "gst:videotestsrc", "videotestsrc ! appsink"])
def test_without_gstreamer_it_says_what_to_do(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: False)
    with pytest.raises(MissingDependency, match="needs an OpenCV with GStreamer.*JetPack.*--system-site-packages"):
        parse_camera(text)


def test_without_harvesters_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "harvesters", None)
    monkeypatch.setitem(sys.modules, "harvesters.core", None)
    with pytest.raises(MissingDependency, match=r"'.\[genicam\]"):
        parse_camera("genicam:")

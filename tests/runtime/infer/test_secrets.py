"""Passwords and tokens are never shown, wherever they stand in an address."""

import argparse
import subprocess
import sys

import cv2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uflow_edge.runtime.cli.command_line import run_command
from uflow_edge.runtime.errors import ExitCode, Unavailable, UsageError
from uflow_edge.runtime.infer.arguments import parser
from uflow_edge.runtime.infer.choices import sources
from uflow_edge.runtime.sinks.mqtt import Broker
from uflow_edge.runtime.sources import parse_camera
from uflow_edge.runtime.text import redacted

SECRET = "geheim"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://cam:554/live?channel=1&subtype=0", "rtsp://cam:554/live?channel=1&subtype=0"),
        ("rtsp://admin:geheim@cam:554/live", "rtsp://admin:***@cam:554/live"),
        ("RTSPX://admin:geheim@cam", "RTSPX://admin:***@cam"),
        ("rtsp://admin:1/geheim@cam/live", "rtsp://admin:***@cam/live"),
        ("rtsp://geheim@cam/live", "rtsp://***@cam/live"),
        ("admin:geheim@cam/live", "admin:***@cam/live"),
        ("http://cam/picture@2x.jpg", "http://cam/picture@2x.jpg"),
        ("synthetic:640x480@30", "synthetic:640x480@30"),
        ("genicam:12345", "genicam:12345"),
        ("http://cam/x?channel=1&token=geheim&size=2", "http://cam/x?channel=1&token=***&size=2"),
        ("http://cam/x?usr=me&pwd=a#geheim", "http://cam/x?usr=me&pwd=***"),
        ("https://cam/x?X-Amz-Signature=geheim", "https://cam/x?X-Amz-Signature=***"),
        ("srt://cam:9?passphrase=geheim", "srt://cam:9?passphrase=***"),
        ("rtsp://cam:554/user=admin_password=geheim_channel=1", "rtsp://cam:554/user=admin_password=***"),
        (
            "gst:rtspsrc location=rtsp://cam/a user-id=me user-pw=geheim latency=0 ! decodebin",
            "gst:rtspsrc location=rtsp://cam/a user-id=me user-pw=*** latency=0 ! decodebin",
        ),
        (
            'rtspsrc location="rtsp://me:geheim@cam/a" user-pw="sehr \\" geheim" ! decodebin',
            'rtspsrc location="rtsp://me:***@cam/a" user-pw=*** ! decodebin',
        ),
        (
            "cv2.error: cannot read 'rtsp://a:geheim@one/' and 'http://b:geheim@two/'",
            "cv2.error: cannot read 'rtsp://a:***@one/' and 'http://b:***@two/'",
        ),
    ],
)
def test_what_is_shown_of_an_address(address: str, shown: str) -> None:
    assert redacted(address) == shown
    assert redacted(shown) == shown


@given(
    st.sampled_from(
        [
            "rtsp://admin:{}@cam/h264",
            "foo://u:{}@h",
            "admin:{}@cam",
            "error: foo://u:{}@h: refused",
            "http://h/?a=1&key={}",
        ]
    ),
    st.text("#/?@%: =!'\"()", max_size=4),
    st.text("#/?@%: ='\"()", max_size=4),
)
def test_no_character_in_a_password_brings_it_to_light(form: str, before: str, after: str) -> None:
    assert SECRET not in redacted(form.format(f"x{before}{SECRET}{after}x"))


def test_other_text_stays_as_it_is() -> None:
    for text in ("--token needs --serve", "live page: http://127.0.0.1:8000/", "a@b.avi: no such file", "3 of 4: good"):
        assert redacted(text) == text


@pytest.mark.parametrize(
    "address",
    [
        "rtsp://admin:ge/heim@cam/h264",
        "RTSP://admin:ge#heim@cam/h264",
        "rtspx://admin:ge?heim@cam",
        "admin:ge@heim@cam",
        "rtsp://[admin:ge heim@cam",
        "http://cam/video?password=ge/heim&channel=1",
        "gst:rtspsrc location=rtsp://cam user-pw=heim",
        "csi://admin:heim@0",
    ],
)
def test_a_camera_is_named_without_its_secrets(address: str) -> None:
    try:
        shown = parse_camera(address).name
    except (UsageError, Unavailable) as error:
        shown = str(error)
    assert "cam" in shown
    assert "heim" not in shown


def test_cameras_that_differ_in_their_secrets_alone_have_different_names() -> None:
    arguments = parser().parse_args(
        [text for key in "abc" for text in ("--camera", f"http://cam/?token={key}")], argparse.Namespace()
    )
    names = [source.name for source in sources(arguments)]
    assert names == [f"camera http://cam/?token=***{number}" for number in ("", " (2)", " (3)")]


@pytest.mark.parametrize(
    "url",
    [
        "mqtt://line:geheim@broker/path",
        "mqtt://line:12#geheim@broker",
        "mqtt://line:ge/heim@broker",
        "http://line:geheim@broker",
        "line:geheim@broker",
    ],
)
def test_a_broker_is_named_without_its_password(url: str) -> None:
    with pytest.raises(UsageError, match=r"broker .*\*\*\*@broker.*: expected mqtt://host") as caught:
        Broker.from_url(url)
    assert "heim" not in str(caught.value)
    assert redacted(caught.value) == str(caught.value)  # the addresses that are suggested stay whole
    assert "geheim" not in repr(Broker.from_url("mqtt://line:geheim@broker"))


def test_no_error_and_no_traceback_quotes_a_secret(capsys) -> None:
    def fail(_: argparse.Namespace) -> ExitCode:
        raise RuntimeError("cannot open 'rtsp://admin:ge heim@cam/'")

    with pytest.raises(SystemExit) as caught:
        run_command(lambda: argparse.Namespace(verbose=True), fail)
    said = capsys.readouterr().err
    assert caught.value.code == ExitCode.INTERNAL
    assert "rtsp://admin:***@cam/" in said.splitlines()[0]
    assert "Traceback" in said
    assert "heim" not in said.replace("ge heim", "", 1)  # the line of this test's own source


def test_an_address_behind_the_wrong_option_is_hidden(capsys) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["--images", "x", "--jsonl-size", "mqtt://line:geheim@broker"])
    assert "mqtt://line:***@broker" in capsys.readouterr().err


_PLAYLIST = """
import http.server, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.apple.mpegurl")
        self.end_headers()
        self.wfile.write(b"#EXTM3U\\n#EXT-X-TARGETDURATION:1\\n#EXTINF:1,\\npart.ts?token=geheim\\n#EXT-X-ENDLIST\\n")
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
from uflow_edge.runtime.sources import parse_camera
camera = parse_camera(f"http://me:geheim@127.0.0.1:{server.server_port}/x.m3u8")
next(camera.frames(threading.Event()))
"""


@pytest.mark.skipif(not cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG), reason="this OpenCV is without FFmpeg")
def test_ffmpeg_does_not_quote_the_address_either() -> None:
    """It would say: error when loading first segment 'http://me:geheim@…'."""
    run = subprocess.run([sys.executable, "-c", _PLAYLIST], capture_output=True, text=True, timeout=60, check=False)
    assert "http://me:***@127.0.0.1" in run.stderr
    assert "geheim" not in run.stderr

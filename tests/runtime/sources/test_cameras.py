"""Cameras: real streams over HTTP and RTSP, a real GenTL producer, and stand-ins for devices that are not here."""

import itertools
import os
import re
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from extras import extra
from uflow_edge.runtime.errors import MissingDependency, UsageError
from uflow_edge.runtime.sources import CameraOptions, SourceLost, camera, opencv_capture, parse_camera
from uflow_edge.runtime.sources.camera import Camera
from waiting import DEADLINE

NEVER = threading.Event()

needs_ffmpeg = pytest.mark.skipif(
    not cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG), reason="this OpenCV is without FFmpeg"
)


def picture_of(number: int) -> np.ndarray:
    """64x16 grey, four blocks whose levels are the hexadecimal digits of the number; survives JPEG."""
    digits = [number >> shift & 15 for shift in (12, 8, 4, 0)]
    return np.repeat(np.repeat(np.uint8([digits]) * 16 + 8, 16, axis=1), 16, axis=0)


def number_in(picture_bgr: np.ndarray) -> int:
    blocks = picture_bgr[4:12, :, 0].reshape(8, 4, 16)[:, :, 4:12].mean((0, 2))
    return int(sum(int(level) // 16 << shift for level, shift in zip(blocks, (12, 8, 4, 0), strict=True)))


def jpeg_of(number: int) -> bytes:
    ok, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture_of(number), cv2.COLOR_GRAY2BGR))
    assert ok
    return encoded.tobytes()


# A network camera: MJPEG over HTTP


class NetworkCamera:
    """Serves numbered pictures, a few hundred a second, to any number of clients, until told to pause or to close."""

    def __init__(self, port: int = 0) -> None:
        self.sent = 0
        self.clients = 0
        self.changed = threading.Condition()
        self.paused = threading.Event()
        self.closing = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                outer.serve(self.wfile.write)
                self.close_connection = True

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def serve(self, write: Callable[[bytes], object]) -> None:
        with self.changed:
            self.clients += 1
        try:
            while not self.closing.wait(0.003):
                if self.paused.is_set():
                    continue
                jpeg = jpeg_of(self.sent + 1)
                write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(jpeg), jpeg))
                with self.changed:
                    self.sent += 1
                    self.changed.notify_all()
        except OSError:
            pass  # the client has left
        finally:
            with self.changed:
                self.clients -= 1
                self.changed.notify_all()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, DEADLINE)

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@needs_ffmpeg
def test_a_network_camera_vanishes_and_returns() -> None:
    with closing(NetworkCamera()) as device:
        source = parse_camera(f"http://user:secret@127.0.0.1:{device.port}/stream")
        frames = source.frames(NEVER)
        first = list(itertools.islice(frames, 5))
    rest = []
    with pytest.raises(SourceLost, match=r"camera http://user:\*\*\*@127.* stopped delivering after \d+ frames"):
        rest.extend(frames)
    seen = first + rest
    assert [frame.index for frame in seen] == sorted({frame.index for frame in seen}), "numbers grow"
    skipped = number_in(first[0].image_bgr) - first[0].index  # what FFmpeg used up to find out what it is reading
    assert [number_in(frame.image_bgr) - skipped for frame in seen] == [frame.index for frame in seen]
    assert {frame.source for frame in seen} == {source.name}
    again = seen[-1].index + 1
    with pytest.raises(SourceLost, match="cannot be opened"):
        next(source.frames(NEVER, again))
    with closing(NetworkCamera(device.port)) as device:
        frames = source.frames(NEVER, again)
        frame = next(frames)
        assert again <= frame.index < again + number_in(frame.image_bgr)
        frames.close()
        device.wait_for(lambda: device.clients == 0)


@needs_ffmpeg
def test_the_latency_of_a_stream_does_not_grow_with_a_slow_reader() -> None:
    with (
        closing(NetworkCamera()) as device,
        closing(parse_camera(f"http://127.0.0.1:{device.port}/").frames(NEVER)) as frames,
    ):
        before = next(frames)
        for _ in range(3):
            target = device.sent + 150
            device.wait_for(lambda target=target: device.sent > target)
            after = next(frames)
            overtaken = number_in(after.image_bgr) - number_in(before.image_bgr)
            assert overtaken > 100
            assert after.index - before.index == overtaken, "overtaken frames keep their numbers"
            assert before.captured < after.captured <= time.time()
            before = after


@needs_ffmpeg
def test_a_stream_that_falls_silent_is_lost() -> None:
    with closing(NetworkCamera()) as device:
        source = parse_camera(f"http://127.0.0.1:{device.port}/", CameraOptions(silence_s=1.5))
        with closing(source.frames(NEVER)) as frames:
            next(frames)
            device.paused.set()
            with pytest.raises(SourceLost, match="stopped delivering"):
                for _ in frames:
                    pass


@needs_ffmpeg
def test_a_stream_ends_when_told_to_and_the_connection_is_closed() -> None:
    stop = threading.Event()
    with closing(NetworkCamera()) as device:
        seen = 0
        for _ in parse_camera(f"http://127.0.0.1:{device.port}/").frames(stop):
            seen += 1
            if seen == 5:
                stop.set()
        assert seen == 5
        device.wait_for(lambda: device.clients == 0)


@needs_ffmpeg
def test_what_a_camera_did_not_take_is_told_once() -> None:
    told: list[str] = []
    with closing(NetworkCamera()) as device:
        source = parse_camera(f"http://127.0.0.1:{device.port}/", CameraOptions(width=1920, height=1080), told.append)
        for _ in range(2):
            with closing(source.frames(NEVER)) as frames:
                assert next(frames).image_bgr.shape == (16, 64, 3)
    [message] = told
    assert "did not take all that was asked for: width 1920, got 64; height 1080, got 16" in message


def test_a_camera_that_never_was_there_is_a_slip_of_the_pen() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    for text in ("97", "/dev/video97", f"http://127.0.0.1:{port}/", f"rtsp://127.0.0.1:{port}/", "absent.avi"):
        source = parse_camera(text)
        with pytest.raises(MissingDependency, match=f"camera {re.escape(text)} cannot be opened: is it connected"):
            next(source.frames(NEVER))
        with pytest.raises(SourceLost):
            next(source.frames(NEVER, first=3))


# An RTSP camera


class RtspCamera:
    """Just enough of RFC 2326 and RFC 2435: Motion JPEG in RTP, inside the RTSP connection."""

    def __init__(self, pictures: int) -> None:
        self.pictures = pictures
        self.transports: list[str] = []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.thread = threading.Thread(target=self._accept)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as requests:
                self._talk(connection, requests)

    def _talk(self, connection: socket.socket, requests) -> None:
        while line := requests.readline().decode():
            method, *_ = line.split()
            header = {}
            while line := requests.readline().decode().strip():
                key, _, value = line.partition(":")
                header[key.lower()] = value.strip()
            answer, body = "", ""
            if method == "OPTIONS":
                answer = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
            elif method == "DESCRIBE":
                body = (
                    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=belt\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\na=control:track0\r\n"
                )
                answer = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
            elif method == "SETUP":
                self.transports.append(header["transport"])
                answer = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
            connection.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {header['cseq']}\r\n{answer}\r\n{body}".encode())
            if method == "PLAY":
                for number in range(1, self.pictures + 1):
                    packet = rtp_packet(number)
                    connection.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
                return


def rtp_packet(number: int) -> bytes:
    """One picture as one RTP packet; pictures are 40 ms apart on the camera's clock."""
    jpeg = jpeg_of(number)
    tables, position = b"", 2
    while True:
        marker, length = struct.unpack_from(">HH", jpeg, position)
        segment = jpeg[position + 4 : position + 2 + length]
        if marker == 0xFFDB:
            tables += b"".join(segment[i + 1 : i + 65] for i in range(0, len(segment), 65))
        position += 2 + length
        if marker == 0xFFDA:
            break
    rtp = struct.pack(">BBHII", 0x80, 0x80 | 26, number, number * 3600, 7)
    header = struct.pack(">IBBBB", 0, 1, 255, 64 // 8, 16 // 8) + struct.pack(">BBH", 0, 0, len(tables)) + tables
    return rtp + header + jpeg[position:-2]


@needs_ffmpeg
def test_an_rtsp_camera_is_read_over_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", raising=False)
    before = time.time()
    with closing(RtspCamera(pictures=60)) as device:
        frames = parse_camera(f"rtsp://127.0.0.1:{device.port}/belt").frames(NEVER)
        seen = [next(frames)]
        assert "OPENCV_FFMPEG_CAPTURE_OPTIONS" not in os.environ, "the next capture is not our business"
        with pytest.raises(SourceLost):
            seen.extend(frames)
    assert [transport.split(";")[0] for transport in device.transports] == ["RTP/AVP/TCP"]
    numbers = [number_in(frame.image_bgr) for frame in seen]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 60
    stamps = [frame.captured for frame in seen]
    assert stamps == sorted(stamps)
    assert before <= stamps[0]
    assert stamps[-1] <= time.time()


def test_a_persons_own_ffmpeg_options_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;udp")
    with opencv_capture._ffmpeg_options():
        assert os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] == "rtsp_transport;udp"
    assert os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] == "rtsp_transport;udp"


def test_two_streams_may_be_opened_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", raising=False)
    with opencv_capture._ffmpeg_options():
        with opencv_capture._ffmpeg_options():
            assert "rtsp_transport;tcp" in os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"]
        assert "rtsp_transport;tcp" in os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"]
    assert "OPENCV_FFMPEG_CAPTURE_OPTIONS" not in os.environ


# A file that stands in for a camera


def test_a_file_in_place_of_a_camera_delivers_every_frame_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "belt.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 16))
    for number in range(1, 21):
        writer.write(cv2.cvtColor(picture_of(number), cv2.COLOR_GRAY2BGR))
    writer.release()
    source, seen = parse_camera(str(path)), []
    with pytest.raises(SourceLost, match="belt.avi stopped delivering after 20 frames"):
        seen.extend(source.frames(NEVER))
    path.rename(tmp_path / "away")
    with pytest.raises(SourceLost, match="belt.avi cannot be opened"):
        next(source.frames(NEVER, 20))
    (tmp_path / "away").rename(path)
    with closing(source.frames(NEVER, 20)) as frames:
        seen.extend(itertools.islice(frames, 3))
    assert [frame.index for frame in seen] == list(range(23))
    assert [number_in(frame.image_bgr) for frame in seen] == [*range(1, 21), 1, 2, 3]


# Devices that misbehave


class Stubborn:
    """A device whose every read does what the test says."""

    def __init__(self, *reads: Callable[[], object]) -> None:
        self.reads, self.released = iter(reads), threading.Event()

    def read(self):
        return next(self.reads, lambda: None)()

    def release(self) -> None:
        self.released.set()


def shot() -> tuple[np.ndarray, float]:
    return np.zeros((2, 2, 3), np.uint8), 1.0


def failing(error: BaseException) -> Callable[[], object]:
    def read() -> object:
        raise error

    return read


def test_a_device_that_hangs_does_not_hang_us_and_is_released_when_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "_RELEASE_S", 0.01)
    back, stop = threading.Event(), threading.Event()
    device = Stubborn(shot, lambda: back.wait(DEADLINE) and None)
    frames = Camera("camera 0", lambda: device).frames(stop)
    next(frames)
    stop.set()
    assert list(frames) == []
    assert not device.released.is_set(), "releasing a device in the midst of a read would crash"
    back.set()
    assert device.released.wait(DEADLINE)


def test_a_device_that_hangs_counts_as_lost_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "_RELEASE_S", 0.01)
    back = threading.Event()
    for reads, error, message in (
        ([shot, back.wait], SourceLost, "stopped delivering after 1 frames"),
        ([back.wait], MissingDependency, "can be opened, but delivers no frames"),
    ):
        with pytest.raises(error, match=message):
            list(Camera("camera 0", lambda reads=reads: Stubborn(*reads), silence_s=0.05).frames(NEVER))
    back.set()


def test_an_error_in_the_reading_thread_is_raised_where_frames_are_awaited() -> None:
    device = Stubborn(shot, failing(ValueError("unheard of")))
    seen = []
    with pytest.raises(ValueError, match="unheard of"):
        seen.extend(Camera("camera 0", lambda: device).frames(NEVER))
    assert device.released.is_set()


def test_a_pause_is_not_the_end() -> None:
    device = Stubborn(failing(TimeoutError()), shot)
    frames = Camera("camera 0", lambda: device).frames(NEVER)
    assert next(frames).index == 0
    frames.close()
    assert device.released.is_set()


# V4L2 and GStreamer, as far as OpenCV's side of them goes


class FakeCapture:
    """A `cv2.VideoCapture` of a camera that can do 640x480 at 30 frames a second and no manual gain."""

    def __init__(self, device: int | str, backend: int) -> None:
        self.opened, self.set_to, self.released = (device, backend), [], False
        self.state = {cv2.CAP_PROP_FRAME_WIDTH: 640.0, cv2.CAP_PROP_FRAME_HEIGHT: 480.0, cv2.CAP_PROP_FPS: 30.0}

    def isOpened(self) -> bool:
        return True

    def set(self, number: int, value: float) -> bool:
        self.set_to.append(number)
        if number in (cv2.CAP_PROP_GAIN, cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT):
            return False
        self.state[number] = value
        return True

    def get(self, number: int) -> float:
        return time.monotonic() * 1e3 - 50 if number == cv2.CAP_PROP_POS_MSEC else self.state.get(number, -1.0)

    def read(self) -> tuple[bool, np.ndarray]:
        return True, np.full((480, 640), 0x7F00, np.uint16)

    def release(self) -> None:
        self.released = True


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[FakeCapture]:
    made: list[FakeCapture] = []

    def make(device: int | str, backend: int) -> FakeCapture:
        made.append(FakeCapture(device, backend))
        return made[-1]

    monkeypatch.setattr(cv2, "VideoCapture", make)
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: True)
    return made


def test_a_v4l2_camera_is_set_in_order_and_stamped_by_the_driver(captures: list[FakeCapture]) -> None:
    told: list[str] = []
    options = CameraOptions(1920, 1080, 30, "MJPG", exposure_us=5000, gain=7)
    source = parse_camera("/dev/video2", options, told.append)
    for _ in range(2):
        with closing(source.frames(NEVER)) as frames:
            frame = next(frames)
    assert frame.image_bgr.shape == (480, 640, 3)
    assert frame.image_bgr.dtype == np.uint8
    assert frame.image_bgr.min() == frame.image_bgr.max() == 0x7F
    assert frame.captured < time.time() - 0.04, "the moment of exposure, not of arrival"
    capture = captures[0]
    assert capture.opened == ("/dev/video2", cv2.CAP_V4L2)
    wanted = [cv2.CAP_PROP_FOURCC, cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS]
    assert [number for number in capture.set_to if number in wanted] == wanted
    assert capture.set_to.index(cv2.CAP_PROP_AUTO_EXPOSURE) < capture.set_to.index(cv2.CAP_PROP_EXPOSURE)
    assert capture.state[cv2.CAP_PROP_EXPOSURE] == 50
    assert capture.state[cv2.CAP_PROP_BUFFERSIZE] == 1
    assert all(capture.released for capture in captures)
    [message] = told
    assert message == (
        "camera /dev/video2 did not take all that was asked for: width 1920, got 640; height 1080, got 480; "
        "gain 7, got -1"
    )


def test_a_v4l2_camera_is_left_as_it_is_unless_asked(captures: list[FakeCapture]) -> None:
    with closing(parse_camera("3", report=pytest.fail).frames(NEVER)) as frames:
        next(frames)
    assert captures[0].opened == (3, cv2.CAP_V4L2)
    assert captures[0].set_to == [cv2.CAP_PROP_BUFFERSIZE]
    with pytest.raises(UsageError, match="four letters"):
        parse_camera("3", CameraOptions(pixel_format="BayerRG8"))


@pytest.mark.parametrize(
    ("text", "pipeline"),
    [
        (
            "csi://1",
            "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM), width=640, height=480, framerate=30000/1000, "
            "format=NV12 ! nvvidconv ! video/x-raw, format=BGRx ! videoconvert ! video/x-raw, format=BGR ! "
            "appsink drop=true max-buffers=1 sync=false",
        ),
        (
            "gst:v4l2src device=/dev/video0",
            "v4l2src device=/dev/video0 ! videoconvert ! video/x-raw, format=BGR ! "
            "appsink drop=true max-buffers=1 sync=false",
        ),
        ("videotestsrc ! appsink drop=true", "videotestsrc ! appsink drop=true"),
    ],
)
def test_gstreamer_pipelines(text: str, pipeline: str, captures: list[FakeCapture]) -> None:
    with closing(parse_camera(text, CameraOptions(640, 480), pytest.fail).frames(NEVER)) as frames:
        before = time.time()
        assert next(frames).captured >= before - 1
    assert captures[0].opened == (pipeline, cv2.CAP_GSTREAMER)


def test_a_csi_camera_is_exposed_as_asked(captures: list[FakeCapture]) -> None:
    with closing(parse_camera("csi://0", CameraOptions(exposure_us=250)).frames(NEVER)) as frames:
        next(frames)
    assert 'sensor-id=0 exposuretimerange="250000 250000" !' in captures[0].opened[0]


# GenICam: the package genicam comes with a GenTL producer that plays a game instead of filming


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


def test_a_genicam_camera_by_serial_number(producers: Path) -> None:
    told: list[str] = []
    on_interrupt = signal.getsignal(signal.SIGINT)
    options = CameraOptions(width=200, height=120, fps=20, pixel_format="Mono8", exposure_us=100)
    source = parse_camera("genicam:1", options, told.append)
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
    assert told == ["camera genicam:1 did not take ExposureTime 100: it has no such feature"]


def test_the_first_genicam_camera_in_colour(producers: Path) -> None:
    with closing(parse_camera("genicam:").frames(NEVER)) as frames:
        picture = next(frames).image_bgr
    red = picture[(np.ptp(picture, axis=2) > 100)]
    assert len(red), "the game of the first one is red"
    assert (red[:, 2] > red[:, 0]).all()


def test_genicam_cameras_that_cannot_be_had(producers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingDependency, match="genicam:99 cannot be opened.* Found: 0, 1, 2"):
        next(parse_camera("genicam:99").frames(NEVER))
    with closing(parse_camera("genicam:0").frames(NEVER)) as taken:
        next(taken)
        with pytest.raises(MissingDependency, match="genicam:0 cannot be opened"):
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

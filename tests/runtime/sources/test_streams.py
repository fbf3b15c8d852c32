"""Real streams over HTTP and RTSP, and a video file in place of a camera."""

import itertools
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from uflow_edge.runtime.errors import Unavailable
from uflow_edge.runtime.sources import CameraOptions, SourceLost, opencv_capture, parse_camera
from waiting import DEADLINE, NEVER

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
def test_what_a_camera_did_not_take_is_told_once(logged: list[str]) -> None:
    with closing(NetworkCamera()) as device:
        source = parse_camera(f"http://127.0.0.1:{device.port}/", CameraOptions(width=1920, height=1080))
        for _ in range(2):
            with closing(source.frames(NEVER)) as frames:
                assert next(frames).image_bgr.shape == (16, 64, 3)
    [message] = logged
    assert "did not accept all options: width 1920, got 64; height 1080, got 16" in message


def test_a_camera_that_never_was_there_is_a_slip_of_the_pen() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    for text in ("97", "/dev/video97", f"http://127.0.0.1:{port}/", f"rtsp://127.0.0.1:{port}/", "absent.avi"):
        source = parse_camera(text)
        with pytest.raises(Unavailable, match=f"camera {re.escape(text)} cannot be opened: is it connected"):
            next(source.frames(NEVER))
        with pytest.raises(SourceLost):
            next(source.frames(NEVER, first=3))


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

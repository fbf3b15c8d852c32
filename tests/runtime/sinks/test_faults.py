"""Results that cannot be delivered, places that two processes want, and peers that want too much."""

import json
import os
import socket
import struct
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partialmethod
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from extras import needs
from factories import result
from sink_processes import CHANNELS, in_subprocess, names
from uflow_edge.runtime.errors import BadInput, UsageError
from uflow_edge.runtime.infer.command import main
from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.overlay import draw_overlay
from uflow_edge.runtime.sinks import Undeliverable
from uflow_edge.runtime.sinks.buffered import BufferedSink
from uflow_edge.runtime.sinks.json_lines import JsonLines
from uflow_edge.runtime.sinks.marks import encode, is_ours
from uflow_edge.runtime.sinks.metrics import Metrics
from uflow_edge.runtime.sinks.modbus import ModbusSink
from uflow_edge.runtime.sinks.mqtt import Broker, MqttSink
from uflow_edge.runtime.sinks.names import camera_folders, safe_path
from uflow_edge.runtime.sinks.overlays import OverlayFolder
from uflow_edge.runtime.sinks.strict import StrictSink
from uflow_edge.runtime.sources import Frame
from uflow_edge.runtime.tally import Tally
from waiting import DEADLINE

PROVENANCE = {"bundle": "belt.uflow", "bundle_sha256": "0" * 64}


# One result


class Picky:
    """A receiver that takes everything but frame 1."""

    name = "picky"

    def __init__(self) -> None:
        self.taken: list[int] = []

    def put(self, frame: Frame, inspection: Inspection) -> None:
        if frame.index == 1:
            raise Undeliverable("picky: frame 1 cannot be saved")
        self.taken.append(frame.index)

    def close(self) -> None: ...


def test_a_result_that_cannot_be_delivered_is_named_and_counted_and_those_behind_it_arrive(logged: list[str]) -> None:
    for wrap in (lambda sink: BufferedSink(sink, pytest.fail), StrictSink):
        receiver = Picky()
        logged.clear()
        sink = wrap(receiver)
        for index in range(4):
            sink.put(*result(index))
        sink.close()
        assert receiver.taken == [0, 2, 3]
        assert sink.undelivered == 1
        assert logged == ["picky: frame 1 cannot be saved"]


def test_a_name_that_is_too_long_is_shortened(tmp_path) -> None:
    longest = "x" * 251
    for index in range(3):
        OverlayFolder(tmp_path, CHANNELS).put(*result(index, name=longest))
    OverlayFolder(tmp_path, CHANNELS).put(*result(3, name="y" * 300))
    saved = names(tmp_path)
    assert len(saved) == 4
    assert [len(name) for name in saved].count(255) == 1  # the first one still has its own
    assert sorted(len(name) for name in saved)[2] < 110


def test_a_folder_named_like_a_picture_stops_nobody(tmp_path) -> None:
    sink = OverlayFolder(tmp_path, CHANNELS)
    for index, name in enumerate(["x", "x.png/y", "z"]):  # x.jpg, and a folder x.png beside it
        sink.put(*result(index, name=name))
    saved = names(tmp_path)
    assert len(saved) == 3
    assert {"x.png", "z.png"} < set(saved)


def test_no_name_leads_out_of_the_folder_or_steers_a_terminal(tmp_path) -> None:
    sink = OverlayFolder(tmp_path / "seen", CHANNELS)
    odd = ["../../evil", "/etc/evil", "a\ngood 0.00", "\x1b[2J", "tür\udce9", ".partial-1", "folder./..", "ü" * 130]
    for index, name in enumerate(odd):
        sink.put(*result(index, name=name))
    saved = names(tmp_path)
    assert len(saved) == len(odd)
    assert all(name.startswith("seen/") and name.isprintable() and "/." not in name for name in saved)
    assert str(safe_path(Path("belt 3/10:30:00.5 ü"))) == "belt 3/10:30:00.5 ü"


def test_a_quota_counts_its_own_regular_files(tmp_path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "frame-000001.png").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    sink = OverlayFolder(tmp_path, CHANNELS, quota=10**6)
    for index in range(3):
        sink.put(*result(index))
    assert (tmp_path / "frame-000001.png").is_symlink()
    assert {"frame-000000.png", "frame-000001-2.png", "frame-000002.png"} == set(names(tmp_path))


def test_a_picture_beyond_the_quota_or_the_format_is_that_pictures_fault(tmp_path) -> None:
    with pytest.raises(Undeliverable, match="exceeds the quota of 10"):
        OverlayFolder(tmp_path, CHANNELS, quota=10).put(*result(0))
    with pytest.raises((Undeliverable, cv2.error)):
        encode(np.zeros((70_000, 1, 3), np.uint8), "jpeg")


@pytest.mark.parametrize("size", [(1000, 1), (65535, 1), (1, 65535), (3000, 300)])
def test_narrow_frames_make_bounded_pictures(size: tuple[int, int]) -> None:
    height, width = size
    _, inspection = result(0)
    verdict = replace(inspection.verdict, size=size, mask=np.zeros(size, np.bool_))
    inspection = replace(inspection, verdict=verdict, box=(0, 0, width, height))
    picture = draw_overlay(np.full((*size, 3), 90, np.uint8), inspection, CHANNELS)
    assert picture.shape[1] >= 360
    assert picture.nbytes < 40e6
    if size == (3000, 300):
        assert picture.shape == (3044, 360, 3)  # pixel by pixel, beside a margin
        assert (picture[44:, 300:] == 0).all()


# What a result is of


def test_a_line_says_which_bundle_and_picture_it_belongs_to(tmp_path) -> None:
    log = tmp_path / "seen.jsonl"
    JsonLines(log, provenance=PROVENANCE).put(*result(0, name="left/part"))
    line = json.loads(log.read_text())
    assert {key: line[key] for key in ("name", *PROVENANCE)} == {"name": "left/part", **PROVENANCE}


@pytest.mark.parametrize("picture_format", ["png", "jpeg"])
def test_a_picture_says_what_it_is_of(tmp_path, picture_format) -> None:
    OverlayFolder(tmp_path, CHANNELS, picture_format=picture_format, provenance=PROVENANCE).put(*result(3))
    (path,) = tmp_path.iterdir()
    with Image.open(path) as picture:
        picture.load()
        comment = picture.info["Description" if picture_format == "png" else "comment"]
    assert json.loads(comment) == {"source": "belt", "frame": 3, **PROVENANCE}
    assert is_ours(path)


def test_each_camera_has_a_folder_of_its_own() -> None:
    assert camera_folders(["camera rtsp://me:***@cam:554/a"]) == (Path(),)
    several = camera_folders(["camera rtsp://me:***@cam:554/a", "camera /dev/video0", "x?", "x!", "\n"])
    assert [str(folder) for folder in several] == [
        "camera-rtsp-me-@cam-554-a",
        "camera-dev-video0",
        "x-3",
        "x-4",
        "source",
    ]


def test_pictures_and_lines_of_two_cameras(exported: Path, tmp_path: Path, exit_code, capsys) -> None:
    command = [
        *("--bundle", exported, "--camera", "synthetic:64x48@0", "--camera", "synthetic:80x60@0", "--policy", "every"),
        *("--max-frames", 6, "--quiet", "--save-dir", tmp_path / "seen", "--jsonl", tmp_path / "seen.jsonl"),
    ]
    assert exit_code(main, *command) == 0
    assert "appending" not in capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "seen.jsonl").read_text().splitlines()]
    assert sorted(f"{line['name']}.png" for line in lines) == names(tmp_path / "seen")
    assert {line["source"].replace(" ", "-") for line in lines} == {Path(line["name"]).parent.name for line in lines}
    assert {line["bundle"] for line in lines} == {exported.name}
    assert exit_code(main, *command) == 0
    said = capsys.readouterr().err
    assert "seen.jsonl, which holds 6 lines" in said
    assert "seen already holds 6 pictures" in said


@needs("paho")
def test_a_broker_that_is_absent_behind_files_is_told_by_the_exit_code(
    exported: Path, texture_folder: Path, exit_code, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BufferedSink, "close", partialmethod(BufferedSink.close, 0.01))
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        url = f"mqtt://127.0.0.1:{nobody.getsockname()[1]}"
        assert exit_code(main, "--bundle", exported, "--images", texture_folder / "test", "--mqtt", url) == 3
    assert f"2 not delivered to {url}" in capsys.readouterr().out


# One process a place


@contextmanager
def another_process(script: str, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """Runs until the block ends; entered when it says that it is ready."""
    process = in_subprocess(script, *arguments, stdin=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_log_and_a_quota_belong_to_one_process(tmp_path) -> None:
    log, seen, shared = tmp_path / "seen.jsonl", tmp_path / "seen", tmp_path / "shared"
    script = """
log, seen, shared = map(Path, sys.argv[1:])
lines, pictures = JsonLines(log, max_bytes=1, files=3), OverlayFolder(seen, CHANNELS, quota=10**6)
more = OverlayFolder(shared, CHANNELS)
for index in range(3):
    lines.put(*result(index))   # each in a new file
(shared / ".partial-1").touch()
print("ready", flush=True)
sys.stdin.read()
"""
    with another_process(script, log, seen, shared):
        for name in (lambda: JsonLines(log), lambda: OverlayFolder(seen, CHANNELS, quota=10**6)):
            with pytest.raises(BadInput, match="another process writes there"):
                name()
        with pytest.raises(BadInput, match="another process"):
            OverlayFolder(shared, CHANNELS, quota=10**6)
        OverlayFolder(shared, CHANNELS).put(*result(0))  # without a quota nobody is in the way
        assert names(shared) == [".partial-1", "frame-000000.png"]  # and what another process writes stays
    JsonLines(log).put(*result(9))  # it has ended
    OverlayFolder(shared, CHANNELS)
    assert names(shared) == ["frame-000000.png"]


@pytest.mark.parametrize(
    "content",
    [
        "{ my precious\nC code",
        "{ my precious C code",
        "root:x:0:0:root:/root:/bin/bash\n",
        '{"frames": 3}\n{"frame": 7, "sou',
        '{"frame": 7}\n{ precious',
        "\n",
    ],
)
def test_what_is_no_log_is_neither_cut_nor_appended_to(tmp_path, content: str) -> None:
    file = tmp_path / "file"
    file.write_text(content)
    with pytest.raises(BadInput, match="not a log of verdicts"):
        JsonLines(file)
    assert file.read_text() == content


def test_no_rotation_takes_the_place_of_a_file_that_is_no_log(tmp_path) -> None:
    (tmp_path / "seen.jsonl.2").write_text("my thesis")
    with pytest.raises(BadInput, match=r"seen\.jsonl\.2: not a log of verdicts"):
        JsonLines(tmp_path / "seen.jsonl")


def test_a_first_line_that_was_cut_short_is_mended(tmp_path) -> None:
    for half in (b'{"fra', b'{"frame": 12, "source', b'{"frame": 1\0\0\0', b"\0\0\0"):
        (tmp_path / "seen.jsonl").write_bytes(half)
        JsonLines(tmp_path / "seen.jsonl").put(*result(5))
        assert json.loads((tmp_path / "seen.jsonl").read_text())["frame"] == 5


# Peers


@contextmanager
def broker(welcome: bytes, after: Callable[[socket.socket], None]) -> Iterator[Broker]:
    """Answers one client's CONNECT, then does as it likes."""

    def serve() -> None:
        peer, _ = server.accept()
        with peer:
            peer.recv(4096)
            peer.sendall(welcome)
            after(peer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Broker("127.0.0.1", server.getsockname()[1])
        thread.join(DEADLINE)
        assert not thread.is_alive()


@needs("paho")
def test_a_broker_cannot_make_us_hold_what_it_sends() -> None:
    sent = []

    def flood(peer: socket.socket) -> None:
        peer.settimeout(DEADLINE)
        peer.sendall(bytes.fromhex("30 ffffff7f"))  # PUBLISH, 268,435,455 bytes
        try:
            while peer.send(bytes(1 << 20)):
                sent.append(1 << 20)
        except ConnectionError:
            return

    with broker(bytes.fromhex("20 03 00 00 00"), flood) as address:
        sink = MqttSink(address)
    sink.close()
    assert sum(sent) < 32 << 20  # buffers of the kernel, not ours


@needs("paho")
def test_a_verdict_beyond_the_brokers_limit_does_not_block_those_behind_it() -> None:
    def wait_for_the_end(peer: socket.socket) -> None:
        peer.settimeout(DEADLINE)
        while peer.recv(4096):
            pass

    limit = struct.pack(">BI", 0x27, 1500)
    with broker(bytes([0x20, 8, 0, 0, len(limit), *limit]), wait_for_the_end) as address:
        sink = MqttSink(address)
        with pytest.raises(Undeliverable, match="the broker accepts at most 471"):
            sink.put(*result(0))
        sink._client.disconnect()
    sink.close()


@pytest.mark.parametrize("prefix", ["line\udce9", "a\nb", "x" * 2000, "+", "/line", ""])
def test_what_is_no_topic(prefix: str) -> None:
    with pytest.raises(UsageError, match="topic prefix"):
        MqttSink(Broker("127.0.0.1"), prefix=prefix)


def silent_peers(port: int) -> list[socket.socket]:
    return [socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) for _ in range(40)]


def test_silent_connections_keep_no_plc_away() -> None:
    with closing(ModbusSink(Tally, port=0)) as sink:
        peers = silent_peers(sink.port)
        with socket.create_connection(("127.0.0.1", sink.port), timeout=DEADLINE) as plc:
            for _ in range(2):
                plc.sendall(bytes.fromhex("0001 0000 0006 01 03 0001 0001"))
                assert plc.recv(64) == bytes.fromhex("0001 0000 0005 01 03 02 0000")
        assert [peer.recv(1) for peer in peers[:24]] == [b""] * 24  # they were hung up on, in their order
        for peer in peers:
            peer.close()


@needs("prometheus_client")
def test_silent_connections_keep_no_prometheus_away() -> None:
    with Metrics(Tally).served(port=0) as port:
        peers = silent_peers(port)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=DEADLINE) as page:
            assert b"uflow_frames_captured_total 0.0" in page.read()
        assert peers[0].recv(1) == b""
        for peer in peers:
            peer.close()

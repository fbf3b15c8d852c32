"""Bad days of the whole `uflow-infer`: real processes that are killed, stopped and starved of disk space."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from extras import needs

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="signals and mounts as Linux has them"),
    pytest.mark.long,
    needs("prometheus_client"),
]


def frames_in(log: Path) -> list[int]:
    """Numbers of the frames in the whole lines of a log that may be growing."""
    text = log.read_bytes() if log.exists() else b""
    return [json.loads(line)["frame"] for line in text[: text.rfind(b"\n") + 1].splitlines()]


def more_lines(run, log: Path) -> None:
    """Until the run has inspected some more frames."""
    target = len(frames_in(log)) + 5
    run.wait_until(lambda: len(frames_in(log)) >= target)


def whole_pictures(folder: Path) -> list[Path]:
    """All pictures with a final name, each of them whole."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    for path in files:
        content = path.read_bytes()
        assert content.endswith((b"IEND\xaeB`\x82", b"\xff\xd9")), f"{path} ends early"
        assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) is not None
    return files


def counts(run) -> dict[str, float]:
    """What became of every frame so far, as the run's own metrics tell it."""
    address = run.said.split("metrics: ")[1].split()[0]
    with urllib.request.urlopen(address, timeout=30) as page:
        lines = [line.rsplit(" ", 1) for line in page.read().decode().splitlines() if not line.startswith("#")]
    undelivered = sum(float(value) for name, value in lines if name.startswith("uflow_results_undelivered_total"))
    frames = {name: float(value) for name, value in lines if name.startswith(("uflow_frames", "uflow_source"))}
    return {name.split("_")[2]: value for name, value in frames.items() if name.endswith("_total")} | {
        "undelivered": undelivered
    }


def summary(run) -> dict[str, int]:
    """The numbers of the last line, each by what is said of it."""
    parts = run.said.splitlines()[-1].split(", ")
    return {what: int(number) for number, what in (part.split(" ", 1) for part in parts if part[0].isdigit())}


# A camera that vanishes ---------------------------------------------------------------------------------------------

_NETWORK_CAMERA = """
import http.server, sys, time
jpeg = open(sys.argv[2], "rb").read()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        while True:
            self.wfile.write(b"--frame\\r\\nContent-Type: image/jpeg\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(jpeg))
            self.wfile.write(jpeg + b"\\r\\n")
            time.sleep(0.01)  # a hundred frames a second
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextmanager
def network_camera(picture: Path, port: int = 0) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """MJPEG over HTTP from a process of its own, and its port."""
    command = [sys.executable, "-c", _NETWORK_CAMERA, str(port), str(picture)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.skipif(not cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG), reason="this OpenCV is without FFmpeg")
def test_a_camera_that_dies_and_one_that_freezes_come_back(start_infer, tmp_path: Path) -> None:
    log, picture = tmp_path / "seen.jsonl", tmp_path / "part.jpg"
    cv2.imwrite(str(picture), np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8))

    with network_camera(picture) as (_, port):
        camera = f"http://127.0.0.1:{port}/"
        run = start_infer("--camera", camera, "--silence", 1, "--quiet", "--jsonl", log, "--metrics", "0")
        more_lines(run, log)
    run.wait_for("stopped delivering", 1)
    with network_camera(picture, port) as (device, _):
        run.wait_for(f"camera {camera} is back", 1)
        more_lines(run, log)
        device.send_signal(signal.SIGSTOP)
        run.wait_for("stopped delivering", 2)

        def all_accounted_for() -> bool:
            now = counts(run)
            gone = now["inspected"] + now["dropped"] + now["unreadable"]
            return now["captured"] == gone and now["inspected"] == len(frames_in(log))

        run.wait_until(all_accounted_for)
        assert counts(run)["reconnects"] >= 1
        assert counts(run)["undelivered"] == 0
        device.send_signal(signal.SIGCONT)
        run.wait_for(f"camera {camera} is back", 2)
        more_lines(run, log)
    run.wait_for("stopped delivering", 3)
    assert run.end(signal.SIGINT) == 0, "a run that waits for its camera can be ended"
    frames = frames_in(log)
    assert frames == sorted(set(frames)), "numbers grow, across losses too"
    assert summary(run)["inspected"] == len(frames)


def test_a_watched_folder_that_vanishes_comes_back(start_infer, texture_folder: Path, tmp_path: Path) -> None:
    log, folder, elsewhere = tmp_path / "seen.jsonl", tmp_path / "parts", tmp_path / "elsewhere"
    pictures = sorted((texture_folder / "train" / "good").iterdir())
    folder.mkdir()
    shutil.copy(pictures[0], folder)
    run = start_infer("--watch", folder, "--quiet", "--jsonl", log)
    run.wait_until(lambda: frames_in(log) == [0])
    folder.rename(elsewhere)
    run.wait_for("this folder has vanished")
    shutil.copy(pictures[1], elsewhere)
    elsewhere.rename(folder)
    run.wait_until(lambda: frames_in(log) == [0, 1])
    assert run.end(signal.SIGTERM) == 0
    assert [Path(line["source"]).name for line in map(json.loads, log.read_text().splitlines())] == ["00.png", "01.png"]
    assert summary(run) == {"inspected": 2, "anomalous": summary(run)["anomalous"], "unreadable": 0}


# A broker that is killed --------------------------------------------------------------------------------------------


def test_a_broker_that_is_killed_and_comes_back(start_infer, broker, subscriber, tmp_path: Path) -> None:
    log, url = tmp_path / "seen.jsonl", f"mqtt://127.0.0.1:{broker.port}"
    with subscriber(broker) as listener:
        # Every result waits with its picture, 12 megabytes: the bound is reached at once.
        run = start_infer(
            *("--camera", "synthetic:2000x2000@10", "--quiet", "--threshold=-1e9", "--metrics", 0),
            *("--jsonl", log, "--mqtt", url, "--mqtt-pictures"),
        )
        listener.wait_for_frames(3)
        broker.kill()
        run.wait_for(f"{url} is down")
        run.wait_until(lambda: counts(run)["undelivered"] >= 2)
        more_lines(run, log)
        broker.start()
        run.wait_for(f"{url} is back")
        newest = frames_in(log)[-1]
        run.wait_until(lambda: listener.frames()[-1] > newest)
        assert run.end(signal.SIGTERM) == 0
        listener.wait_for(("uflow/status", b"offline"))
        arrived = set(listener.frames())
    inspected, last = frames_in(log), summary(run)
    assert last["inspected"] == len(inspected)
    missing = len(set(inspected) - arrived)
    # The broker can have confirmed one that it took with it.
    assert missing - 1 <= last[f"not delivered to {url}"] <= missing


# A disk that is full ------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Callable[[int], tuple[str, ...]]:
    """Makes the beginning of a command that is to find a disk mounted at tmp_path/disk; skips where Linux forbids it.

    So many bytes are free on it. A file ``filler`` takes up another 64 MiB.
    """
    disk = tmp_path / "disk"
    disk.mkdir()

    def prefix(free: int) -> tuple[str, ...]:
        command = ("unshare", "-Urm", "sh", "-c")
        mount = f'mount -t tmpfs -o size={free + (64 << 20)} tiny "{disk}"'
        if shutil.which("unshare") is None or subprocess.run([*command, mount]).returncode:
            pytest.skip("this machine lets nobody mount a disk of his own")
        return *command, f'{mount} && head -c {64 << 20} /dev/zero > "{disk}/filler" && exec "$@"', "sh"

    return prefix


@contextmanager
def disk_of(run, disk: Path) -> Iterator[Path]:
    """The folder as the run finds it, also after its end."""
    run.wait_for("threshold:")  # it is mounted by then
    handle = os.open(f"/proc/{run.process.pid}/root{disk}", os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Path(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)


def test_a_full_disk_behind_a_camera(start_infer, tiny_disk, tmp_path: Path) -> None:
    log, seen = tmp_path / "seen.jsonl", tmp_path / "disk" / "seen"
    run = start_infer(
        *("--camera", "synthetic:1500x1500@10", "--quiet", "--metrics", 0),
        *("--save-dir", seen, "--save-format", "jpeg", "--jsonl", log),
        prefix=tiny_disk(4 << 20),
    )
    with disk_of(run, seen.parent) as disk:
        run.wait_for(f"{seen} is down ([Errno 28] No space left on device)")
        run.wait_until(lambda: counts(run)["undelivered"] >= 2)
        more_lines(run, log)
        assert len(whole_pictures(disk / "seen")) >= 1
        (disk / "filler").unlink()
        run.wait_for(f"{seen} is back")
        assert run.end(signal.SIGTERM) == 0
        saved = whole_pictures(disk / "seen")
    last = summary(run)
    assert last["inspected"] == len(frames_in(log)) == len(saved) + last[f"not delivered to {seen}"]


def test_a_full_disk_behind_files(start_infer, tiny_disk, texture_folder: Path, tmp_path: Path) -> None:
    log, seen = tmp_path / "seen.jsonl", tmp_path / "disk" / "seen"
    run = start_infer(
        *("--images", texture_folder / "train", "--save-dir", seen, "--jsonl", log), prefix=tiny_disk(1 << 20)
    )
    with disk_of(run, seen.parent) as disk:
        assert run.end() == 3
        saved = whole_pictures(disk / "seen")
    frames = frames_in(log)
    assert frames == list(range(len(saved) + 1)), "the last one has its line, but no picture"
    (error,) = [line for line in run.said.splitlines() if line.startswith("error: ")]
    assert f"{seen}: the result of {texture_folder / 'train' / 'good' / f'{frames[-1]:02d}.png'}" in error
    assert "No space left on device" in error


# Signals ------------------------------------------------------------------------------------------------------------


def test_a_killed_run_leaves_whole_lines_and_pictures_and_the_next_one_goes_on(start_infer, tmp_path: Path) -> None:
    log, seen = tmp_path / "seen.jsonl", tmp_path / "seen"
    arguments = ("--camera", "synthetic:96x96@0", "--policy", "every", "--quiet", "--jsonl", log, "--save-dir", seen)
    run = start_infer(*arguments)
    run.wait_until(lambda: len(frames_in(log)) > 20 and len(list(seen.glob("*.png"))) > 20)
    assert run.end(signal.SIGKILL) == -signal.SIGKILL
    before = frames_in(log)
    assert before == list(range(len(before)))
    pictures = whole_pictures(seen)
    assert pictures == [seen / f"frame-{i:06d}.png" for i in range(len(pictures))]
    whole = log.read_bytes()
    log.write_bytes(whole[: whole.rfind(b"\n") + 1] + b'{"frame": 7, "sou')  # the worst a kill inside a write can do
    assert start_infer(*arguments, "--max-frames", 5).end() == 0
    assert log.read_bytes().endswith(b"\n")
    assert frames_in(log) == [*before, 0, 1, 2, 3, 4]
    assert len(whole_pictures(seen)) == len(pictures) + 5
    assert not list(seen.glob(".*")), "no half picture is left, under whatever name"


def test_sigterm_ends_a_run_in_good_order(start_infer, tmp_path: Path) -> None:
    log, seen = tmp_path / "seen.jsonl", tmp_path / "seen"
    run = start_infer("--camera", "synthetic:96x96@0", "--quiet", "--jsonl", log, "--save-dir", seen)
    run.wait_until(lambda: len(frames_in(log)) > 20)
    assert run.end(signal.SIGTERM) == 0
    frames, last = frames_in(log), summary(run)
    assert last["inspected"] == len(frames) == len(whole_pictures(seen))
    captured = frames[-1] + 1  # the newest frame is never dropped, and this camera numbers all
    assert captured == last["inspected"] + last.get("dropped", 0) + last["unreadable"]


def test_interrupted_files_are_not_taken_for_all(start_infer, texture_folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "seen.jsonl"
    run = start_infer("--images", *[texture_folder / "train"] * 200, "--quiet", "--jsonl", log)
    run.wait_until(lambda: len(frames_in(log)) > 20)
    assert run.end(signal.SIGINT) == 130
    frames = frames_in(log)
    assert frames == list(range(len(frames)))
    assert summary(run)["inspected"] == len(frames) < 200 * 16

"""A long day: a real video through the whole line; nothing is lost, nothing changes places, nothing piles up."""

import json
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import psutil
import pytest
from skimage import data

from extras import needs
from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.line.capture import Feed
from uflow_edge.runtime.line.inbox import Policy
from uflow_edge.runtime.line.pipeline import Pipeline
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.sinks.json_lines import JsonLines
from uflow_edge.runtime.sinks.metrics import Metrics
from uflow_edge.runtime.sinks.overlays import OverlayFolder
from uflow_edge.runtime.sources import Frame
from uflow_edge.runtime.sources.video import VideoFile
from uflow_edge.runtime.views import ViewOptions
from waiting import DEADLINE

pytestmark = [pytest.mark.long, needs("prometheus_client")]

FRAMES = 10_000
WARM = 1_000  # frames after which nothing may grow
MOST_GROWTH = 4 << 20  # bytes: 466 a frame, far less than any array that a frame brings along
QUOTA = 1_000_000


def write_belt(path: Path, count: int, size: tuple[int, int] = (160, 120)) -> Path:
    """A video of gravel that moves past, every tenth frame with a scratch; (width, height) in pixels."""
    gravel = data.gravel()
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30, size)
    for i in range(count):
        top, left = i % (gravel.shape[0] - 96), 3 * i % (gravel.shape[1] - 96)
        frame = cv2.cvtColor(cv2.resize(gravel[top : top + 96, left : left + 96], size), cv2.COLOR_GRAY2BGR)
        if i % 10 == 9:
            cv2.line(frame, (20, 20), (60 + i % 30, 60), (0, 0, 0), 3)
        writer.write(frame)
    writer.release()
    return path


def score_that_most_keep_below(inspector: Inspector, video: Path) -> float:
    scores = [inspector.inspect(image).score for image, _ in zip(images_of(video), range(100), strict=False)]
    return float(np.quantile(scores, 0.9))


def images_of(video: Path) -> Iterator[np.ndarray]:
    capture = cv2.VideoCapture(str(video))
    while (read := capture.read())[0]:
        yield read[1]
    capture.release()


class HeldUp:
    """A sink that is slow until the first frame was dropped for it."""

    name = "held up"

    def __init__(self, pipeline: Pipeline, policy: Policy) -> None:
        self.pipeline, self.held = pipeline, policy == "latest"

    def put(self, frame: Frame, inspection: Inspection) -> None:
        deadline = time.monotonic() + DEADLINE
        while self.held and self.pipeline.tally().dropped == 0 and time.monotonic() < deadline:
            pass
        self.held = False

    def close(self) -> None:
        pass


@pytest.mark.parametrize("policy", get_args(Policy))
def test_every_frame_is_accounted_for_and_in_order(
    exported: Path, tmp_path: Path, policy: Policy, logged: list[str]
) -> None:
    """Two cameras, and a third whose frames are too small for the region of interest."""
    videos = [write_belt(tmp_path / f"{name}.avi", 300) for name in "ab"]
    small = write_belt(tmp_path / "small.avi", 40, size=(96, 64))
    inspector = Inspector.load(exported, threads=1, views=ViewOptions(((0, 0, 120, 120),)))
    inspector.operating_point = OperatingPoint(score_that_most_keep_below(inspector, videos[0]), "manual")
    feeds = [Feed(VideoFile(path), policy=policy) for path in (*videos, small)]
    logged.clear()
    pipeline = Pipeline(inspector, feeds)
    overlays = OverlayFolder(tmp_path / "seen", inspector.manifest.channels, anomalies_only=True, quota=QUOTA)
    metrics = Metrics(pipeline.tally)
    for sink in (HeldUp(pipeline, policy), JsonLines(tmp_path / "log.jsonl"), overlays, metrics):
        pipeline.connect(sink)
    tally = pipeline.run()

    assert tally.captured == 640 == tally.inspected + tally.dropped + tally.unreadable
    assert 0 < tally.unreadable == len(logged) <= 40
    assert (tally.dropped == 0) == (policy == "every")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(lines) == tally.inspected
    for video in videos:
        numbers = [line["frame"] for line in lines if line["source"] == str(video)]
        if policy == "every":
            assert numbers == list(range(300))
        assert numbers == sorted(set(numbers))
        assert numbers[-1] == 299
    assert sum(line["anomalous"] for line in lines) == tally.anomalous > 0
    exposition = metrics.exposition()[0].decode()
    for name in ("captured", "inspected", "dropped", "unreadable"):
        assert f"uflow_frames_{name}_total {float(getattr(tally, name))}\n" in exposition


@dataclass(frozen=True, slots=True)
class Sample:
    """How the process is after so many frames."""

    frames: int
    memory: int
    threads: int
    descriptors: int


@pytest.mark.slow
def test_ten_thousand_frames(exported: Path, tmp_path: Path) -> None:
    video = write_belt(tmp_path / "belt.avi", FRAMES)
    inspector = Inspector.load(exported, threads=1)
    threshold = score_that_most_keep_below(inspector, video)
    log, seen = tmp_path / "log.jsonl", tmp_path / "seen"
    outputs = ["--jsonl", log, "--jsonl-size", 1, "--jsonl-files", 100]
    outputs += ["--save-dir", seen, "--save", "anomalies", "--save-quota", QUOTA // 1_000_000]
    model = ["--bundle", exported, "--backend", "onnxruntime", "--threads", 1, f"--threshold={threshold}"]
    with running("--video", video, *model, *outputs, "--metrics", 0, "--quiet", log=tmp_path / "stderr") as process:
        samples = list(sampled(process, tmp_path / "stderr"))
        told = process.stdout.read()
    assert process.returncode == 0, (tmp_path / "stderr").read_text()

    warm = [sample for sample in samples if WARM <= sample.frames < 3 * WARM]
    late = [sample for sample in samples if sample.frames >= FRAMES - 2 * WARM]
    growth = statistics.median(s.memory for s in late) - statistics.median(s.memory for s in warm)
    print(f"{len(samples)} samples; resident {warm[0].memory / 2**20:.1f} MiB, grew by {growth / 2**10:.0f} KiB")
    assert growth < MOST_GROWTH
    # The least of many: a thread that answers a request for metrics comes and goes.
    assert min(s.threads for s in late) <= min(s.threads for s in warm)
    assert min(s.descriptors for s in late) <= min(s.descriptors for s in warm)

    files = [log.with_name(f"{log.name}.{number}") for number in range(100, 0, -1)]
    lines = [json.loads(line) for file in (*files, log) if file.exists() for line in file.read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(FRAMES))
    for line, image in zip(lines[:: FRAMES // 20], list(images_of(video))[:: FRAMES // 20], strict=True):
        assert line["score"] == pytest.approx(inspector.inspect(image).score, abs=1e-3)  # no frame's but its own
    anomalous = [line["frame"] for line in lines if line["anomalous"]]
    assert f"{FRAMES} inspected, {len(anomalous)} anomalous, 0 unreadable" in told
    pictures = sorted(seen.iterdir())
    assert 1 < len(pictures) < len(anomalous)  # the quota was reached
    assert [path.name for path in pictures] == [f"frame-{i:06d}.png" for i in anomalous[-len(pictures) :]]
    assert sum(path.stat().st_size for path in pictures) <= QUOTA


@contextmanager
def running(*arguments: object, log: Path) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", "from uflow_edge.runtime.infer.command import main; main()", *map(str, arguments)]
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        yield process
        process.wait(DEADLINE)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def sampled(process: "subprocess.Popen[str]", log: Path) -> Iterator[Sample]:
    """Look at a run twenty times a second until it ends, asking it for its metrics as a Prometheus does."""
    inside = psutil.Process(process.pid)
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
            return
        address = re.search(r"http://\S+/metrics", log.read_text())
        if address is None:
            continue
        with suppress(OSError, psutil.NoSuchProcess):  # it ends while it is asked
            with urllib.request.urlopen(address[0], timeout=DEADLINE) as answer:
                count = re.search(r"^uflow_frames_inspected_total (\S+)$", answer.read().decode(), re.MULTILINE)
            yield Sample(int(float(count[1])), inside.memory_info().rss, inside.num_threads(), inside.num_fds())

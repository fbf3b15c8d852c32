"""Whole commands in processes of their own: odd names, few descriptors, little memory, signals at any moment."""

import json
import os
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest

MOMENTS = (0.1, 0.7, 1.5, 2.5, 5.0)
GIB = 1 << 30
NAMES = (b"caf\xe9.png", b"a\ngood 0.00 b.png", b"\x1b[2J.png", b"n" * 251 + b".png", "＜b＞ ü.png".encode(), b"-h.png")


@pytest.fixture
def line(exported: Path, trained: Path, texture_folder: Path, tmp_path: Path) -> dict[str, list[object]]:
    """Command lines that all succeed if nobody disturbs them, by command."""
    shutil.copytree(exported, tmp_path / "a.uflow")
    good, more = texture_folder / "train" / "good", tmp_path / "more"
    more.mkdir()
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (12, 96, 96, 3), np.uint8)):
        Image.fromarray(pixels).save(more / f"{i:02d}.png")
    fast = ("--max-false-alarms", 0.3, "--confidence", "average", "--null-model", "none")
    tiny = ("--input-size", 64, "--epochs", 2, "--flow-steps", 1)
    return {
        "uflow-infer": ["--bundle", "a.uflow", "--images", good, "--jsonl", "seen.jsonl", "--save-dir", "seen"],
        "uflow-calibrate": ["--bundle", "a.uflow", "--good", more, *fast],
        "uflow-export": ["--ckpt", trained, "--out", "b.uflow", "--precision", "fp32"],
        "uflow-evaluate": ["--bundle", "a.uflow", "--data", texture_folder, "--json", "found.json"],
        "uflow-train": ["--data", good, "--out", "b.ckpt", *tiny],
        "uflow-bench": ["--bundle", "a.uflow", "--rounds", 3, "--starts", 1, "--json", "bench.json"],
    }


def assert_whole(folder: Path) -> None:
    """What a command has left behind is whole or not there; it goes, for the next one."""
    assert not list(folder.rglob(".uflow-*"))
    for bundle in folder.glob("*.uflow"):
        Bundle.load(bundle, UFlowManifest)
    log = folder / "seen.jsonl"
    assert all(json.loads(line) for line in (log.read_text().splitlines() if log.exists() else ()))
    for made in ("b.uflow", "seen"):
        shutil.rmtree(folder / made, ignore_errors=True)


def test_odd_names(line, commands, exported: Path, texture_folder: Path, tmp_path: Path, attacks) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    picture = (texture_folder / "test" / "hole" / "00.png").read_bytes()
    for name in NAMES:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(picture)
    outputs = ["--jsonl", "seen.jsonl", "--save-dir", "seen", "--fail-on-anomaly"]
    ended = commands.run(
        "uflow-infer", "--bundle", exported, "--images", folder, *outputs, LC_ALL="en_US.UTF-8", PYTHONUTF8="0"
    )
    attacks("commands: names").note("names", ended.outcome, ended.said, ended.seconds, ended.memory)
    assert f"{len(NAMES)} inspected" in ended.said
    assert not any(line.startswith("good 0.00 b") for line in ended.said.splitlines())
    assert "\x1b" not in ended.said
    assert len((tmp_path / "seen.jsonl").read_text().splitlines()) == len(NAMES)
    assert len(list((tmp_path / "seen").rglob("*.png"))) == len(NAMES)


COMMANDS = ("uflow-infer", "uflow-calibrate", "uflow-export", "uflow-evaluate", "uflow-train", "uflow-bench")


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_signals(line, commands, exported: Path, tmp_path: Path, attacks, name: str) -> None:
    """Whenever a command is told to end, it says so, and what it leaves behind is whole or not there."""
    trials = attacks("commands: signals")
    for moment in MOMENTS:
        process = commands.start(name, *line[name])
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.terminate()
        ended = commands.end(process)
        # SIGTERM ends Python itself (-15) before the command has set its handlers, when nothing has been printed, and
        # after it has restored them, when the process has noted its peak of memory. In between the command handles it.
        at_the_edge = ended.code == -signal.SIGTERM and (not ended.said or ended.memory > 0)
        outcome = "refused" if at_the_edge else ended.outcome
        trials.note((name, moment), outcome, ended.said, ended.seconds, ended.memory)
        assert ended.code in (0, 130) or at_the_edge, ended
        assert_whole(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_few_descriptors_and_little_memory(line, commands, tmp_path: Path, attacks, name: str) -> None:
    """It works, or says in one line what is missing."""
    trials = attacks("commands: limits")
    limits = [(resource.RLIMIT_NOFILE, count) for count in (8, 24)]
    limits += [(resource.RLIMIT_AS, size) for size in (GIB // 4, GIB, 3 * GIB // 2)]
    limits += [(resource.RLIMIT_FSIZE, size) for size in (0, 50_000)]
    for limit in limits:
        ended = commands.run(name, *line[name], limits=[limit])
        trials.note((name, limit), ended.outcome, ended.said, ended.seconds, ended.memory)
        assert_whole(tmp_path)

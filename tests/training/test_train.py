"""What surrounds the fit: everything is looked at before the work, and nothing is lost after it."""

import logging
import resource
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from uflow_edge.export.network.architecture import Architecture
from uflow_edge.runtime.cli.logs import logging_to
from uflow_edge.runtime.errors import BadInput
from uflow_edge.training.command import main
from uflow_edge.training.options import TrainingOptions
from uflow_edge.training.progress import FitBar, Progress, print_interrupted
from uflow_edge.training.train import Data, train

SMALL = Architecture.default("efficientnet_lite0", 64, 1)
OPTIONS = TrainingOptions(epochs=2)


@pytest.fixture
def good(texture_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(texture_folder / "train" / "good", tmp_path / "good"))


def interrupted_at(step: int) -> Callable[[Progress], None]:
    def interrupt(progress: Progress) -> None:
        if progress.step == step:
            signal.raise_signal(signal.SIGINT)

    return interrupt


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def test_a_run_is_known_by_what_decides_its_weights(
    good: Path, trained: Path, tmp_path: Path, logged: list[str]
) -> None:
    """Where features are cached, when to be patient, and where the images lie decide nothing."""
    out = tmp_path / "x.ckpt"
    architecture = Architecture.default("efficientnet_lite0", 64, 2)  # that of `trained`
    with pytest.raises(KeyboardInterrupt):
        train(Data(good), architecture, OPTIONS, out, on_step=interrupted_at(1))
    logged.clear()
    with pytest.raises(BadInput, match=r"differs: epochs 2 there, 3 here\. Repeat that command"):
        train(Data(good), architecture, replace(OPTIONS, epochs=3), out)
    copies = Path(shutil.copytree(good, tmp_path / "copies", copy_function=shutil.copy))
    broken = copies / "00.png"
    broken.write_bytes(broken.read_bytes() + b"\0")
    with pytest.raises(BadInput, match="fitted images: 1 of 14 gone, 1 new"):
        train(Data(copies), architecture, OPTIONS, out)
    assert not any(line.startswith("features") for line in logged), "too late"
    shutil.copy(good / "00.png", broken)
    data = Data(copies, cache="disk", keep_pictures=False)
    train(data, architecture, replace(OPTIONS, patience=5), out)
    ours, theirs = weights(out), weights(trained)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copies", "good", "x.ckpt"]


def test_a_checkpoint_that_cannot_be_written_leaves_the_state(good: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.ckpt"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_the_disk(progress: Progress) -> None:
        if progress.step == progress.steps:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))

    try:
        with pytest.raises(
            BadInput,
            match=r"x\.ckpt: cannot be written \(File too large\); nothing is lost.* continues from .*x\.ckpt\.resume",
        ):
            train(Data(good), SMALL, OPTIONS, out, on_step=fill_the_disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good", "x.ckpt.resume"]
    seen: list[Progress] = []
    train(Data(good), SMALL, OPTIONS, out, on_step=seen.append)
    assert seen == []  # nothing was left to fit
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good", "x.ckpt"]


def test_few_images_are_warned_of_and_broken_ones_named(good: Path, tmp_path: Path, exit_code, capsys) -> None:
    for name in ("00.png", "15.png"):
        (good / name).write_bytes(b"no image")
    assert exit_code(main, "--data", good, "--out", tmp_path / "x.ckpt", "--input-size", 64, "--restart") == 3
    printed = capsys.readouterr()
    assert "warning: a detector trained on 16 good images is poor; expect a good one from 50 on" in printed.out
    assert "00.png" in printed.err and "15.png" in printed.err
    assert not (tmp_path / "x.ckpt").exists()


def test_stopped_before_the_first_step_nothing_is_left_or_promised(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    out = tmp_path / "x.ckpt"
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patched:
        patched.setattr(logging.getLogger("uflow_edge.training.train"), "handlers", [StopAtFeatures()])
        train(Data(good, cache="disk"), SMALL, OPTIONS, out)
    assert [path.name for path in tmp_path.iterdir()] == ["good"]
    print_interrupted(out)
    assert "stopped before the first step" in logged[-1]
    (tmp_path / "x.ckpt.resume").touch()
    print_interrupted(out)
    assert f"the same command continues from {out}.resume" in logged[-1]


class StopAtFeatures(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("features"):
            raise KeyboardInterrupt


def test_a_log_says_where_the_fit_stands(capsys) -> None:
    bar = FitBar("fitting the flow", epochs=3)
    assert capsys.readouterr() == ("", "")  # nothing before the first step
    with logging_to("stdout"):
        for step in range(1, 7):
            bar.update(Progress(step, 6, 0.5, 0.25 * (step // 2) if step > 1 else None))
        bar.close()
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert "2 of 6" in lines[0] and "epoch 1 of 3, loss 0.5000, held-out 0.2500" in lines[0]
    assert "6 of 6" in lines[-1] and "epoch 3 of 3, loss 0.5000, held-out 0.7500" in lines[-1]
    assert printed.out.startswith("training runs on the CPU: about ") and "4 more steps" in printed.out

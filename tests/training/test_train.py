"""What surrounds the fit: everything is looked at before the work, and nothing is lost after it."""

import csv
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
from uflow_edge.training.progress import Epoch, FitBar, Progress, print_interrupted
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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copies", "good", "x.ckpt", "x.ckpt.csv"]


def test_a_network_of_timm_is_named_and_its_weights_given(good: Path, tmp_path: Path, exit_code) -> None:
    import timm
    from safetensors.torch import save_file

    from uflow_edge.export.checkpoints.checkpoint import load_checkpoint

    file, out = tmp_path / "random.safetensors", tmp_path / "x.ckpt"
    save_file(timm.create_model("mobilenetv4_conv_small").state_dict(), file)
    options = ("--data", good, "--input-size", 64, "--flow-steps", 1, "--epochs", 1, "--standardize", "position")
    name = "timm:mobilenetv4_conv_small"
    assert exit_code(main, "--extractor", name, "--weights", file, "--out", out, *options) == 0
    checkpoint = load_checkpoint(out)
    assert (checkpoint.architecture.extractor, checkpoint.extractor_weights) == (name, "random.safetensors")
    assert checkpoint.normalization.mean == (0.485, 0.456, 0.406)


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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good", "x.ckpt.csv", "x.ckpt.resume"]
    seen: list[Progress] = []
    train(Data(good), SMALL, OPTIONS, out, on_step=seen.append)
    assert seen == []  # nothing was left to fit
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good", "x.ckpt", "x.ckpt.csv"]


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


def test_the_log_has_a_row_per_epoch_also_after_an_interruption(good: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.ckpt"
    log = tmp_path / "x.ckpt.csv"
    log.write_text("of another run")
    with pytest.raises(KeyboardInterrupt):
        train(Data(good), SMALL, OPTIONS, out, on_step=interrupted_at(3))
    assert rows(log)["epoch"] == ["0", "1"]
    fit = train(Data(good), SMALL, OPTIONS, out)
    found = rows(log)
    assert found["epoch"] == ["0", "1", "2"]
    assert [float(value) for value in found["held_out"]] == [epoch.held_out for epoch in fit.epochs]
    assert found["judged"] == found["held_out"]
    assert found["loss"] == ["", *(str(epoch.loss) for epoch in fit.epochs[1:])]
    assert float(found["loss"][2]) < float(found["loss"][1])
    train(Data(good), SMALL, replace(OPTIONS, epochs=1), out, overwrite=True)
    assert rows(log)["epoch"] == ["0", "1"]


def rows(log: Path) -> dict[str, list[str]]:
    """The columns of a log by their names."""
    head, *body = csv.reader(log.read_text().splitlines())
    return dict(zip(head, map(list, zip(*body, strict=True)), strict=True))


def test_a_line_per_epoch(capsys) -> None:
    bar = FitBar("fitting the flow", epochs=3)
    assert capsys.readouterr() == ("", "")  # nothing before the first step
    with logging_to("stdout"):
        epochs = [Epoch(0, None, 0.75, 0.75, 0, 0.25)]
        bar.end_epoch(epochs)
        for step in range(1, 7):
            bar.update(Progress(step, 6, 0.5, 0.25))
            if step % 2 == 0:
                epochs.append(Epoch(step // 2, 0.5, 0.25, 0.1 * step, 1, 3))
                bar.end_epoch(epochs)
        bar.close()
    printed = capsys.readouterr()
    assert printed.err == ""
    before, left, *lines = printed.out.splitlines()
    assert before == "before the first step: held-out 0.7500, 0.25 s, best so far"
    assert left.startswith("about ") and left.endswith("4 more steps")
    assert lines == [
        "epoch 1 of 3: loss 0.5000, held-out 0.2500, judged 0.2000, 3 s, best so far",
        "epoch 2 of 3: loss 0.5000, held-out 0.2500, judged 0.4000, 3 s, best after epoch 1",
        "epoch 3 of 3: loss 0.5000, held-out 0.2500, judged 0.6000, 3 s, best after epoch 1",
    ]

"""Fitting: it learns, repeats itself, survives interruption, and stops when it should."""

import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from uflow_edge.export.checkpoints.checkpoint import load_checkpoint
from uflow_edge.export.network.architecture import Architecture
from uflow_edge.runtime.errors import BadInput, UsageError
from uflow_edge.training.command import main
from uflow_edge.training.fit import fit_flow, hold_scales_at_one, start_at_identity
from uflow_edge.training.options import TrainingOptions
from uflow_edge.training.progress import Progress
from uflow_edge.training.train import seeded_network

pytestmark = pytest.mark.long

SMALL = Architecture("efficientnet_lite0", 64, 2, (3, 4), 1)
OPTIONS = TrainingOptions(epochs=4, batch_size=4, patience=4, seed=3)


class Correlated:
    """Features with something to learn: every other channel is off centre, and neighbours repeat each other."""

    def __init__(self, count: int, seed: int) -> None:
        random = torch.Generator().manual_seed(seed)
        self.maps = []
        for scale in SMALL.features:
            base = torch.randn(count, scale.channels, scale.side, scale.side, generator=random)
            offset = 0.7 * (torch.arange(scale.channels) % 2).view(-1, 1, 1)
            self.maps.append(offset + 0.4 * base.roll(1, dims=1) + 0.3 * base)

    def __len__(self) -> int:
        return len(self.maps[0])

    def batch(self, indices: np.ndarray, epoch: int) -> tuple[torch.Tensor, ...]:
        return tuple(maps[indices] for maps in self.maps)


def run(folder: Path, options: TrainingOptions = OPTIONS, epochs: int | None = None, **arguments):
    network = seeded_network(SMALL, options.seed)
    fit = fit_flow(
        network,
        Correlated(18, 0),
        Correlated(6, 1),
        options,
        resume_file=folder / "x.resume",
        run={"batch_size": options.batch_size, "epochs": epochs or options.epochs, "fitted_images": ["a", "b"]},
        **arguments,
    )
    return network.flow.state_dict(), fit


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory):
    return run(tmp_path_factory.mktemp("undisturbed"))


def test_held_out_likelihood_improves_and_the_best_is_kept(undisturbed) -> None:
    _, fit = undisturbed
    assert [epoch.epoch for epoch in fit.epochs] == [0, 1, 2, 3, 4]
    assert fit.steps == 4 * 5
    assert fit.best.held_out == min(epoch.held_out for epoch in fit.epochs) < fit.epochs[0].held_out
    assert fit.epochs[0].loss is None
    assert fit.epochs[4].loss < fit.epochs[1].loss


def test_the_judge_decides_which_weights_are_kept_and_may_keep_the_first(undisturbed, tmp_path: Path) -> None:
    costs = iter([3.0, 1.0, 2.0, 1.0])
    weights, fit = run(tmp_path, replace(OPTIONS, epochs=3), judge=lambda: next(costs))
    assert [epoch.judged for epoch in fit.epochs] == [3.0, 1.0, 2.0, 1.0]
    assert [epoch.best for epoch in fit.epochs] == [0, 1, 1, 1], "of equal ones, the first"
    (tmp_path / "x.resume").unlink()
    first, fit = run(tmp_path, replace(OPTIONS, patience=2), judge=lambda: 1.0)
    assert (fit.best.epoch, fit.steps) == (0, 10)
    untrained = seeded_network(SMALL, OPTIONS.seed)
    start_at_identity(untrained)
    hold_scales_at_one(untrained)
    assert same(first, untrained.flow.state_dict()) and not same(first, weights)


def test_same_seed_same_weights_other_seed_others(undisturbed, tmp_path: Path) -> None:
    weights, _ = undisturbed
    assert same(run(tmp_path)[0], weights)
    (tmp_path / "x.resume").unlink()
    assert not same(run(tmp_path, TrainingOptions(epochs=4, batch_size=4, seed=4))[0], weights)


@pytest.mark.parametrize("stop_after", [1, 5, 13])
def test_an_interrupted_run_ends_with_the_same_weights(undisturbed, tmp_path: Path, stop_after: int) -> None:
    weights, fit = undisturbed

    def interrupt(progress: Progress) -> None:
        if progress.step == stop_after:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, on_step=interrupt)
    seen: list[int] = []
    resumed, resumed_fit = run(tmp_path, on_step=lambda progress: seen.append(progress.step))
    assert seen[0] == stop_after + 1
    assert same(resumed, weights)
    assert [epoch._replace(seconds=0) for epoch in resumed_fit.epochs] == [
        epoch._replace(seconds=0) for epoch in fit.epochs
    ]
    (tmp_path / "x.resume").unlink()  # there until the checkpoint is written


def test_a_killed_run_loses_one_epoch_at_most(undisturbed, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(progress: Progress) -> None:
        if progress.step == 13:
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path, on_step=kill)
    seen: list[int] = []
    resumed, _ = run(tmp_path, on_step=lambda progress: seen.append(progress.step))
    assert seen[0] == 11
    assert same(resumed, undisturbed[0])


@pytest.mark.parametrize("couplings", ["additive", "affine"])
def test_only_affine_couplings_have_a_jacobian_that_depends_on_the_image(tmp_path: Path, couplings) -> None:
    network = seeded_network(SMALL, 3)
    options = TrainingOptions(epochs=1, batch_size=4, seed=3, couplings=couplings)
    fit_flow(network, Correlated(18, 0), Correlated(6, 1), options, resume_file=tmp_path / "x", run={})
    with torch.no_grad():
        _, log_jacobian = network.latents(Correlated(6, 1).batch(np.arange(6), 0), jac=True)
    assert (float(log_jacobian.std()) < 1e-3) == (couplings == "additive")


def test_stops_early_without_progress(tmp_path: Path) -> None:
    costs = iter([3.0, 2.0, 2.5, 2.0])
    _, fit = run(tmp_path, replace(OPTIONS, epochs=200, patience=2), judge=lambda: next(costs))
    assert (fit.best.epoch, fit.epochs[-1].epoch) == (1, 3)


def test_a_resume_file_of_another_run_is_refused(tmp_path: Path) -> None:
    def interrupt(progress: Progress) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, on_step=interrupt)
    with pytest.raises(BadInput, match=r"differs: epochs 4 there, 9 here\. .* --restart"):
        run(tmp_path, epochs=9)
    with pytest.raises(BadInput, match="differs: batch size 4 there, 2 here"):
        run(tmp_path, TrainingOptions(epochs=4, batch_size=2, patience=4, seed=3))
    (tmp_path / "x.resume").write_bytes(b"damaged")
    with pytest.raises(BadInput, match=r"cannot be read as the state of .* --restart"):
        run(tmp_path)


def test_a_diverging_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no longer finite .* lower the learning rate"):
        run(tmp_path, TrainingOptions(epochs=4, batch_size=4, learning_rate=1e20))


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": 0.0}])
def test_options_that_cannot_be_meant(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(wrong)).replace('_', ' ')} 0: expected more than 0"):
        TrainingOptions(**wrong)


def test_seeding_leaves_the_callers_generators_alone() -> None:
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    expected = np.random.random(), torch.rand(1)  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    seeded_network(SMALL, 5)
    assert (np.random.random(), torch.rand(1)) == expected  # noqa: NPY002


def test_command(texture_folder: Path, tmp_path: Path, exit_code, capsys) -> None:
    out = tmp_path / "gravel"  # a name without a suffix is a name too
    arguments = ["--data", texture_folder, "--out", out, "--input-size", 64, "--flow-steps", 1, "--epochs", 1]
    assert exit_code(main, *arguments) == 0
    printed = capsys.readouterr().out
    assert "14 good images to fit, 2 held out" in printed
    assert f"next: uflow-export --ckpt {out}" in printed
    default = Architecture.default("efficientnet_lite0", 64, 1)
    assert replace(load_checkpoint(out).architecture, whitening=False) == replace(default, joint=True, window=3)
    assert len(load_checkpoint(out).pictures) == 2
    before = out.read_bytes()
    assert exit_code(main, *arguments) == 3
    assert "exists already; choose another --out, or replace it with --overwrite" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert exit_code(main, *arguments, "--no-pictures", "--hold-out", 0.25, "--overwrite") == 0
    assert load_checkpoint(out).pictures == ()
    assert "12 good images to fit, 4 held out" in capsys.readouterr().out
    for code, extra, message in (
        (3, ["--data", tmp_path / "absent"], "no such folder"),
        (2, ["--input-size", "65"], "a multiple of 16"),
        (2, ["--epochs", "0"], "1 or more"),
        (3, ["--weights", tmp_path / "absent.pth"], "absent.pth: no such file"),
        (2, ["--crop", "1.5"], "argument --crop: expected a share above 0 and up to 1, got 1.5"),
        (2, ["--learning-rate", "-1"], "argument --learning-rate: expected a number above 0, got -1"),
        (2, ["--seed", "-1"], "argument --seed: expected a number of 0 or more, got -1"),
        (3, ["--out", tmp_path], "is a folder; expected the name of a file"),
        (2, ["--hold-out", "1"], "expected a share of the images between 0 and 1"),
    ):
        assert exit_code(main, *arguments, "--overwrite", *extra) == code, extra
        assert message in capsys.readouterr().err

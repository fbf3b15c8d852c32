"""What a training tries and chooses by pseudo-defects, on real pictures of gravel."""

import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from uflow_edge.export.checkpoints.checkpoint import load_checkpoint
from uflow_edge.export.network.architecture import Architecture
from uflow_edge.training.judge.trials import HeldOut, Trial, energy_scorer
from uflow_edge.training.options import TrainingOptions, alternatives, with_scales
from uflow_edge.training.progress import Progress
from uflow_edge.training.train import Data, train

BASE = Architecture.default("efficientnet_lite0", 64, 1)


def test_images_are_scored_by_the_least_probable_energy_of_their_scales() -> None:
    random = np.random.default_rng(0)
    good = [random.chisquare(channels, (50, 8, 8)).astype(np.float32) for channels in (40, 100)]
    marked = [maps[:3].copy() for maps in good]
    marked[0][1, 4, 4] = 150
    marked[1][2, 4, 4] = 400
    calm, finer, coarser = energy_scorer(good, window=1)(marked)
    assert calm < 4 < finer < coarser
    assert energy_scorer(good, window=3)(marked)[1] < finer


def test_held_out_images_are_split_by_kind() -> None:
    class Numbers:
        """One feature per image: 2 good ones, then 2 of either kind."""

        def __len__(self) -> int:
            return 6

        def batch(self, indices: np.ndarray, epoch: int) -> tuple[torch.Tensor, ...]:
            return (torch.tensor([1.0, 2.0, 3.0, 4.0, 1.0, 2.0])[indices].reshape(-1, 1, 1, 1),)

    held_out = HeldOut(Numbers(), {"good": 2, "seen": 2, "unseen": 2})
    found = held_out.judge(iter([Numbers().batch(np.arange(6), 0)]), window=1)
    assert found.aurocs == {"seen": 1.0, "unseen": 0.5}


def test_what_is_given_is_not_tried() -> None:
    joint = with_scales(BASE, "auto")
    features = {(one.joint, one.pooling, one.window) for one in alternatives(joint, "auto", None, None)}
    assert features == {(True, 1, joint.window), (False, 1, 1), (False, 3, 1)}
    assert [one.pooling for one in alternatives(joint, "joint", None, None)] == [1]
    assert alternatives(joint, "joint", 3, None) == []


def test_the_best_trial_is_trained_and_a_resumed_run_tries_nothing_again(texture_folder: Path, tmp_path: Path) -> None:
    def interrupt(progress: Progress) -> None:
        signal.raise_signal(signal.SIGINT)

    data, options = Data(texture_folder, hold_out=0.7), TrainingOptions(epochs=1)
    others = alternatives(BASE, "separate", None, None)
    out, page = tmp_path / "x.ckpt", tmp_path / "x.html"
    with pytest.raises(KeyboardInterrupt):
        train(data, BASE, options, out, alternatives=others, on_step=interrupt)
    state = torch.load(tmp_path / "x.ckpt.resume", weights_only=True)
    first = state["run"]["trials"][0]
    first["aurocs"] = dict.fromkeys(first["aurocs"], 1.0)  # so that a second judgement would differ
    torch.save(state, tmp_path / "x.ckpt.resume")
    result = train(data, BASE, options, out, alternatives=others, report=page)

    trials = [Trial(**one) for one in torch.load(out, weights_only=True)["trials"]]
    assert {(one.pooling, one.standardization) for one in trials} == {
        (pooling, name) for pooling in (1, 3) for name in ("position", "channel", "whiten")
    }
    assert trials[0].found == 1.0
    architecture = load_checkpoint(out).architecture
    assert (architecture.pooling, architecture.whitening) == (trials[0].pooling, False)
    assert 0 < result.epochs[0].judged < 0.6
    assert page.read_text().count("<figure>") == 28

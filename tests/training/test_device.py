"""The device of a training: chosen clearly, given every tensor, and with results that repeat."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from uflow_edge.export.network.architecture import Architecture
from uflow_edge.runtime.errors import BadInput, Unavailable
from uflow_edge.training.command import main
from uflow_edge.training.device import chosen_device, repeatable
from uflow_edge.training.fit import fit_flow
from uflow_edge.training.options import Augmentation, TrainingOptions
from uflow_edge.training.progress import Progress
from uflow_edge.training.train import Data, seeded_network, train

pytestmark = pytest.mark.long

SMALL = Architecture("efficientnet_lite0", 64, 2, (3, 4), 1)
OPTIONS = TrainingOptions(epochs=1, batch_size=4)


class OnAnotherDevice(torch.Tensor):
    """Cannot be computed with before it is moved."""

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), options=None):
        assert function is torch.Tensor.to, f"{function} before the batch was moved"
        return arguments[0].as_subclass(torch.Tensor)


class Moved:
    """Random features that must be moved before they are used."""

    def __init__(self, count: int) -> None:
        random = torch.Generator().manual_seed(count)
        self.maps = [torch.randn(count, s.channels, s.side, s.side, generator=random) for s in SMALL.features]

    def __len__(self) -> int:
        return len(self.maps[0])

    def batch(self, indices: np.ndarray, epoch: int) -> tuple[torch.Tensor, ...]:
        return tuple(maps[indices].as_subclass(OnAnotherDevice) for maps in self.maps)


def test_the_fit_moves_every_batch_to_its_device(tmp_path: Path) -> None:
    fit = fit_flow(seeded_network(SMALL, 0), Moved(8), Moved(4), OPTIONS, resume_file=tmp_path / "x", run={})
    assert fit.steps == 2
    with pytest.raises(AssertionError, match="before the batch was moved"):
        Moved(4).batch(np.arange(2), 0)[0].sum()


def test_auto_takes_what_there_is_and_cuda_is_refused_without_it(texture_folder: Path, exit_code, capsys) -> None:
    assert chosen_device("cpu").type == "cpu"
    assert chosen_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        out = texture_folder / "x.ckpt"
        assert exit_code(main, "--data", texture_folder, "--out", out, "--device", "cuda") == 4
        assert "error: --device cuda: " in (printed := capsys.readouterr()).err
        assert "; install " in printed.err and "or use --device cpu" in printed.err
        assert printed.err.count("\n") == 1 and not printed.out


def test_on_the_cpu_nothing_global_changes() -> None:
    with repeatable(torch.device("cpu")):
        assert not torch.are_deterministic_algorithms_enabled()


def test_for_a_gpu_torch_is_set_to_repeat_itself_and_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")  # both, so that it is set back
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32
    too_little = pytest.raises(Unavailable, match="too little free memory; use a smaller --batch")
    with too_little, repeatable(torch.device("cuda")):
        assert torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.deterministic
        assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"]
        raise torch.cuda.OutOfMemoryError
    assert not torch.are_deterministic_algorithms_enabled()
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32) == before


@pytest.mark.gpu
@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(horizontal_flip=True)], ids=["cached", "flip"])
def test_on_a_gpu_the_same_seed_gives_the_same_checkpoint(
    texture_folder: Path, tmp_path: Path, augmentation: Augmentation
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA GPU")
    data = Data(texture_folder / "train" / "good", augmentation)
    paths = [tmp_path / name for name in ("a.ckpt", "b.ckpt", "cpu.ckpt")]

    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, SMALL, OPTIONS, paths[1], device="cuda", on_step=interrupt)
    state = torch.load(tmp_path / "b.ckpt.resume", weights_only=True)
    assert all(tensor.device.type == "cpu" for tensor in state["flow"].values())
    with pytest.raises(BadInput, match="device cuda there, cpu here"):
        train(data, SMALL, OPTIONS, paths[1], device="cpu")
    fits = [train(data, SMALL, OPTIONS, path, device=d) for path, d in zip(paths, ("cuda", "cuda", "cpu"), strict=True)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert fits[0].best.held_out == pytest.approx(fits[2].best.held_out, rel=1e-3)
    weights = torch.load(paths[0], weights_only=True)["state_dict"]
    assert all(tensor.device.type == "cpu" for tensor in weights.values())
    other = train(data, SMALL, replace(OPTIONS, seed=1), tmp_path / "other.ckpt", device="cuda")
    assert other.best.held_out != fits[0].best.held_out

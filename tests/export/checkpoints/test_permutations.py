"""Which FrEIA wrote a flow, and what its couplings then compute."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from uflow_edge.export.checkpoints.checkpoint import load_checkpoint
from uflow_edge.export.network.architecture import Architecture, Coupling
from uflow_edge.export.network.flow import RatioClampedBlock, build_flow
from uflow_edge.runtime.errors import BadInput

State = dict[str, Tensor]
SMALL = Architecture("resnet18", 64, 2, (1, 2, 3), 1)


def saved(path: Path, state: State, **content: object) -> Path:
    torch.save({"state_dict": state, **content}, path)
    return path


def permutations(state: State) -> list[str]:
    return [name for name in state if name.endswith(".w_perm")]


def with_indices(state: State) -> State:
    """As FrEIA after 0.2 stores it: y[:, i] = x[:, p[i]]."""
    vectors = {name: value.flatten(1).argmax(dim=1) for name, value in state.items() if ".w_perm" in name}
    return {**state, **vectors}


def rotated(state: State) -> State:
    random = torch.Generator().manual_seed(0)
    rotations: State = {}
    for name in permutations(state):
        q = torch.linalg.qr(torch.randn(state[name].shape[:2], generator=random)).Q
        rotations |= {name: q[:, :, None, None].clone(), name + "_inv": q.T[:, :, None, None].clone()}
    return {**state, **rotations}


def test_matrices_are_freia_02(small_state: Callable[[], State], tmp_path: Path) -> None:
    checkpoint = load_checkpoint(saved(tmp_path / "a.ckpt", small_state()))
    assert checkpoint.architecture.coupling == Coupling("clamp_tanh", 2.0, 1.0, "hard")
    assert checkpoint.origin == "U-Flow authors'"


def test_indices_are_its_successors(small_state: Callable[[], State], tmp_path: Path) -> None:
    state = small_state()
    checkpoint = load_checkpoint(saved(tmp_path / "new.ckpt", with_indices(state)))
    assert checkpoint.architecture.coupling == Coupling("clamp_tanh_ratio", 2.0, 1.0, "hard")
    for name in permutations(state):
        for suffix in ("", "_inv"):
            assert torch.equal(checkpoint.weights[name.removeprefix("model.") + suffix], state[name + suffix])


@pytest.mark.parametrize(
    ("stored_as", "formula"),
    [(dict, "clamp_tanh"), (with_indices, "clamp_tanh_ratio"), (rotated, "clamp_tanh")],
    ids=["matrices", "indices", "rotations"],
)
def test_block_computes_the_formula(small_state, tmp_path: Path, stored_as: Callable[[State], State], formula) -> None:
    """One block of a loaded checkpoint against the formula in numpy, permutations taken as they are stored."""
    stored = stored_as(small_state())
    path = saved(tmp_path / "a.ckpt", stored, hyper_parameters=SMALL.hyper_parameters())
    block = load_checkpoint(path).network().flow.module_list[1]
    x = torch.randn(2, 256, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        (found,), log_jacobian = block((x,))
        subnet = block.subnet(x[:, :128]).double().numpy()
    s, t = 0.1 * subnet[:, :128], 0.1 * subnet[:, 128:]
    exponent = 2 * np.tanh(s) if formula == "clamp_tanh" else 2 * np.tanh(s / 2)
    assert np.abs(s).max() > 0.5, "otherwise the two formulas hardly differ"
    still, moved = x[:, :128].double().numpy(), x[:, 128:].double().numpy() * np.exp(exponent) + t
    names = ("global_scale", "global_offset", "w_perm")
    scale, offset, permutation = (stored["model.flow.module_list.1." + name].numpy() for name in names)
    gain = 0.1 * 2 * np.log1p(np.exp(0.5 * scale.astype(np.float64)))
    affine = np.concatenate([still, moved], axis=1) * gain + offset
    if permutation.ndim == 1:
        expected = affine[:, permutation]
    else:
        expected = np.einsum("ij,njhw->nihw", permutation[:, :, 0, 0], affine)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(log_jacobian.numpy(), exponent.sum(axis=(1, 2, 3)) + 16 * np.log(gain).sum(), rtol=1e-4)


def test_jacobian_and_inverse_of_the_newer_coupling() -> None:
    def subnet(c_in: int, c_out: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(c_in, 8, 3, padding="same"), nn.Tanh(), nn.Conv2d(8, c_out, 1))

    torch.manual_seed(0)
    block = RatioClampedBlock([(6, 2, 2)], subnet_constructor=subnet, affine_clamping=1.3).double()
    for value in block.subnet.parameters():
        value.data *= 8
    x = torch.randn(1, 6, 2, 2, dtype=torch.float64)
    (y,), log_jacobian = block((x,))
    full = torch.autograd.functional.jacobian(lambda v: block((v.view(1, 6, 2, 2),))[0][0].flatten(), x.flatten())
    assert float(torch.linalg.slogdet(full).logabsdet) == pytest.approx(log_jacobian.item(), rel=1e-9)
    (back,), backwards = block((y,), rev=True)
    torch.testing.assert_close(back, x)
    assert backwards.item() == pytest.approx(-log_jacobian.item(), rel=1e-9)


def test_clamp_and_hidden_ratio_reach_every_block() -> None:
    architecture = replace(SMALL, coupling=Coupling(clamp=1.5, hidden_ratio=0.5))
    blocks = [module for module in build_flow(architecture).module_list if hasattr(module, "subnet")]
    assert len(blocks) == 6
    for block in blocks:
        assert block.clamp == 1.5
        assert block.subnet[0].out_channels == block.subnet[0].in_channels // 2


def test_rotations_need_a_statement(small_state: Callable[[], State], tmp_path: Path) -> None:
    state = rotated(small_state())
    with pytest.raises(BadInput, match=r"soft\.ckpt: .*rotations .* does not say"):
        load_checkpoint(saved(tmp_path / "soft.ckpt", state))
    architecture = replace(SMALL, coupling=Coupling("clamp_tanh_ratio"))
    stated = saved(tmp_path / "stated.ckpt", state, hyper_parameters=architecture.hyper_parameters())
    checkpoint = load_checkpoint(stated)
    assert checkpoint.architecture.coupling == Coupling("clamp_tanh_ratio", permutation="soft")
    assert checkpoint.origin == "uflow-edge"


def spoiled(change: Callable[[State, str], Tensor]) -> Callable[[State], State]:
    return lambda state: {**state, (name := permutations(state)[0]): change(state, name)}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (spoiled(lambda s, n: s[n] * 1.1), "neither a permutation nor a rotation"),
        (spoiled(lambda s, n: s[n][:, :-1]), "neither a permutation nor a rotation"),
        (spoiled(lambda s, n: s[n] * float("nan")), "neither a permutation nor a rotation"),
        (spoiled(lambda s, n: with_indices(s)[n]), "partly matrices and partly index vectors"),
        (lambda s: spoiled(lambda s, n: s[n].clamp(max=3))(with_indices(s)), "neither a permutation nor a rotation"),
        (lambda s: {k: v for k, v in s.items() if "w_perm" not in k}, "no permutations"),
    ],
    ids=["scaled", "not square", "not a number", "mixed", "repeated index", "none"],
)
def test_what_is_no_permutation_is_refused(small_state, tmp_path: Path, change, complaint: str) -> None:
    with pytest.raises(BadInput, match=rf"odd\.ckpt: .*{complaint}"):
        load_checkpoint(saved(tmp_path / "odd.ckpt", change(small_state())))

"""The lowered flow against FrEIA's, on random and on trained weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from FrEIA.modules import AllInOneBlock
from hypothesis import given, settings
from hypothesis import strategies as st

from uflow_edge.export.checkpoints.checkpoint import load_checkpoint
from uflow_edge.export.network.architecture import Architecture, Coupling
from uflow_edge.export.network.channels import Selection
from uflow_edge.export.network.flow import build_flow, ordered_latents
from uflow_edge.export.network.lowered_network import lower
from uflow_edge.export.network.lowering import LoweredFlow, lower_flow
from uflow_edge.export.network.uflow import UFlow


def random_flow(architecture: Architecture, seed: int = 0) -> torch.nn.Module:
    """A flow in which every parameter matters: FrEIA's own start has gains of one and offsets of zero."""
    torch.manual_seed(seed)
    flow = build_flow(architecture).eval().requires_grad_(False)
    for name, parameter in flow.named_parameters():
        if name.endswith("global_scale"):
            parameter.copy_(1 + 0.5 * torch.randn_like(parameter))
        if name.endswith("global_offset"):
            parameter.copy_(0.5 * torch.randn_like(parameter))
        if ".subnet.2." in name:
            parameter.mul_(5)
    return flow


def held_at_one(flow: torch.nn.Module) -> torch.nn.Module:
    """The same flow with additive couplings."""
    for name, parameter in flow.named_parameters():
        if ".subnet.2." in name:
            parameter[: len(parameter) // 2] = 0
    return flow


def latents_of_both(flow: torch.nn.Module, architecture: Architecture, seed: int = 0) -> tuple[list, list]:
    """Latents of FrEIA's flow and of the lowered one, of the same random features."""
    torch.manual_seed(seed)
    features = [torch.randn(2, scale.channels, scale.side, scale.side) for scale in architecture.features]
    lowered = lower_flow(flow, architecture)
    stored = [
        ((feature.double() - entering.offset.view(-1, 1, 1)) / entering.gain.view(-1, 1, 1)).float()
        for feature, entering in zip(features, lowered.entering, strict=True)
    ]
    with torch.no_grad():
        return list(ordered_latents(flow, tuple(features), jac=False)[0]), list(lowered(*stored))


def energy_error(expected: list[torch.Tensor], found: list[torch.Tensor]) -> float:
    """Largest relative difference of any pixel's energy."""
    energies = [(a.double().square().sum(1), b.double().square().sum(1)) for a, b in zip(expected, found, strict=True)]
    return max(float(((a - b).abs() / a).max()) for a, b in energies)


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture.default("resnet18", 256),
        Architecture.default("wide_resnet50_2", 64),
        Architecture.default("efficientnet_lite0", 256),
        Architecture.default("mcait", 448, flow_steps=2),
    ],
    ids=lambda architecture: architecture.extractor,
)
def test_agrees_on_the_shapes_of_every_backbone(architecture: Architecture) -> None:
    assert energy_error(*latents_of_both(random_flow(architecture), architecture)) < 1e-5


@settings(max_examples=20, deadline=None)
@given(
    steps=st.integers(1, 5),
    coupling=st.builds(
        Coupling,
        formula=st.sampled_from(["clamp_tanh", "clamp_tanh_ratio"]),
        clamp=st.floats(0.5, 3.0),
        hidden_ratio=st.sampled_from([0.5, 1.0, 1.5]),
    ),
    taps=st.sampled_from([(2,), (2, 3), (1, 2, 3), (2, 3, 4)]),
    additive=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_agrees_whatever_the_flow(
    steps: int, coupling: Coupling, taps: tuple[int, ...], additive: bool, seed: int
) -> None:
    architecture = replace(
        Architecture.default("efficientnet_lite0", 64, steps), taps=taps, pooling=1, coupling=coupling
    )
    flow = random_flow(architecture, seed)
    assert energy_error(*latents_of_both(held_at_one(flow) if additive else flow, architecture, seed)) < 2e-5


def test_holds_the_same_latents_in_another_order() -> None:
    architecture = Architecture.default("resnet18", 64)
    for expected, found in zip(*latents_of_both(random_flow(architecture), architecture), strict=True):
        torch.testing.assert_close(expected.sort(dim=1).values, found.sort(dim=1).values, rtol=1e-4, atol=1e-5)


def test_offsets_count_for_less_at_the_border() -> None:
    """With biases in their place, only pixels near the border would be wrong, and they would be."""
    architecture = Architecture.default("resnet18", 64)
    flow = random_flow(architecture)
    expected, found = latents_of_both(flow, architecture)
    border = torch.ones(16, 16, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    error = (expected[0].square().sum(1) - found[0].square().sum(1)).abs() / expected[0].square().sum(1)
    assert error[:, border].max() < 1e-5
    couplings = [coupling for stage in lower_flow(flow, architecture).stages for coupling in stage.couplings]
    offsets = [coupling.offset for coupling in couplings if coupling.offset is not None]
    assert len(offsets) == 6  # of 12 couplings, the 3x3 ones
    assert all(offset.abs().max() > 1e-3 for offset in offsets)


def test_agrees_on_a_trained_checkpoint(reference: Path, end_to_end: dict[str, np.ndarray]) -> None:
    network = load_checkpoint(reference / "resnet18_256_s4.ckpt").network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    lowered = lower(network)
    for name in ("good", "defective", "painted"):
        image = torch.from_numpy(end_to_end[f"{name}/input"])[None]
        with torch.no_grad():
            latents = lowered(image)
        for i, z in enumerate(latents):
            expected = end_to_end[f"{name}/energy_{i}"]
            np.testing.assert_allclose(z.square().sum(1)[0].numpy(), expected, rtol=2e-5)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_agrees_with_whitened_features() -> None:
    torch.manual_seed(2)
    network = UFlow(Architecture.default("efficientnet_lite0", 64)).eval().requires_grad_(False)
    network.set_whitening(
        [
            torch.eye(s.channels) + 0.1 * torch.randn(s.side**2, s.channels, s.channels) / s.channels**0.5
            for s in network.architecture.features
        ]
    )
    for norm in network.feature_extractor.feature_normalizations:
        norm.weight.add_(0.1 * torch.randn_like(norm.weight))
        norm.bias.add_(0.1 * torch.randn_like(norm.bias))
    network.flow.load_state_dict(random_flow(network.architecture).state_dict())
    image = torch.randn(2, 3, 64, 64)
    assert energy_error(list(network(image)), list(lower(network)(image))) < 1e-5


def test_a_step_moves_channels_twice_and_joins_them_once() -> None:
    architecture = Architecture.default("resnet18", 64)
    lowered = lower_flow(random_flow(architecture), architecture)
    graph = torch.export.export(
        lowered, tuple(torch.zeros(1, s.channels, s.side, s.side) for s in architecture.features)
    )
    targets = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    couplings = 3 * architecture.flow_steps
    moves = [t for t in targets if t.startswith(("aten.index_select", "aten.narrow", "aten.slice"))]
    assert len(moves) == 2 * couplings + 4  # and upward and latent channels of the two coarser stages
    assert sum(t.startswith("aten.cat") for t in targets) == couplings + 2
    assert sum(t.startswith("aten.conv2d") for t in targets) == 2 * couplings
    assert isinstance(lowered, LoweredFlow)


def test_scales_held_at_one_are_not_computed() -> None:
    architecture = Architecture.default("resnet18", 64)
    flow = held_at_one(random_flow(architecture))
    couplings = [coupling for stage in lower_flow(flow, architecture).stages for coupling in stage.couplings]
    assert {coupling.output.out_channels for coupling in couplings} == {42, 80, 128}  # not twice as many
    subnet = next(module.subnet for module in flow.module_list if hasattr(module, "subnet"))
    subnet[-1].bias[0] = 1e-6  # one scale in one coupling
    couplings = [coupling for stage in lower_flow(flow, architecture).stages for coupling in stage.couplings]
    assert sum(coupling.clamp is not None for coupling in couplings) == 1


def test_neighbours_are_sliced_and_others_gathered() -> None:
    stored = torch.arange(6.0).view(1, 6, 1, 1)
    assert Selection([2, 3, 4])(stored).flatten().tolist() == [2, 3, 4]
    assert Selection([2, 3, 4]).indices is None
    assert Selection([4, 0, 5])(stored).flatten().tolist() == [4, 0, 5]


@pytest.mark.parametrize("joint", [False, True])
def test_couplings_that_change_nothing_cost_nothing(joint: bool) -> None:
    """Of a flow that starts at the identity, only gains, offsets and the order of channels are left."""
    torch.manual_seed(4)
    network = UFlow(replace(Architecture.default("efficientnet_lite0", 64), joint=joint)).eval().requires_grad_(False)
    blocks = [block for block in network.flow.module_list if isinstance(block, AllInOneBlock)]
    for block in blocks:
        block.global_offset.add_(0.1 * torch.randn_like(block.global_offset))
        for values in block.subnet[2].parameters():
            values.zero_()
    lowered = lower(network)
    assert not any(len(stage.couplings) for stage in lowered.flow.stages)
    image = torch.randn(2, 3, 64, 64)
    assert energy_error(list(network(image)), list(lowered(image))) < 1e-5
    for values in blocks[1].subnet[2].parameters():  # one of several that does something
        values.add_(0.1 * torch.randn_like(values))
    assert energy_error(list(network(image)), list(lower(network)(image))) < 1e-5

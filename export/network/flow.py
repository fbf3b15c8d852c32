"""The U-shaped normalizing flow as FrEIA builds it (paper, section 3.2): for training, and as the reference."""

from collections.abc import Callable

import FrEIA.framework as ff
import FrEIA.modules as fm
import torch
from torch import Tensor, nn

from uflow_edge.export.network.architecture import Architecture, CouplingFormula, upward_channels


class RatioClampedBlock(fm.AllInOneBlock):
    """FrEIA 0.2's block with the coupling of its successors, exp(clamp · tanh(s / clamp)); see `Coupling`."""

    def _affine(self, x: Tensor, a: Tensor, rev: bool = False) -> tuple[Tensor, Tensor]:
        exponents, translations = a[:, : x.shape[1]], a[:, x.shape[1] :]
        affine: tuple[Tensor, Tensor] = super()._affine(x, torch.cat([exponents / self.clamp, translations], 1), rev)
        return affine


_BLOCKS: dict[CouplingFormula, type[fm.AllInOneBlock]] = {
    "clamp_tanh": fm.AllInOneBlock,
    "clamp_tanh_ratio": RatioClampedBlock,
}


def _subnet(kernel_size: int, hidden_ratio: float) -> Callable[[int, int], nn.Module]:
    def build(channels_in: int, channels_out: int) -> nn.Module:
        hidden = int(channels_in * hidden_ratio)
        return nn.Sequential(
            nn.Conv2d(channels_in, hidden, kernel_size, padding="same"),
            nn.ReLU(),
            nn.Conv2d(hidden, channels_out, kernel_size, padding="same"),
        )

    return build


def _stage(node: ff.Node, architecture: Architecture, nodes: list[ff.Node], name: str) -> ff.Node:
    coupling = architecture.coupling
    for step in range(architecture.flow_steps):
        arguments = {
            "subnet_constructor": _subnet(3 if step % 2 == 0 else 1, coupling.hidden_ratio),
            "affine_clamping": coupling.clamp,
            "global_affine_type": "SOFTPLUS",
        }
        node = ff.Node(node, _BLOCKS[coupling.formula], arguments, name=f"{name}_step{step}")
        nodes.append(node)
    return node


def build_flow(architecture: Architecture) -> ff.GraphINN:
    """A GraphINN from feature maps to latents, both finest first.

    Its ``module_list`` runs from the coarsest scale to the finest: the blocks of a stage, then Split, upsampling and
    Concat towards the next. Called with ``jac=True`` it also returns the log-determinant of the Jacobian, (N,).
    Its permutations start hard; soft ones (`Coupling.permutation`) come with the weights.
    """
    features = architecture.features
    inputs = [
        ff.InputNode(scale.channels, scale.side, scale.side, name=f"input_{i}") for i, scale in enumerate(features)
    ]
    nodes, outputs = list(inputs), []
    node: ff.Node = inputs[-1]
    for level in range(len(features) - 1, -1, -1):
        node = _stage(node, architecture, nodes, f"scale{level}")
        if level == 0:
            break
        channels = node.output_dims[0][0]
        upward = upward_channels(channels)
        split = ff.Node(node, fm.Split, {"section_sizes": (upward, channels - upward), "dim": 0}, name=f"split{level}")
        output = ff.OutputNode(split.out1, name=f"latent_{level}")
        up = ff.Node(split.out0, fm.IRevNetUpsampling, {}, name=f"up{level}")
        node = ff.Node([inputs[level - 1].out0, up.out0], fm.Concat, {"dim": 0}, name=f"concat{level}")
        nodes += [split, output, up, node]
        outputs.append(output)
    nodes.append(ff.OutputNode(node, name="latent_0"))
    return ff.GraphINN(nodes)


def ordered_latents(flow: ff.GraphINN, features: tuple[Tensor, ...], jac: bool) -> tuple[tuple[Tensor, ...], Tensor]:
    """Run the flow and list its latents finest first, whatever order FrEIA gives its outputs."""
    latents, log_jacobian = flow(list(features), jac=jac)
    if isinstance(latents, Tensor):
        latents = (latents,)
    return tuple(sorted(latents, key=lambda z: -z.shape[-1])), log_jacobian

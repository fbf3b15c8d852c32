"""The U-shaped normalizing flow as FrEIA builds it (paper, section 3.2): for training, and as the reference."""

from collections.abc import Callable

import FrEIA.framework as ff
import FrEIA.modules as fm
from torch import Tensor, nn

from uflow_edge.export.architecture import Architecture, upward_channels

AFFINE_CLAMP = 2.0


def _subnet(kernel_size: int) -> Callable[[int, int], nn.Module]:
    def build(channels_in: int, channels_out: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(channels_in, channels_in, kernel_size, padding="same"),
            nn.ReLU(),
            nn.Conv2d(channels_in, channels_out, kernel_size, padding="same"),
        )

    return build


def _stage(node: ff.Node, flow_steps: int, nodes: list[ff.Node], name: str) -> ff.Node:
    for step in range(flow_steps):
        arguments = {
            "subnet_constructor": _subnet(3 if step % 2 == 0 else 1),
            "affine_clamping": AFFINE_CLAMP,
            "global_affine_type": "SOFTPLUS",
        }
        node = ff.Node(node, fm.AllInOneBlock, arguments, name=f"{name}_step{step}")
        nodes.append(node)
    return node


def build_flow(architecture: Architecture) -> ff.GraphINN:
    """A GraphINN from feature maps to latents, both finest first.

    Its ``module_list`` runs from the coarsest scale to the finest: the blocks of a stage, then Split, upsampling and
    Concat towards the next. Called with ``jac=True`` it also returns the log-determinant of the Jacobian, (N,).
    """
    features = architecture.features
    inputs = [
        ff.InputNode(scale.channels, scale.side, scale.side, name=f"input_{i}") for i, scale in enumerate(features)
    ]
    nodes, outputs = list(inputs), []
    node: ff.Node = inputs[-1]
    for level in range(len(features) - 1, -1, -1):
        node = _stage(node, architecture.flow_steps, nodes, f"scale{level}")
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

"""Converts a state dict of guided-diffusion to the configuration and weights of the same network in diffusers.

Both are the UNet of Dhariwal & Nichol, 2021. guided-diffusion numbers its blocks; diffusers sorts them by level. On the
way down a level is its residual blocks, then what halves the resolution; on the way up one residual block more, then,
inside the last of these blocks, what doubles it. Queries, keys and values are one matrix in guided-diffusion and three
in diffusers.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from uflow_edge.export.checkpoints.states import check_tensors, in_float32
from uflow_edge.export.network.blank import without_weights
from uflow_edge.export.unet.flags import GROUPS, GuidedDiffusionFlags
from uflow_edge.runtime.errors import require

_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_QKV = ("to_q", "to_k", "to_v")


def convert(state: Mapping[str, Tensor], flags: GuidedDiffusionFlags) -> nn.Module:
    """The same network as a ``diffusers.UNet2DModel``, in evaluation mode and float32; float32 weights are shared.

    Args:
        state: in guided-diffusion's names, float32 or less.
        flags: see `uflow_edge.export.unet.inferred_flags.settle_flags`.

    Raises:
        BadInput: tensors are missing, left over, of the wrong shape or type, or not finite; the message names them.
    """
    network = blank_network(unet_config(flags))
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    names = renamed(flags, shapes)
    check_tensors(state, {old: _old_shape(old, [shapes[name] for name in new]) for old, new in names.items()})
    single = in_float32(state)
    weights: dict[str, Tensor] = {}
    for old, new in names.items():
        value = single[old]
        parts = split_qkv(value, flags) if len(new) > 1 else (value,)
        weights.update({name: part.reshape(shapes[name]) for name, part in zip(new, parts, strict=True)})
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False)


def blank_network(config: Mapping[str, Any]) -> nn.Module:
    """A ``diffusers.UNet2DModel`` without weights."""
    diffusers = require("diffusers", "export")
    with without_weights():
        network: nn.Module = diffusers.UNet2DModel(**config)
    return network


def unet_config(flags: GuidedDiffusionFlags) -> dict[str, Any]:
    """The arguments of ``diffusers.UNet2DModel``."""
    down, up = ("ResnetDownsample", "ResnetUpsample") if flags.resblock_updown else ("Down", "Up")
    attends = [level in flags.attention_levels for level in range(len(flags.channel_mult))]
    sampling = "resnet" if flags.resblock_updown else "conv"
    return {
        "sample_size": flags.image_size,
        "in_channels": flags.image_channels,
        "out_channels": flags.image_channels * (2 if flags.learn_sigma else 1),
        "layers_per_block": flags.num_res_blocks,
        "block_out_channels": flags.level_channels,
        "down_block_types": tuple(f"{'AttnDown' if here else down}Block2D" for here in attends),
        "up_block_types": tuple(f"{'AttnUp' if here else up}Block2D" for here in reversed(attends)),
        "downsample_type": sampling,
        "upsample_type": sampling,
        "attention_head_dim": flags.num_head_channels,
        "norm_num_groups": GROUPS,
        "attn_norm_num_groups": GROUPS,  # else the middle attention has no normalisation
        "norm_eps": 1e-5,
        "resnet_time_scale_shift": "scale_shift" if flags.use_scale_shift_norm else "default",
        "flip_sin_to_cos": True,
        "freq_shift": 0,
    }


def renamed(flags: GuidedDiffusionFlags, names: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The name in diffusers of each tensor of guided-diffusion; three names for queries, keys and values.

    Args:
        names: of all tensors in diffusers; modules without tensors, such as a shortcut not needed, are left out.
    """
    found = {}
    for old, new in _modules(flags):
        for kind in ("weight", "bias"):
            renamed_to = tuple(f"{module}.{kind}" for module in new)
            if renamed_to[0] in names:
                found[f"{old}.{kind}"] = renamed_to
    return found


def split_qkv(rows: Tensor, flags: GuidedDiffusionFlags) -> tuple[Tensor, ...]:
    """Queries, keys and values from the tensor (3 C, …) that holds the rows of all three."""
    if flags.use_new_attention_order:
        return rows.chunk(3)
    by_head = rows.unflatten(0, (-1, 3, flags.num_head_channels))
    return tuple(part.flatten(0, 1) for part in by_head.unbind(1))


def _modules(flags: GuidedDiffusionFlags) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Names of each module with weights, in guided-diffusion and in diffusers."""
    yield "time_embed.0", ("time_embedding.linear_1",)
    yield "time_embed.2", ("time_embedding.linear_2",)
    yield "input_blocks.0.0", ("conv_in",)
    yield from _down(flags)
    yield from _residual("middle_block.0", "mid_block.resnets.0")
    yield from _attention("middle_block.1", "mid_block.attentions.0")
    yield from _residual("middle_block.2", "mid_block.resnets.1")
    yield from _up(flags)
    yield "out.0", ("conv_norm_out",)
    yield "out.2", ("conv_out",)


def _down(flags: GuidedDiffusionFlags) -> Iterator[tuple[str, tuple[str, ...]]]:
    block = 1
    last = len(flags.channel_mult) - 1
    for level in range(last + 1):
        for i in range(flags.num_res_blocks):
            yield from _residual(f"input_blocks.{block}.0", f"down_blocks.{level}.resnets.{i}")
            if level in flags.attention_levels:
                yield from _attention(f"input_blocks.{block}.1", f"down_blocks.{level}.attentions.{i}")
            block += 1
        if level < last:
            sampler = f"down_blocks.{level}.downsamplers.0"
            if flags.resblock_updown:
                yield from _residual(f"input_blocks.{block}.0", sampler)
            else:
                yield f"input_blocks.{block}.0.op", (f"{sampler}.conv",)
            block += 1


def _up(flags: GuidedDiffusionFlags) -> Iterator[tuple[str, tuple[str, ...]]]:
    block = 0
    last = len(flags.channel_mult) - 1
    for step in range(last + 1):
        attends = last - step in flags.attention_levels
        for i in range(flags.num_res_blocks + 1):
            yield from _residual(f"output_blocks.{block}.0", f"up_blocks.{step}.resnets.{i}")
            if attends:
                yield from _attention(f"output_blocks.{block}.1", f"up_blocks.{step}.attentions.{i}")
            block += 1
        if step < last:
            part = f"output_blocks.{block - 1}.{2 if attends else 1}"
            sampler = f"up_blocks.{step}.upsamplers.0"
            if flags.resblock_updown:
                yield from _residual(part, sampler)
            else:
                yield f"{part}.conv", (f"{sampler}.conv",)


def _residual(old: str, new: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for inner, renamed_to in _RESIDUAL.items():
        yield f"{old}.{inner}", (f"{new}.{renamed_to}",)


def _attention(old: str, new: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield f"{old}.norm", (f"{new}.group_norm",)
    yield f"{old}.qkv", tuple(f"{new}.{part}" for part in _QKV)
    yield f"{old}.proj_out", (f"{new}.to_out.0",)


def _old_shape(name: str, shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Shape of a tensor in guided-diffusion, from the shapes of its parts in diffusers."""
    rows, rest = sum(shape[0] for shape in shapes), shapes[0][1:]
    one_pixel = name.endswith((".qkv.weight", ".proj_out.weight"))  # a convolution there, a matrix here
    return (rows, *rest, 1) if one_pixel else (rows, *rest)

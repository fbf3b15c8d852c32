"""Infers the flags of a guided-diffusion network from its tensors.

A state dict carries no flags, but shapes and names tell most of them. The others (the size of the pictures and of the
attention heads, the order of the rows of queries, keys and values, the noise schedule) are stated by the user, or are
those of OpenAI's published unconditional networks. Stated flags must agree with the tensors.
"""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from uflow_edge.export.unet.flags import DEFAULT_SCHEDULE, DEFAULT_STEPS, GuidedDiffusionFlags, StatedFlags, settled
from uflow_edge.runtime.errors import BadInput

DEFAULT_HEAD_CHANNELS = 64

_INDEX = re.compile(r"\d{1,9}", re.ASCII)
_MULTIPLIERS = {256: (1, 1, 2, 2, 4, 4), 128: (1, 1, 2, 3, 4), 64: (1, 2, 3, 4)}  # as published, by image_size


def settle_flags(state: Mapping[str, Tensor], stated: StatedFlags = StatedFlags()) -> GuidedDiffusionFlags:
    """The flags of the network that a state dict in guided-diffusion's names belongs to.

    Raises:
        BadInput: the network is not supported, a flag contradicts a tensor or must be stated; the message names flag
            and tensor.
    """
    _refuse_others(state, stated)
    blocks = settled("num_res_blocks", stated.num_res_blocks, *_res_blocks(state))
    time = "time_embed.0.weight"
    channels = settled("num_channels", stated.num_channels, _shape(state, time)[1], time)
    firsts = range(1, 1 + _last_index(state, "input_blocks"), blocks + 1)  # the first residual block of each level
    level_channels = _level_channels(state, stated, channels, firsts)
    image_channels = _shape(state, "input_blocks.0.0.weight")[1]
    image_size = _usual_size(level_channels, channels) if stated.image_size is None else stated.image_size
    levels = _attention_levels(state, stated, image_size, firsts)
    between = f"input_blocks.{blocks + 1}.0.op.weight"  # a convolution that halves the resolution
    time_rows = _shape(state, "input_blocks.1.0.emb_layers.1.weight")[0]
    variance = _shape(state, "out.2.weight")[0] == 2 * image_channels
    return GuidedDiffusionFlags(
        image_size,
        channels,
        blocks,
        tuple(count / max(channels, 1) for count in level_channels),
        levels,
        _head_channels(stated, {level_channels[level] for level in (*levels, -1)}),
        settled("learn_sigma", stated.learn_sigma, variance, "out.2.weight"),
        settled(
            "use_scale_shift_norm",
            stated.use_scale_shift_norm,
            time_rows == 2 * level_channels[0],
            "input_blocks.1.0.emb_layers.1.weight",
        ),
        len(firsts) > 1 and settled("resblock_updown", stated.resblock_updown, between not in state, between),
        stated.use_new_attention_order or False,
        stated.noise_schedule or DEFAULT_SCHEDULE,
        DEFAULT_STEPS if stated.diffusion_steps is None else stated.diffusion_steps,
        image_channels,
    )


def _refuse_others(state: Mapping[str, Tensor], stated: StatedFlags) -> None:
    rescales = stated.rescale_timesteps and stated.diffusion_steps not in (None, 1000)  # with 1000, by 1
    refused = {
        "class_cond: the network is told a class (label_emb.weight), and purification has none to tell": (
            stated.class_cond or "label_emb.weight" in state
        ),
        "predict_xstart: the network predicts the picture; only those that predict the noise are run": (
            stated.predict_xstart
        ),
        "rescale_timesteps: is supported with diffusion_steps 1000 only": rescales,
        "has no output_blocks, so it is a classifier or an encoder, not a UNet": (
            not any(name.startswith("output_blocks.") for name in state)
        ),
        "input_blocks.0.0.weight: the network reads more than a picture (as those for super-resolution do)": (
            _shape(state, "input_blocks.0.0.weight")[1] > 3
        ),
    }
    for why, applies in refused.items():
        if applies:
            raise BadInput(why)


def _res_blocks(state: Mapping[str, Tensor]) -> tuple[int, str]:
    """Residual blocks per level, and the telling tensor: the upsampler that ends the coarsest level on the way up."""
    total = _last_index(state, "output_blocks") + 1
    for k in range(total):
        for part in (1, 2):
            for tensor in (f"output_blocks.{k}.{part}.in_layers.2.weight", f"output_blocks.{k}.{part}.conv.weight"):
                if tensor in state:
                    return max(k, 1), tensor  # none in the first block, or there would be no residual block before
    return max(total - 1, 1), f"output_blocks.{total - 1}.0.in_layers.2.weight"


def _level_channels(
    state: Mapping[str, Tensor], stated: StatedFlags, channels: int, firsts: Iterable[int]
) -> tuple[int, ...]:
    tensors = [f"input_blocks.{k}.0.out_layers.3.weight" for k in firsts]
    found = tuple(_shape(state, tensor)[0] for tensor in tensors)
    if stated.channel_mult is not None:
        wanted = tuple(int(multiplier * channels) for multiplier in stated.channel_mult)
        settled("number of levels in channel_mult", len(wanted), len(found), "the count of input_blocks")
        for i, tensor in enumerate(tensors):
            settled(f"channel_mult[{i}] × num_channels", wanted[i], found[i], tensor)
    return found


def _usual_size(level_channels: tuple[int, ...], channels: int) -> int:
    for size, multipliers in _MULTIPLIERS.items():
        if level_channels == tuple(multiplier * channels for multiplier in multipliers):
            return size
    raise BadInput("image_size cannot be told from the tensors; state it in the file given with --unet-config")


def _attention_levels(
    state: Mapping[str, Tensor], stated: StatedFlags, image_size: int, firsts: Iterable[int]
) -> tuple[int, ...]:
    tensors = [f"input_blocks.{k}.1.qkv.weight" for k in firsts]
    found = tuple(level for level, tensor in enumerate(tensors) if tensor in state)
    if stated.attention_resolutions is not None:
        factors = {image_size // resolution for resolution in stated.attention_resolutions if resolution > 0}
        for level, tensor in enumerate(tensors):
            if (1 << level in factors) != (level in found):
                listed = ",".join(map(str, stated.attention_resolutions))
                raise BadInput(
                    f"attention_resolutions is stated as {listed}, but with image_size {image_size} there "
                    f"{'must not' if level in found else 'must'} be a tensor {tensor}; correct one of the two flags"
                )
    return found


def _head_channels(stated: StatedFlags, attended: set[int]) -> int:
    """Channels of each head, given the channel counts of the levels with attention."""
    listed = ", ".join(map(str, sorted(attended)))
    if stated.num_head_channels in (None, -1) and stated.num_heads is not None:
        if len(attended) > 1 or stated.num_heads_upsample not in (None, -1, stated.num_heads):
            raise BadInput(
                f"num_heads is {stated.num_heads} without num_head_channels, over {listed} channels; heads of "
                "different sizes are not supported"
            )
        flag, size = "num_heads", max(attended) // max(stated.num_heads, 1)
    else:
        flag, size = "num_head_channels", stated.num_head_channels or DEFAULT_HEAD_CHANNELS
    if size < 1 or any(count % size for count in attended):
        raise BadInput(
            f"{flag}: heads of {size} channels do not divide the {listed} channels of the qkv.weight tensors; state "
            "num_head_channels in the file given with --unet-config"
        )
    return size


def _last_index(state: Mapping[str, Tensor], prefix: str) -> int:
    parts = [name.split(".", 2) for name in state if name.startswith(f"{prefix}.")]
    last = max((int(index) for _, index, *_ in parts if _INDEX.fullmatch(index)), default=0)
    if last > len(state):
        raise BadInput(f"has {prefix}.{last} but only {len(state)} tensors, so blocks are missing")
    return last


def _shape(state: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    if name not in state:
        raise BadInput(f"has no tensor {name}, which every network of guided-diffusion has")
    shape = tuple(state[name].shape)
    return shape if len(shape) > 1 else (*shape, 0, 0)[:2]

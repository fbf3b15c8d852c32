"""The flags a guided-diffusion network was built with: stated in a YAML file, read off its tensors, or both.

A state dict carries no flags, but shapes and names tell most of them. What they cannot tell (the size of the pictures,
of the attention heads, the order of the rows of queries, keys and values, the noise schedule) is stated, or is as in
OpenAI's published unconditional networks. What is stated must agree with the tensors.

Source: Dhariwal & Nichol, Diffusion Models Beat GANs on Image Synthesis, 2021, and the flags of its program, which
Diff-CF's ``parameters.yaml`` repeats.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from torch import Tensor

from uflow_edge.runtime.errors import BadInput, require
from uflow_edge.runtime.unet_manifest import SCHEDULES, ScheduleName

DEFAULT_HEAD_CHANNELS = 64
DEFAULT_SCHEDULE: ScheduleName = "linear"
DEFAULT_STEPS = 1000

_MULTIPLIERS = {256: (1, 1, 2, 2, 4, 4), 128: (1, 1, 2, 3, 4), 64: (1, 2, 3, 4)}  # where channel_mult is empty
_GROUPS = 32  # of every normalisation
_T = TypeVar("_T")


def _whole(value: Any) -> int:
    if isinstance(value, bool) or int(value) != float(value):
        raise ValueError
    return int(value)


def _yes(value: Any) -> bool:
    return {"true": True, "false": False}[str(value).lower()]


def _schedule(value: Any) -> ScheduleName:
    if value not in SCHEDULES:
        raise ValueError
    return cast(ScheduleName, value)


def _listed(convert: Callable[[Any], _T]) -> Callable[[Any], tuple[_T, ...] | None]:
    def parse(value: Any) -> tuple[_T, ...] | None:
        entries = value if isinstance(value, list) else str(value).split(",")
        return tuple(convert(entry) for entry in entries) if value != "" else None

    return parse


def _flag(parse: Callable[[Any], Any]) -> Any:
    return field(default=None, metadata={"parse": parse})


@dataclass(frozen=True, slots=True)
class StatedFlags:
    """What a configuration says, in the vocabulary of guided-diffusion; None where it is silent."""

    image_size: int | None = _flag(_whole)
    num_channels: int | None = _flag(_whole)
    num_res_blocks: int | None = _flag(_whole)
    channel_mult: tuple[float, ...] | None = _flag(_listed(float))
    attention_resolutions: tuple[int, ...] | None = _flag(_listed(_whole))
    num_heads: int | None = _flag(_whole)
    num_head_channels: int | None = _flag(_whole)
    num_heads_upsample: int | None = _flag(_whole)
    learn_sigma: bool | None = _flag(_yes)
    class_cond: bool | None = _flag(_yes)
    use_scale_shift_norm: bool | None = _flag(_yes)
    resblock_updown: bool | None = _flag(_yes)
    use_new_attention_order: bool | None = _flag(_yes)
    predict_xstart: bool | None = _flag(_yes)
    rescale_timesteps: bool | None = _flag(_yes)
    noise_schedule: ScheduleName | None = _flag(_schedule)
    diffusion_steps: int | None = _flag(_whole)


_WITHOUT_EFFECT = frozenset(
    {"model_path", "dropout", "use_fp16", "use_checkpoint", "timestep_respacing", "use_kl", "rescale_learned_sigmas"}
    | {"steps", "blocks", "input_activations", "batch_size", "num_samples", "use_ddim", "clip_denoised"}
)


@dataclass(frozen=True, slots=True)
class GuidedDiffusionFlags:
    """All that shapes a network, settled.

    Attributes:
        image_size: side of the square pictures.
        image_channels: of the pictures; 3 in all that is published.
        num_channels: of the first level.
        num_res_blocks: a level.
        channel_mult: channels of each level, finest first, as multiples of the first's.
        attention_levels: indices of the levels with attention.
        num_head_channels: of each attention head.
        learn_sigma: whether the variance is learned.
        use_scale_shift_norm: whether the time scales and shifts, or only shifts.
        resblock_updown: whether residual blocks change the resolution, or convolutions.
        use_new_attention_order: whether rows lie as queries, keys, values, and not head by head.
        noise_schedule: of the training.
        diffusion_steps: of the schedule.
    """

    image_size: int
    num_channels: int
    num_res_blocks: int
    channel_mult: tuple[float, ...]
    attention_levels: tuple[int, ...]
    num_head_channels: int
    learn_sigma: bool
    use_scale_shift_norm: bool
    resblock_updown: bool
    use_new_attention_order: bool = False
    noise_schedule: ScheduleName = DEFAULT_SCHEDULE
    diffusion_steps: int = DEFAULT_STEPS
    image_channels: int = 3

    def __post_init__(self) -> None:
        coarsest = 1 << (len(self.channel_mult) - 1)
        odd = [count for count in self.level_channels if count < 1 or count % _GROUPS]
        if odd:
            raise BadInput(f"num_channels × channel_mult is {odd[0]}, which {_GROUPS} groups cannot divide")
        if self.image_size < 1 or self.image_size % coarsest:
            raise BadInput(
                f"image_size is {self.image_size}, which cannot be halved {len(self.channel_mult) - 1} times"
            )
        if self.channel_mult[0] != 1:
            raise BadInput(
                f"channel_mult begins with {self.channel_mult[0]:g}; networks whose first level has not num_channels "
                "channels (as at 512 pixels) are not supported"
            )
        if self.diffusion_steps < 1:
            raise BadInput(f"diffusion_steps is {self.diffusion_steps}; expected at least 1")

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Channels of each level, finest first."""
        return tuple(round(self.num_channels * multiplier) for multiplier in self.channel_mult)


def read_flags(path: Path) -> StatedFlags:
    """The flags in a YAML file such as Diff-CF's ``parameters.yaml``; those that shape no network are passed over.

    Raises:
        BadInput: no such file, not YAML, an unknown flag (a misspelt one would be silently lost), or a value that
            cannot be meant.
        MissingDependency: PyYAML is not installed.
    """
    yaml = require("yaml", "export")
    if not path.is_file():
        raise BadInput(f"{path}: no such file; expected the flags of the network, in YAML")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: is not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path}: expected lines such as 'image_size: 256', found {type(content).__name__}")
    known = StatedFlags.__dataclass_fields__
    unknown = sorted(str(name) for name in content if name not in known and name not in _WITHOUT_EFFECT)
    if unknown:
        raise BadInput(f"{path}: unknown flags {', '.join(unknown)}; known are {', '.join(known)}")
    stated = {}
    for name, value in content.items():
        if name in known and value is not None:
            try:
                stated[name] = known[name].metadata["parse"](value)
            except (ValueError, TypeError, KeyError, OverflowError) as error:
                raise BadInput(f"{path}: {name} cannot be {value!r}; expected {known[name].type}") from error
    return StatedFlags(**stated)


def settle_flags(state: Mapping[str, Tensor], stated: StatedFlags = StatedFlags()) -> GuidedDiffusionFlags:
    """The flags of the network that a state dict in guided-diffusion's names belongs to.

    Raises:
        BadInput: a network that this program does not run, a flag that contradicts a tensor, or one that must be
            stated; the message names flag and tensor.
    """
    _refuse_others(state, stated)
    blocks = settled("num_res_blocks", stated.num_res_blocks, *_res_blocks(state))
    time = "time_embed.0.weight"
    channels = settled("num_channels", stated.num_channels, _shape(state, time)[1], time)
    firsts = range(1, 1 + _last_index(state, "input_blocks"), blocks + 1)  # the first residual block of each level
    level_channels = _level_channels(state, stated, channels, firsts)
    image_channels = _shape(state, "input_blocks.0.0.weight")[1]
    image_size = stated.image_size or _usual_size(level_channels, channels)
    levels = _attention_levels(state, stated, image_size, firsts)
    between = f"input_blocks.{blocks + 1}.0.op.weight"  # a convolution that halves the resolution
    time_rows = _shape(state, "input_blocks.1.0.emb_layers.1.weight")[0]
    variance = _shape(state, "out.2.weight")[0] == 2 * image_channels
    return GuidedDiffusionFlags(
        image_size,
        channels,
        blocks,
        tuple(count / channels for count in level_channels),
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


def settled(flag: str, stated: _T | None, found: _T, tensor: str) -> _T:
    """What was found, unless something else was stated.

    Raises:
        BadInput: it was.
    """
    if stated is not None and stated != found:
        raise BadInput(f"{flag} is stated as {stated}, but {tensor} says {found}; correct the flag, or leave it out")
    return found


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
    """Residual blocks a level, and the tensor that tells: the upsampler that ends the coarsest level on the way up."""
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
    """Of each head, given the numbers of channels that there is attention over."""
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
    last = max((int(index) for _, index, *_ in parts if index.isdecimal()), default=0)
    if last > len(state):
        raise BadInput(f"has {prefix}.{last} but only {len(state)} tensors, so blocks are missing")
    return last


def _shape(state: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    if name not in state:
        raise BadInput(f"has no tensor {name}, which every network of guided-diffusion has")
    shape = tuple(state[name].shape)
    return shape if len(shape) > 1 else (*shape, 0, 0)[:2]

"""The flags a guided-diffusion network was built with, as a YAML file states them and as they shape the network.

Source: Dhariwal & Nichol, Diffusion Models Beat GANs on Image Synthesis, 2021, and the flags of its program, which
Diff-CF's ``parameters.yaml`` repeats.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

from uflow_edge.export.wording import brief, listed, one_line
from uflow_edge.runtime.bundle.unet import SCHEDULES, ScheduleName
from uflow_edge.runtime.errors import BadInput, require

DEFAULT_SCHEDULE: ScheduleName = "linear"
DEFAULT_STEPS = 1000

GROUPS = 32
"""Of every normalisation."""

MOST_LEVELS, MOST_BLOCKS, LARGEST_SIDE, MOST_STEPS = 16, 32, 1 << 12, 100_000
"""What a network can have: levels, blocks a level, pixels a side, steps of the noise schedule."""
_LARGEST = 1 << 20  # of any flag
_LARGEST_FILE = 1 << 16  # bytes: parsing YAML takes time and memory out of all proportion

_T = TypeVar("_T")


def _whole(value: Any) -> int:
    if isinstance(value, bool) or int(value) != float(value) or abs(int(value)) > _LARGEST:
        raise ValueError
    return int(value)


def _real(value: Any) -> float:
    if not 0 < float(value) <= _LARGEST:
        raise ValueError
    return float(value)


def _yes(value: Any) -> bool:
    return {"true": True, "false": False}[str(value).lower()]


def _schedule(value: Any) -> ScheduleName:
    if value not in SCHEDULES:
        raise ValueError
    return cast(ScheduleName, value)


def _listed(convert: Callable[[Any], _T]) -> Callable[[Any], tuple[_T, ...] | None]:
    def parse(value: Any) -> tuple[_T, ...] | None:
        entries = value if isinstance(value, list) else str(value).split(",")
        if len(entries) > MOST_LEVELS:
            raise ValueError
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
    channel_mult: tuple[float, ...] | None = _flag(_listed(_real))
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
        use_scale_shift_norm: whether the time scales and shifts, or only shifts.
        resblock_updown: whether residual blocks change the resolution, or convolutions.
        use_new_attention_order: whether rows lie as queries, keys, values, and not head by head.
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
        if len(self.channel_mult) > MOST_LEVELS or self.num_res_blocks > MOST_BLOCKS or self.image_size > LARGEST_SIDE:
            raise BadInput(
                f"has {len(self.channel_mult)} levels of {self.num_res_blocks} blocks for {self.image_size} pixels; "
                f"expected at most {MOST_LEVELS} of {MOST_BLOCKS}, for {LARGEST_SIDE}"
            )
        if self.num_channels < 1 or self.image_channels < 1:
            raise BadInput(f"has {self.num_channels} num_channels for {self.image_channels} of the picture")
        coarsest = 1 << (len(self.channel_mult) - 1)
        odd = [count for count in self.level_channels if count < 1 or count % GROUPS]
        if odd:
            raise BadInput(f"num_channels × channel_mult is {odd[0]}, which {GROUPS} groups cannot divide")
        if self.image_size < 1 or self.image_size % coarsest:
            raise BadInput(
                f"image_size is {self.image_size}, which cannot be halved {len(self.channel_mult) - 1} times"
            )
        if self.channel_mult[0] != 1:
            raise BadInput(
                f"channel_mult begins with {self.channel_mult[0]:g}; networks whose first level has not num_channels "
                "channels (as at 512 pixels) are not supported"
            )
        if not 1 <= self.diffusion_steps <= MOST_STEPS:
            raise BadInput(f"diffusion_steps is {self.diffusion_steps}; expected at least 1 and at most {MOST_STEPS}")

    @property
    def level_channels(self) -> tuple[int, ...]:
        return tuple(round(self.num_channels * multiplier) for multiplier in self.channel_mult)


def read_flags(path: Path) -> StatedFlags:
    """Read the flags in a YAML file such as Diff-CF's ``parameters.yaml``; flags that shape no network are ignored.

    Raises:
        BadInput: there is no such file, it is not YAML, it has an unknown flag (which may be misspelt), or a value is
            invalid.
        MissingDependency: PyYAML is not installed.
    """
    yaml = require("yaml", "export")
    if not path.is_file():
        raise BadInput(f"{path}: no such file; expected the flags of the network, in YAML")
    if path.stat().st_size > _LARGEST_FILE:
        raise BadInput(f"{path}: has more than {_LARGEST_FILE >> 10} KiB, which no file of flags needs")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _loader(yaml))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # values such as the date 2001-99-99 too
        raise BadInput(f"{path}: is not YAML ({one_line(str(error))})") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path}: expected lines such as 'image_size: 256', found {type(content).__name__}")
    known = StatedFlags.__dataclass_fields__
    unknown = sorted(str(name) for name in content if name not in known and name not in _WITHOUT_EFFECT)
    if unknown:
        raise BadInput(f"{path}: unknown flags {listed(unknown)}; known are {', '.join(known)}")
    stated = {}
    for name, value in content.items():
        if name in known and value is not None:
            try:
                stated[name] = known[name].metadata["parse"](value)
            except (ValueError, TypeError, KeyError, OverflowError) as error:
                raise BadInput(f"{path}: {name} cannot be {brief(value)}; expected {known[name].type}") from error
    return StatedFlags(**stated)


def _loader(yaml: ModuleType) -> type:
    """PyYAML's safe loader without aliases, which can turn a short text into an endless value."""

    class Loader(yaml.SafeLoader):  # type: ignore[name-defined]
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("it has an alias (*name), which flags do not need")
            return super().compose_node(parent, index)

    return Loader


def settled(flag: str, stated: _T | None, found: _T, tensor: str) -> _T:
    """The value that was found.

    Raises:
        BadInput: another one was stated.
    """
    if stated is not None and stated != found:
        raise BadInput(f"{flag} is stated as {stated}, but {tensor} says {found}; correct the flag, or leave it out")
    return found

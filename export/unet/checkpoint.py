"""Diffusion UNets in: guided-diffusion's state dicts and folders of diffusers. No code in them is run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from uflow_edge.export.tensors import load_safetensors, load_tensors
from uflow_edge.export.unet.flags import (
    DEFAULT_SCHEDULE,
    DEFAULT_STEPS,
    StatedFlags,
    read_flags,
    settled,
)
from uflow_edge.export.unet.guided_diffusion import blank_network, check_tensors, convert, is_guided_diffusion
from uflow_edge.export.unet.inferred_flags import settle_flags
from uflow_edge.export.unet.schedule import read_noisiest_step, read_schedule
from uflow_edge.runtime.errors import BadInput, require
from uflow_edge.runtime.unet_manifest import ScheduleName

GUIDED_DIFFUSION = "guided-diffusion's"
DIFFUSERS = "diffusers'"

_WRAPPERS = ("ema", "ema_state_dict", "state_dict", "model")  # the averaged weights first: they are the better ones
_MODULE = "module."  # what data-parallel training puts before every name
_CONFIG = "config.json"
_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_MOST = 1024  # levels, blocks a level: more is no network
_OLD_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


@dataclass(frozen=True, slots=True)
class UNetCheckpoint:
    """A network that predicts the noise in pictures, every tensor accounted for.

    Attributes:
        path: the file that holds the weights.
        model: a ``diffusers.UNet2DModel`` in evaluation mode and float32; takes (N, C, S, S) in [-1, 1] and (N,) steps.
        image_size: S, pixels.
        channels: C.
        learned_variance: whether it returns 2 C channels, the second half being the variance.
        schedule: of the noise in training.
        steps: of that schedule.
        noisiest_step: index of the last one that the network has learned; None, all.
        origin: who wrote it, for people.
    """

    path: Path
    model: nn.Module
    image_size: int
    channels: int
    learned_variance: bool
    schedule: ScheduleName
    steps: int
    noisiest_step: int | None
    origin: str


def load_unet(path: Path, config: Path | None = None) -> UNetCheckpoint:
    """Read a diffusion UNet.

    Args:
        path: a state dict of guided-diffusion (.pt, .pth or .safetensors), a model folder of diffusers, or a pipeline
            folder with ``unet/`` in it.
        config: flags of the network in YAML, where its tensors do not tell them; see `uflow_edge.export.unet.flags`. Of
            a folder it may state what the folder is silent about, and image size and variance must agree.

    Raises:
        BadInput: not a UNet, truncated, holding code, not of the flags stated, conditioned on something, predicting
            something else than noise, or with tensors missing, left over, of another shape or not finite.
        MissingDependency: diffusers or PyYAML is not installed.
    """
    stated = StatedFlags() if config is None else read_flags(config)
    try:
        return _read_folder(path, stated) if path.is_dir() else _read_file(path, stated)
    except BadInput as error:
        text = str(error)
        raise error if text.startswith(str(path)) else BadInput(f"{path}: {text}") from error


def _read_file(path: Path, stated: StatedFlags) -> UNetCheckpoint:
    if path.suffix == ".safetensors":
        state: Any = load_safetensors(path)
    else:
        state = load_tensors(path, "a state dict of plain tensors")
    state = _unwrapped(state)
    if "conv_in.weight" in state:
        raise BadInput("is of diffusers; give the folder that holds it and its config.json")
    if not is_guided_diffusion(state):
        raise BadInput("has no input_blocks, so it is not a state dict of guided-diffusion")
    flags = settle_flags(state, stated)
    return UNetCheckpoint(
        path,
        convert(state, flags),
        flags.image_size,
        flags.image_channels,
        flags.learn_sigma,
        flags.noise_schedule,
        flags.diffusion_steps,
        None,
        GUIDED_DIFFUSION,
    )


def _unwrapped(content: Any) -> dict[str, Tensor]:
    """The state dict itself, out of what a training program may have put around it."""
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if not isinstance(content, dict) or not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise BadInput("holds no state dict: a dictionary of nothing but tensors")
    return {str(name).removeprefix(_MODULE): value for name, value in content.items()}


def _read_folder(path: Path, stated: StatedFlags) -> UNetCheckpoint:
    folder = path / "unet" if (path / "unet").is_dir() else path
    config = _read_config(folder / _CONFIG)
    network = _network_of(config, folder / _CONFIG)
    weights = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise BadInput(f"{folder}: holds none of {', '.join(_WEIGHTS)}; weights in several files are not supported")
    state = load_safetensors(weights) if weights.suffix == ".safetensors" else load_tensors(weights, "a state dict")
    state = _unwrapped(state)
    needed = network.state_dict()
    state = {_new_name(name, needed): value for name, value in state.items()}
    check_tensors(state, {name: tuple(value.shape) for name, value in needed.items()})
    network.load_state_dict({name: value.float().detach() for name, value in state.items()}, assign=True)
    if stated.predict_xstart:
        raise BadInput("predict_xstart: the network predicts the picture; only those that predict the noise are run")
    channels = int(config["in_channels"])
    learned = int(config["out_channels"]) == 2 * channels
    schedule, steps, noisiest_step = _schedule(path, learned, stated)
    source = f"{folder / _CONFIG}"
    return UNetCheckpoint(
        weights,
        network.eval().requires_grad_(False),
        settled("image_size", stated.image_size, int(config["sample_size"]), source),
        channels,
        settled("learn_sigma", stated.learn_sigma, learned, source),
        schedule,
        steps,
        noisiest_step,
        DIFFUSERS,
    )


def _new_name(name: str, needed: Mapping[str, Tensor]) -> str:
    """What newer versions of diffusers call an attention's tensor."""
    if name not in needed:
        for old, new in _OLD_NAMES.items():
            name = name.replace(old, new)
    return name


def _read_config(path: Path) -> dict[str, Any]:
    """The arguments of ``UNet2DModel`` in a ``config.json``, with the defaults of those it leaves out."""
    content = read_json(path)
    if content.get("_class_name") != "UNet2DModel":
        raise BadInput(
            f"{path}: is of {content.get('_class_name')}; only UNet2DModel, which reads nothing but a picture"
        )
    parameters = signature(require("diffusers", "export").UNet2DModel.__init__).parameters
    defaults = {name: value.default for name, value in parameters.items() if name != "self"}
    stated = {name: value for name, value in content.items() if not name.startswith("_")}
    unknown = sorted(stated.keys() - defaults.keys())
    if unknown:
        raise BadInput(f"{path}: this version of diffusers knows no {', '.join(unknown)}; a newer one may")
    return {**defaults, **stated}


def _network_of(config: Mapping[str, Any], path: Path) -> nn.Module:
    refused = {
        "class_embed_type": config["class_embed_type"] is not None,
        "num_class_embeds": config["num_class_embeds"] is not None,
        "sample_size": not _is_count(config["sample_size"], 1 << 16),
        "in_channels": not _is_count(config["in_channels"], _MOST),
        "out_channels": config["out_channels"] not in (config["in_channels"], _doubled(config["in_channels"])),
        "layers_per_block": not _is_count(config["layers_per_block"], _MOST),
        "down_block_types": not isinstance(config["down_block_types"], list | tuple)
        or len(config["down_block_types"]) > _MOST,
        "time_embedding_type": config["time_embedding_type"] != "positional",
    }
    for name, applies in refused.items():
        if applies:
            raise BadInput(
                f"{path}: {name} is {config[name]!r}; what is run here turns a square picture and a step into noise, "
                "or noise and variance, and is not conditioned on classes"
            )
    try:
        return blank_network(config)
    except Exception as error:  # diffusers checks little: whatever its layers raise
        raise BadInput(f"{path}: diffusers cannot make a network of it ({error})") from error


def _is_count(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most


def _doubled(value: Any) -> Any:
    return 2 * value if isinstance(value, int) else None


def _schedule(path: Path, learned_variance: bool, stated: StatedFlags) -> tuple[ScheduleName, int, int | None]:
    """Of the noise: the scheduler's in a pipeline folder, else as stated, else as published networks have it."""
    file = path / "scheduler" / "scheduler_config.json"
    if not file.is_file():
        return stated.noise_schedule or DEFAULT_SCHEDULE, stated.diffusion_steps or DEFAULT_STEPS, None
    config = read_json(file)
    name, steps = read_schedule(file, config, learned_variance)
    return (
        settled("noise_schedule", stated.noise_schedule, name, str(file)),
        settled("diffusion_steps", stated.diffusion_steps, steps, str(file)),
        read_noisiest_step(file, config, steps),
    )


def read_json(path: Path) -> dict[str, Any]:
    """An object in a JSON file.

    Raises:
        BadInput: no such file, or not a JSON object.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file; expected a model folder of diffusers, or a pipeline folder")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{path}: is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content

"""Finds and reads the files in a folder of diffusers."""

import json
from collections.abc import Mapping
from inspect import signature
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor, nn

from uflow_edge.export.checkpoints.states import find_state, only_tensors, state_dicts
from uflow_edge.export.checkpoints.tensors import load_state
from uflow_edge.export.unet.flags import LARGEST_SIDE, MOST_BLOCKS, MOST_LEVELS
from uflow_edge.export.unet.guided_diffusion import blank_network
from uflow_edge.export.wording import brief, listed, one_line
from uflow_edge.runtime.errors import BadInput, require

CONFIG, SCHEDULER = "config.json", "scheduler_config.json"
_PIPELINE = "model_index.json"
_NETWORKS = ("unet_ema", "unet", ".")  # the averaged weights first: they are the better ones
_WEIGHTS = "diffusion_pytorch_model"
_SUFFIXES = ("safetensors", "bin")
_VARIANTS = ("", "ema", "fp32", "fp16", "bf16")
_FIRST = "conv_in."
_LARGEST_JSON = 4 << 20  # bytes; an index of shards of a thousand tensors has 100,000
_MOST_CHANNELS = 1 << 16
_OF_AVERAGING = frozenset(
    {"decay", "min_decay", "optimization_step", "update_after_step", "use_ema_warmup", "inv_gamma", "power"}
)
"""Entries that diffusers' EMAModel adds to the configuration of the network that it averages."""


def network_folder(path: Path) -> Path:
    """The folder with the network's configuration, in a model folder or a pipeline folder.

    Raises:
        BadInput: the network of the pipeline does not work on pictures.
    """
    if (path / _PIPELINE).is_file():
        parts = read_json(path / _PIPELINE)
        latent = sorted({"vae", "vqvae", "movq"} & parts.keys())
        if latent:
            raise BadInput(
                f"{path / _PIPELINE}: has a {latent[0]}, so its network works on latents and not on pictures"
            )
    return next((path / name for name in _NETWORKS if (path / name / CONFIG).is_file()), path)


def find_scheduler(path: Path, folder: Path) -> tuple[Path | None, bool]:
    """The configuration file of the scheduler, and whether it is inside the given folder, not in one around it."""
    inside = (path / "scheduler" / SCHEDULER, folder / SCHEDULER, path / SCHEDULER)
    found = next((file for file in inside if file.is_file()), None)
    around = folder.parent / "scheduler" / SCHEDULER
    if found is None and around.is_file():
        return around, False
    return found, True


def find_weights(folder: Path) -> Path:
    """The file of weights, or the index of several files; those of full precision are preferred.

    Raises:
        BadInput: there is none, or more than one may be meant.
    """
    names = [name for variant in _VARIANTS for suffix in _SUFFIXES for name in _file_names(variant, suffix)]
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is not None:
        return found
    others = [file for suffix in _SUFFIXES for file in sorted(folder.glob(f"{_WEIGHTS}.*.{suffix}"))]
    if len(others) == 1:
        return others[0]
    if others:
        raise BadInput(f"{folder}: holds {listed(file.name for file in others)}; leave one of them")
    raise BadInput(
        f"{folder}: holds none of {_WEIGHTS}.safetensors, {_WEIGHTS}.bin and their usual variants; without their index "
        "(….safetensors.index.json), weights in several files are not supported"
    )


def _file_names(variant: str, suffix: str) -> tuple[str, str]:
    """The name for all weights in one file, and that of the index of several files."""
    middle = f".{variant}" if variant else ""
    return f"{_WEIGHTS}{middle}.{suffix}", f"{_WEIGHTS}.{suffix}.index{middle}.json"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the network's tensors from one file, or from those that an index lists."""
    if path.suffix != ".json":
        return _state(path)
    placed = read_json(path).get("weight_map")
    if not isinstance(placed, dict) or not all(_is_name(name) for name in placed.values()):
        raise BadInput(
            f"{path}: its weight_map is {brief(placed)}; expected tensors and the files beside it they are in"
        )
    weights: dict[str, Tensor] = {}
    for name in sorted(set(placed.values())):
        shard = _state(path.parent / name)
        twice = sorted(weights.keys() & shard.keys())
        if twice:
            raise BadInput(f"{path.parent / name}: holds {listed(twice)}, as another shard does")
        weights |= shard
    return weights


def _state(path: Path) -> dict[str, Tensor]:
    content = load_state(path)
    found = find_state(content, _FIRST)
    weights = next((values for _, values in state_dicts(content)), None) if found is None else found.weights
    if weights is None:
        raise BadInput(f"{path}: holds no state dict: a dictionary of nothing but tensors")
    return only_tensors(weights)


def _is_name(value: Any) -> bool:
    return (
        isinstance(value, str) and value not in ("", "..") and PurePosixPath(value).name == value and "\0" not in value
    )


def read_config(path: Path) -> dict[str, Any]:
    """The arguments of ``UNet2DModel`` in a ``config.json``, completed with the defaults."""
    content = read_json(path)
    if content.get("_class_name") != "UNet2DModel":
        kind = brief(content.get("_class_name")).strip("'")
        raise BadInput(f"{path}: is of {kind}; only UNet2DModel, which reads nothing but a picture")
    parameters = signature(require("diffusers", "export").UNet2DModel.__init__).parameters
    defaults = {name: value.default for name, value in parameters.items() if name != "self"}
    stated = {name: value for name, value in content.items() if name[:1] != "_" and name not in _OF_AVERAGING}
    unknown = sorted(stated.keys() - defaults.keys())
    if unknown:
        raise BadInput(f"{path}: this version of diffusers knows no {listed(unknown)}; a newer one may")
    config = {**defaults, **stated}
    size = config["sample_size"]
    if isinstance(size, list) and len(size) == 2 and size[0] == size[1]:
        config["sample_size"] = size[0]
    return config


def network_of(config: Mapping[str, Any], path: Path) -> nn.Module:
    """The network that a configuration describes, without weights.

    Raises:
        BadInput: the network is not supported, or diffusers cannot make it.
    """
    channels, returned, size = (config[name] for name in ("in_channels", "out_channels", "sample_size"))
    refused = {
        "class_embed_type": config["class_embed_type"] is not None,
        "num_class_embeds": config["num_class_embeds"] is not None,
        "sample_size": size is not None and not _is_count(size, LARGEST_SIDE),
        "in_channels": not _is_count(channels, _MOST_CHANNELS),
        "out_channels": not _is_count(returned, _MOST_CHANNELS) or returned not in (channels, 2 * channels),
        "layers_per_block": not _is_count(config["layers_per_block"], MOST_BLOCKS),
        "down_block_types": not _is_short_list(config["down_block_types"]),
        "up_block_types": not _is_short_list(config["up_block_types"]),
        "block_out_channels": not _is_short_list(config["block_out_channels"])
        or not all(_is_count(count, _MOST_CHANNELS) for count in config["block_out_channels"]),
        "time_embedding_type": config["time_embedding_type"] != "positional",
    }
    for name, applies in refused.items():
        if applies:
            raise BadInput(
                f"{path}: {name} is {brief(config[name])}; what is run here turns a square picture and a step into "
                "noise, or noise and variance, and is not conditioned on classes"
            )
    try:
        return blank_network(config)
    except Exception as error:  # diffusers checks little: whatever its layers raise
        raise BadInput(f"{path}: diffusers cannot make a network of it ({one_line(str(error))})") from error


def _is_count(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most


def _is_short_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and 0 < len(value) <= MOST_LEVELS


def read_json(path: Path) -> dict[str, Any]:
    """An object in a JSON file.

    Raises:
        BadInput: no such file, too large, or not a JSON object.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file; expected a model folder of diffusers, or a pipeline folder")
    if path.stat().st_size > _LARGEST_JSON:
        raise BadInput(f"{path}: has more than {_LARGEST_JSON >> 20} MiB, which no configuration needs")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: is not JSON ({one_line(str(error))})") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content

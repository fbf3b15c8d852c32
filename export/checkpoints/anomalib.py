"""Reads checkpoints of anomalib 2's ``Uflow``, with the preprocessing of their pictures.

Checked with anomalib 2.0.0, 2.3.0 and 2.7.0. The flow has the authors' names and layout, and FrEIA 0.2's coupling in a
copy of anomalib's own. Up to 2.6, a preprocessing other than the default is pickled into the hyper-parameters as an
object; since 2.7 every preprocessing is written as plain data.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from uflow_edge.export.checkpoints.inert import Inert, attributes
from uflow_edge.export.network.architecture import Architecture, Coupling
from uflow_edge.export.network.backbones import EXTRACTORS, IMAGENET, Normalization
from uflow_edge.export.network.extractors import trained_size
from uflow_edge.export.wording import brief, one_line
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.resize.cpu import Fit

ANOMALIB = "anomalib"
_CONFIG = "anomalib_pre_processor_config"
_BACKBONE = "feature_extractor.feature_extractor."
_WITHOUT_EFFECT = ("Identity", "ToImage", "ToDtype", "ToTensor", "ToPureTensor")
_CROPS = ("CenterCrop", "ExportableCenterCrop")
_DEEPEST, _MOST_STEPS = 16, 64
_SUPPORTED = "it repeats a bilinear Resize with antialiasing, a CenterCrop of the same size after it, and a Normalize"


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The preprocessing of pictures.

    Attributes:
        size: height and width that they were resized to; None if it is not stated.
        normalization: of RGB in [0, 1].
        fit: how pictures become square; None if it is not stated.
    """

    size: tuple[int, int] | None = None
    normalization: Normalization = IMAGENET
    fit: Fit | None = None


DEFAULT_SIZE = (448, 448)
DEFAULT = Preprocessing(DEFAULT_SIZE, IMAGENET, "squash")
"""Preprocessing of a ``Uflow`` by default."""


def is_anomalib(content: Mapping[str, Any], weights: Mapping[str, Tensor]) -> bool:
    """Whether anomalib wrote a checkpoint, from its content and its weights without the prefix ``model.``."""
    names_backbone = "backbone" in (attributes(content.get("hyper_parameters")) or {})
    return names_backbone or _CONFIG in content or any(name.startswith(_BACKBONE) for name in weights)


def authors_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under the names in the authors' model."""
    return {name.replace(_BACKBONE, "feature_extractor.extractor.", 1): value for name, value in weights.items()}


def read_anomalib(content: Mapping[str, Any], weights: Mapping[str, Tensor]) -> tuple[Architecture, Preprocessing]:
    """The architecture and the preprocessing that a checkpoint states.

    Raises:
        BadInput: hyper-parameters are missing, or of a model or a preprocessing that cannot be exported.
    """
    parameters: Any = attributes(content.get("hyper_parameters"))
    try:
        extractor, flow_steps = parameters["backbone"], int(parameters["flow_steps"])
        ratio = float(parameters["affine_subnet_channels_ratio"])
        coupling = Coupling(clamp=float(parameters["affine_clamp"]), hidden_ratio=ratio)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadInput(f"its hyper_parameters are not those of anomalib's Uflow ({one_line(repr(error))})") from error
    if not isinstance(extractor, str) or extractor not in EXTRACTORS:
        raise BadInput(f"unknown backbone {brief(extractor)}; known: {', '.join(EXTRACTORS)}")
    preprocessing = read_preprocessing(content)
    known = EXTRACTORS[extractor]
    size = preprocessing.size or DEFAULT_SIZE
    trained = trained_size(extractor, weights) or size
    if size != trained or size[0] != size[1]:
        raise BadInput(
            f"it resizes pictures to {_text(size)} pixels (H x W) and its weights are for {_text(trained)}; only one "
            "square size can be exported: train with Resize((S, S))"
        )
    return Architecture(extractor, size[0], flow_steps, known.taps, known.pooling, coupling=coupling), preprocessing


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def read_preprocessing(content: Mapping[str, Any]) -> Preprocessing:
    """Read the plain data of anomalib 2.7, or the object that earlier versions pickled.

    Raises:
        BadInput: it holds a step that the runtime does not support.
    """
    stored = content.get(_CONFIG)
    if stored is None or stored == {}:
        stored = (attributes(content.get("hyper_parameters")) or {}).get("pre_processor")
    steps = [step for step in _steps(stored) if step[0] not in _WITHOUT_EFFECT]
    if not steps:
        return DEFAULT
    found = Preprocessing()
    for name, values in steps:
        try:
            found = _after(found, name, values)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BadInput(f"its preprocessing has a {one_line(name)} that cannot be read: {brief(values)}") from error
    return found


def _after(found: Preprocessing, name: str, values: Mapping[str, Any]) -> Preprocessing:
    """The preprocessing with one more step; KeyError, TypeError or ValueError where its values make no sense."""
    if name == "Normalize":
        return replace(found, normalization=Normalization(_rgb(values["mean"]), _rgb(values["std"])))
    if name == "Resize" and found.size is None:
        interpolation = _plain(values.get("interpolation", "bilinear"))
        if interpolation == "bilinear" and values.get("antialias", True) is not False and not values.get("max_size"):
            fit: Fit | None = "squash" if len(_sides(values["size"])) == 2 else None
            return replace(found, size=_height_width(values["size"]), fit=fit)
    if name in _CROPS and found.size == _height_width(values["size"]):
        return replace(found, fit=found.fit or "crop")
    raise BadInput(
        f"its preprocessing has a {one_line(name)} ({brief(values)}) that the runtime does not repeat; {_SUPPORTED}"
    )


def _steps(stored: Any, depth: int = 0) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and attributes of every transform, in order, out of plain data or stand-ins for objects."""
    if depth > _DEEPEST:
        raise BadInput(f"its preprocessing is nested more than {_DEEPEST} deep")
    name, values = _name_and_values(stored)
    if "transforms" in values:  # of a Compose
        transforms = values["transforms"]
        if not isinstance(transforms, list | tuple) or len(transforms) > _MOST_STEPS:
            raise BadInput(f"its preprocessing has transforms {brief(transforms)}; expected a list of them")
        for transform in transforms:
            yield from _steps(transform, depth + 1)
    elif "transform" in values:  # of a PreProcessor
        yield from _steps(values["transform"], depth + 1)
    elif name:
        yield name, values
    elif not isinstance(stored, dict | bool | None):
        raise BadInput(f"its preprocessing is {brief(stored)}; expected transforms")


def _name_and_values(stored: Any) -> tuple[str, Mapping[str, Any]]:
    if isinstance(stored, Inert) and isinstance(stored.state, dict):
        values = {**stored.state, **stored.state.get("_modules", {})}
        return stored.original.split(".")[-1], {k: v for k, v in values.items() if k[:1] != "_" and k != "training"}
    if isinstance(stored, dict) and "class_path" in stored:
        given = stored.get("init_args")
        if not isinstance(given, dict | None):
            raise BadInput(f"its preprocessing has init_args {brief(given)}; expected a dictionary")
        if not isinstance(stored["class_path"], str):
            raise BadInput(f"its preprocessing has class_path {brief(stored['class_path'])}; expected a name")
        return stored["class_path"].split(".")[-1], given or {}
    return "", stored if isinstance(stored, dict) else {}


def _plain(value: Any) -> Any:
    """The value of an enumeration's member."""
    return value.arguments[0] if isinstance(value, Inert) and value.arguments else value


def _rgb(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _sides(size: Any) -> tuple[int, ...]:
    sides = (size,) if isinstance(size, int) else tuple(int(side) for side in size[:3])
    if not 1 <= len(sides) <= 2 or min(sides) < 1:
        raise ValueError("a size is one number or two, above 0")
    return sides


def _height_width(size: Any) -> tuple[int, int]:
    """A single number is the shorter side of a Resize, or both sides of the square model input."""
    sides = _sides(size)
    return sides[0], sides[-1]

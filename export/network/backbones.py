"""Frozen backbones by name: what is known of those we chose, and what timm says of all others."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from math import isfinite
from typing import Any

from uflow_edge.export.wording import brief, one_line
from uflow_edge.runtime.errors import BadInput

TIMM = "timm:"
"""Prefix of an extractor that is named as timm names it."""
_MOST_LEVELS, _MOST_CHANNELS, _LONGEST_NAME = 8, 8192, 100


@dataclass(frozen=True, slots=True)
class Normalization:
    """Mean and standard deviation of RGB in [0, 1] that are subtracted and divided by before the extractor.

    Raises:
        BadInput: on construction, when one is not finite or a standard deviation not above 0.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not all(isfinite(value) for value in (*self.mean, *self.std)) or min(self.std) <= 0:
            raise BadInput(f"normalisation by mean {self.mean} and standard deviation {self.std} is not possible")


IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True, slots=True)
class Extractor:
    """A frozen backbone, as timm names it, and what its pretrained weights expect.

    Attributes:
        timm_name: model name in timm; of `mcait`, the finer of its two.
        taps: which feature levels feed the flow by default; level i has stride 2^(i+1).
        channels: of every feature level there is, finest first.
        finest_level: that the first of `channels` belongs to.
        pooling: side of the average pooling over features by default; 1 is none.
        fixed_input_size: the only input size it takes, by its position embeddings, and then with all its levels and
            no pooling; None takes any multiple of the coarsest stride.
    """

    timm_name: str
    normalization: Normalization
    taps: tuple[int, ...]
    channels: tuple[int, ...]
    finest_level: int = 0
    pooling: int = 1
    fixed_input_size: int | None = None

    @property
    def levels(self) -> range:
        """The feature levels there are."""
        return range(self.finest_level, self.finest_level + len(self.channels))

    def record(self) -> dict[str, Any]:
        """What a checkpoint says of a network of timm, in plain types; `from_record` reads it."""
        return {
            "channels": list(self.channels),
            "finest_level": self.finest_level,
            "mean": list(self.normalization.mean),
            "std": list(self.normalization.std),
        }


EXTRACTORS: dict[str, Extractor] = {
    "resnet18": Extractor("resnet18", IMAGENET, (1, 2, 3), (64, 64, 128, 256, 512)),
    "wide_resnet50_2": Extractor("wide_resnet50_2", IMAGENET, (1, 2, 3), (64, 256, 512, 1024, 2048)),
    "efficientnet_lite0": Extractor(
        "tf_efficientnet_lite0", Normalization((0.5,) * 3, (0.5,) * 3), (2, 3), (16, 24, 40, 112, 320), pooling=3
    ),
    "mcait": Extractor("cait_m48_448", IMAGENET, (3, 4), (768, 384), finest_level=3, fixed_input_size=448),
}


@cache
def extractor(name: str) -> Extractor:
    """One of `EXTRACTORS`, or any convolutional network of timm: ``timm:`` and its name, with a tag of weights or not.

    Levels, channels and normalisation of the latter are timm's.

    Raises:
        BadInput: the name is not known; or timm gives no feature maps, or none that halve from one to the next.
    """
    if name in EXTRACTORS:
        return EXTRACTORS[name]
    import timm

    from uflow_edge.export.network.blank import without_weights

    timm_name = _timm_name(name)
    with without_weights():
        info = timm_features(timm_name).feature_info
    strides = [int(stride) for stride in info.reduction()]
    finest = strides[0].bit_length() - 1
    if strides != [2 ** (finest + i) for i in range(len(strides))]:
        raise BadInput(
            f"{name}: timm's feature maps of it have strides {', '.join(map(str, strides))}; expected powers of two, "
            "each twice the one before, as convolutional networks have"
        )
    stated = timm.get_pretrained_cfg(timm_name)
    normalization = IMAGENET if stated is None else Normalization(_rgb(stated.mean), _rgb(stated.std))
    return _of_timm(timm_name, normalization, tuple(info.channels()), finest - 1)


def from_record(name: Any, record: Mapping[str, Any]) -> Extractor:
    """A network of timm as `Extractor.record` describes it in a checkpoint; nothing is built.

    Raises:
        BadInput: timm does not know the name, or the numbers cannot be meant.
        KeyError, TypeError, ValueError, OverflowError: a number is missing or of the wrong type.
    """
    timm_name = _timm_name(name)
    channels = tuple(int(count) for count in record["channels"][: _MOST_LEVELS + 1])
    finest = int(record["finest_level"])
    if not -1 <= finest <= _MOST_LEVELS:
        raise BadInput(f"{name} with feature levels from {finest} on; expected at most {_MOST_LEVELS}")
    return _of_timm(timm_name, Normalization(_rgb(record["mean"]), _rgb(record["std"])), channels, finest)


def timm_features(timm_name: str, **options: Any) -> Any:
    """timm's feature maps of a network, without pretrained weights.

    Raises:
        BadInput: timm has none of it.
    """
    import timm

    try:
        return timm.create_model(timm_name, pretrained=False, features_only=True, **options)
    except Exception as error:  # every network has its own way to say no
        raise BadInput(f"{TIMM}{timm_name}: timm gives no feature maps of it ({one_line(repr(error))})") from error


def _timm_name(name: Any) -> str:
    import timm

    models = timm.list_models()
    asked = name.removeprefix(TIMM)[:_LONGEST_NAME] if isinstance(name, str) else ""
    if name == TIMM + asked and (asked in models or asked in timm.list_pretrained()):  # with a tag of weights
        return asked
    close = get_close_matches(asked.partition(".")[0], models)
    near = ", ".join(TIMM + model for model in close) or f"{TIMM}NAME"
    raise BadInput(f"unknown extractor {brief(name)}; known: {', '.join(EXTRACTORS)}, and networks of timm, as {near}")


def _of_timm(timm_name: str, normalization: Normalization, channels: tuple[int, ...], finest: int) -> Extractor:
    """With strides 8 and 16, averaged over 3 x 3, by default; or the two coarsest where one of them is missing."""
    if not 1 <= len(channels) <= _MOST_LEVELS or not all(1 <= count <= _MOST_CHANNELS for count in channels):
        raise BadInput(
            f"{TIMM}{timm_name} with {brief(channels)} channels; expected at most {_MOST_LEVELS} feature levels of at "
            f"most {_MOST_CHANNELS}"
        )
    levels = range(finest, finest + len(channels))
    taps = (2, 3) if {2, 3} <= set(levels) else tuple(levels[-2:])
    return Extractor(timm_name, normalization, taps, channels, finest, pooling=3)


def _rgb(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue

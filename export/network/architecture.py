"""What a U-Flow is made of, in a handful of numbers: enough to build the network and to size every map."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf, isfinite
from typing import Any, Literal, TypeAlias, get_args

from uflow_edge.export.wording import brief, one_line
from uflow_edge.runtime.errors import BadInput

INPUT_SIZE = 256
FLOW_STEPS = 4
"""What our trainer uses unless told otherwise."""
_MOST_TAPS = 8
MOST_FLOW_STEPS = 64

CouplingFormula: TypeAlias = Literal["clamp_tanh", "clamp_tanh_ratio"]
Permutation: TypeAlias = Literal["hard", "soft"]


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


EXTRACTORS: dict[str, Extractor] = {
    "resnet18": Extractor("resnet18", IMAGENET, (1, 2, 3), (64, 64, 128, 256, 512)),
    "wide_resnet50_2": Extractor("wide_resnet50_2", IMAGENET, (1, 2, 3), (64, 256, 512, 1024, 2048)),
    "efficientnet_lite0": Extractor(
        "tf_efficientnet_lite0", Normalization((0.5,) * 3, (0.5,) * 3), (2, 3), (16, 24, 40, 112, 320), pooling=3
    ),
    "mcait": Extractor("cait_m48_448", IMAGENET, (3, 4), (768, 384), finest_level=3, fixed_input_size=448),
}


@dataclass(frozen=True, slots=True)
class Coupling:
    """What the affine couplings of a flow compute.

    Each multiplies half of its channels with exp(f(s)), s being a tenth of what its subnet says.

    Attributes:
        formula: ``clamp_tanh``, f(s) = clamp · tanh(s), of FrEIA 0.2, which the authors used, and of anomalib's copy;
            ``clamp_tanh_ratio``, f(s) = clamp · tanh(s / clamp), of FrEIA since (its pull request 165, 2023).
        clamp: bound of the exponent.
        hidden_ratio: channels between a subnet's two convolutions over those it reads.
        permutation: of the channels after each coupling: ``hard``, a permutation, or ``soft``, any rotation.

    Raises:
        BadInput: on construction, when these cannot be meant.
    """

    formula: CouplingFormula = "clamp_tanh"
    clamp: float = 2.0
    hidden_ratio: float = 1.0
    permutation: Permutation = "hard"

    def __post_init__(self) -> None:
        if self.formula not in get_args(CouplingFormula) or self.permutation not in get_args(Permutation):
            raise BadInput(
                f"coupling formula {brief(self.formula)} or permutation {brief(self.permutation)} is unknown"
            )
        if not (0 < self.clamp < inf and 0 < self.hidden_ratio < inf):
            raise BadInput(
                f"clamp {self.clamp} and hidden ratio {self.hidden_ratio} of the couplings: expected above 0"
            )


@dataclass(frozen=True, slots=True)
class Scale:
    """One latent map: C channels of H x W, at a stride in input pixels."""

    stride: int
    channels: int
    side: int


@dataclass(frozen=True, slots=True)
class Architecture:
    """Everything that decides the shapes of a U-Flow.

    Attributes:
        extractor: key of `EXTRACTORS`.
        input_size: side of the square input in pixels, a multiple of the coarsest stride.
        flow_steps: coupling blocks at each scale.
        taps: feature levels that feed the flow, finest first, each twice the stride of the one before.
        pooling: side of the average pooling over features, odd; 1 is none.
        whitening: whether features are decorrelated by one matrix a pixel.

    Raises:
        BadInput: on construction, when these do not fit together.
    """

    extractor: str
    input_size: int
    flow_steps: int
    taps: tuple[int, ...]
    pooling: int
    whitening: bool = False
    coupling: Coupling = Coupling()

    def __post_init__(self) -> None:
        if not isinstance(self.extractor, str) or self.extractor not in EXTRACTORS:
            raise BadInput(f"unknown extractor {brief(self.extractor)}; known: {', '.join(EXTRACTORS)}")
        known = EXTRACTORS[self.extractor]
        if not self.taps or self.taps != tuple(range(self.taps[0], self.taps[0] + len(self.taps))):
            raise BadInput(f"taps {brief(self.taps)}: expected consecutive feature levels, finest first")
        if not set(self.taps) <= set(known.levels):
            raise BadInput(
                f"taps {brief(self.taps)}: {self.extractor} has feature levels {known.levels[0]} to {known.levels[-1]}"
            )
        size = known.fixed_input_size
        if size is not None and (self.input_size, self.taps, self.pooling) != (size, known.taps, known.pooling):
            raise BadInput(
                f"input size {self.input_size}, taps {self.taps}, pooling {self.pooling}: {self.extractor} takes input "
                f"size {size}, for which its position embeddings are made, with taps {known.taps} and no pooling"
            )
        coarsest = 2 ** (self.taps[-1] + 1)
        if self.input_size < coarsest or self.input_size % coarsest:
            raise BadInput(f"input size {self.input_size}: expected a multiple of {coarsest}, the coarsest stride")
        if not 1 <= self.flow_steps <= MOST_FLOW_STEPS:
            raise BadInput(f"flow steps {self.flow_steps}: expected at least 1 and at most {MOST_FLOW_STEPS}")
        if self.pooling < 1 or self.pooling % 2 == 0:
            raise BadInput(f"pooling {self.pooling}: expected an odd side")
        if self.pooling > (most := 2 * self.features[0].side):
            raise BadInput(f"pooling {self.pooling}: expected at most {most}, which covers all of the finest features")

    @classmethod
    def default(cls, extractor: str, input_size: int = INPUT_SIZE, flow_steps: int = FLOW_STEPS) -> "Architecture":
        """The architecture our trainer uses for an extractor."""
        if extractor not in EXTRACTORS:
            raise BadInput(f"unknown extractor {extractor!r}; known: {', '.join(EXTRACTORS)}")
        known = EXTRACTORS[extractor]
        return cls(extractor, input_size, flow_steps, known.taps, known.pooling)

    @classmethod
    def from_hyper_parameters(cls, values: Mapping[str, Any]) -> "Architecture":
        """Read what `hyper_parameters` wrote.

        Raises:
            BadInput: a value is missing or of the wrong type.
        """
        try:
            return cls(
                extractor=values["extractor"],
                input_size=int(values["input_size"]),
                flow_steps=int(values["flow_steps"]),
                taps=tuple(int(tap) for tap in values["taps"][:_MOST_TAPS]),
                pooling=int(values["pooling"]),
                whitening=bool(values["whitening"]),
                coupling=Coupling(**values.get("coupling", {})),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BadInput(
                f"hyper_parameters {brief(values)} do not describe a U-Flow: {one_line(repr(error))}"
            ) from error

    def hyper_parameters(self) -> dict[str, Any]:
        """Plain types only, so that a checkpoint loads with ``weights_only=True``."""
        return {
            "extractor": self.extractor,
            "input_size": self.input_size,
            "flow_steps": self.flow_steps,
            "taps": list(self.taps),
            "pooling": self.pooling,
            "whitening": self.whitening,
            "coupling": asdict(self.coupling),
        }

    @property
    def features(self) -> tuple[Scale, ...]:
        """The feature maps that enter the flow, finest first."""
        known = EXTRACTORS[self.extractor]
        strides = [2 ** (tap + 1) for tap in self.taps]
        return tuple(
            Scale(stride, known.channels[tap - known.finest_level], self.input_size // stride)
            for tap, stride in zip(self.taps, strides, strict=True)
        )

    @property
    def latents(self) -> tuple[Scale, ...]:
        """The latent maps that leave the flow, finest first (the U of U-Flow, paper section 3.2)."""
        scales: list[Scale] = []
        from_below = 0
        for level, feature in reversed(list(enumerate(self.features))):
            channels = feature.channels + from_below
            goes_up = upward_channels(channels) if level > 0 else 0
            scales.append(Scale(feature.stride, channels - goes_up, feature.side))
            from_below = goes_up // 4
        return tuple(reversed(scales))


def upward_channels(channels: int) -> int:
    """How many channels of a stage go up to the next finer one: half, rounded down to a multiple of 4."""
    return channels // 8 * 4

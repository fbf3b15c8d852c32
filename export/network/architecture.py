"""What a U-Flow is made of, in a handful of numbers: enough to build the network and to size every map."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf
from typing import Any, Literal, TypeAlias, get_args

from uflow_edge.export.network.backbones import EXTRACTORS, Extractor, extractor, from_record
from uflow_edge.export.wording import brief, one_line
from uflow_edge.runtime.errors import BadInput

INPUT_SIZE = 256
FLOW_STEPS = 4
"""What our trainer uses unless told otherwise."""
_MOST_TAPS = 8
MOST_FLOW_STEPS = 64
_LARGEST_PERMUTATIONS = MOST_FLOW_STEPS * 2048**2
"""Numbers in the permutations of a scale, which FrEIA makes before a checkpoint's are read."""

CouplingFormula: TypeAlias = Literal["clamp_tanh", "clamp_tanh_ratio"]
Permutation: TypeAlias = Literal["hard", "soft"]


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
        extractor: key of `EXTRACTORS`, or ``timm:`` and the name of a network of timm.
        input_size: side of the square input in pixels, a multiple of the coarsest stride.
        flow_steps: coupling blocks at each scale.
        taps: feature levels that feed the flow, finest first, each twice the stride of the one before.
        pooling: side of the average pooling over features, odd; 1 is none.
        whitening: whether features are decorrelated by one matrix a pixel.
        described: a network of timm; None for those of `EXTRACTORS`.
        joint: whether the features of all taps are averaged down to the coarsest and stacked, so that one law holds for
            all channels at a place (see `joint.JointExtractor`); else each tap is a scale of its own.
        window: side in pixels of the windows over which calibration averages energies, odd; 1 is none.

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
    described: Extractor | None = None
    joint: bool = False
    window: int = 1

    def __post_init__(self) -> None:
        known = self.backbone
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
        if self.flow_steps * (channels := max(scale.channels for scale in self.features)) ** 2 > _LARGEST_PERMUTATIONS:
            most = _LARGEST_PERMUTATIONS // channels**2
            raise BadInput(
                f"flow steps {self.flow_steps}: expected at most {most} with {channels} channels of features"
            )
        if self.pooling < 1 or self.pooling % 2 == 0:
            raise BadInput(f"pooling {self.pooling}: expected an odd side")
        if self.joint and size is not None:
            raise BadInput(f"{self.extractor} has no joint features: its backbones normalise them at their own strides")
        if self.window < 1 or self.window % 2 == 0 or self.window > self.features[0].side:
            raise BadInput(f"window {self.window}: expected an odd side of at most {self.features[0].side}")
        if self.pooling > (most := 2 * self.tapped[0].side):
            raise BadInput(f"pooling {self.pooling}: expected at most {most}, which covers all of the finest features")

    @classmethod
    def default(cls, name: str, input_size: int | None = None, flow_steps: int = FLOW_STEPS) -> "Architecture":
        """The architecture our trainer uses for an extractor; see `backbones.extractor`."""
        known = extractor(name)
        size = input_size or known.fixed_input_size or INPUT_SIZE
        described = None if name in EXTRACTORS else known
        return cls(name, size, flow_steps, known.taps, known.pooling, described=described)

    @classmethod
    def from_hyper_parameters(cls, values: Mapping[str, Any]) -> "Architecture":
        """Read what `hyper_parameters` wrote.

        Raises:
            BadInput: a value is missing or of the wrong type.
        """
        try:
            name = values["extractor"]
            return cls(
                extractor=name,
                input_size=int(values["input_size"]),
                flow_steps=int(values["flow_steps"]),
                taps=tuple(int(tap) for tap in values["taps"][:_MOST_TAPS]),
                pooling=int(values["pooling"]),
                whitening=bool(values["whitening"]),
                coupling=Coupling(**values.get("coupling", {})),
                described=None if name in [*EXTRACTORS] else from_record(name, values.get("described", {})),
                joint=bool(values.get("joint", False)),
                window=int(values.get("window", 1)),
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
            "joint": self.joint,
            "window": self.window,
            **({} if self.extractor in EXTRACTORS else {"described": self.backbone.record()}),
        }

    @property
    def backbone(self) -> Extractor:
        """What is known of the extractor."""
        return self.described or extractor(self.extractor)

    @property
    def tapped(self) -> tuple[Scale, ...]:
        """The feature maps that the backbone gives, finest first."""
        known = self.backbone
        strides = [2 ** (tap + 1) for tap in self.taps]
        return tuple(
            Scale(stride, known.channels[tap - known.finest_level], self.input_size // stride)
            for tap, stride in zip(self.taps, strides, strict=True)
        )

    @property
    def features(self) -> tuple[Scale, ...]:
        """The feature maps that enter the flow, finest first; a single one if they are joint."""
        if not self.joint:
            return self.tapped
        coarsest = self.tapped[-1]
        return (Scale(coarsest.stride, sum(scale.channels for scale in self.tapped), coarsest.side),)

    @property
    def whitening_bytes(self) -> int:
        """Size of the matrices that whitening adds to a model."""
        return sum(4 * scale.side**2 * scale.channels**2 for scale in self.features)

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

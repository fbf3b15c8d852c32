"""What a U-Flow is made of, in a handful of numbers: enough to build the network and to size every map."""

from dataclasses import dataclass
from typing import Any

from uflow_edge.runtime.errors import BadInput

INPUT_SIZE = 256
FLOW_STEPS = 4
"""What our trainer uses unless told otherwise."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Extractor:
    """A frozen backbone, as timm names it, and what its pretrained weights expect.

    Attributes:
        timm_name: model name in timm.
        mean, std: of RGB in [0, 1], per channel.
        taps: which of timm's feature levels feed the flow by default; level i has stride 2^(i+1).
        channels: of every feature level, finest first.
        pooling: side of the average pooling over features by default; 1 is none.
    """

    timm_name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    taps: tuple[int, ...]
    channels: tuple[int, ...]
    pooling: int = 1


EXTRACTORS: dict[str, Extractor] = {
    "resnet18": Extractor("resnet18", IMAGENET_MEAN, IMAGENET_STD, (1, 2, 3), (64, 64, 128, 256, 512)),
    "wide_resnet50_2": Extractor("wide_resnet50_2", IMAGENET_MEAN, IMAGENET_STD, (1, 2, 3), (64, 256, 512, 1024, 2048)),
    "efficientnet_lite0": Extractor(
        "tf_efficientnet_lite0", (0.5,) * 3, (0.5,) * 3, (2, 3), (16, 24, 40, 112, 320), pooling=3
    ),
}


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

    def __post_init__(self) -> None:
        if self.extractor not in EXTRACTORS:
            raise BadInput(f"unknown extractor {self.extractor!r}; known: {', '.join(EXTRACTORS)}")
        levels = len(EXTRACTORS[self.extractor].channels)
        if not self.taps or self.taps != tuple(range(self.taps[0], self.taps[0] + len(self.taps))) or self.taps[0] < 0:
            raise BadInput(f"taps {self.taps}: expected consecutive feature levels, finest first")
        if self.taps[-1] >= levels:
            raise BadInput(f"taps {self.taps}: {self.extractor} has feature levels 0 to {levels - 1}")
        coarsest = 2 ** (self.taps[-1] + 1)
        if self.input_size < coarsest or self.input_size % coarsest:
            raise BadInput(f"input size {self.input_size}: expected a multiple of {coarsest}, the coarsest stride")
        if self.flow_steps < 1:
            raise BadInput(f"flow steps {self.flow_steps}: expected at least 1")
        if self.pooling < 1 or self.pooling % 2 == 0:
            raise BadInput(f"pooling {self.pooling}: expected an odd side")

    @classmethod
    def default(cls, extractor: str, input_size: int = INPUT_SIZE, flow_steps: int = FLOW_STEPS) -> "Architecture":
        """The architecture our trainer uses for an extractor."""
        if extractor not in EXTRACTORS:
            raise BadInput(f"unknown extractor {extractor!r}; known: {', '.join(EXTRACTORS)}")
        known = EXTRACTORS[extractor]
        return cls(extractor, input_size, flow_steps, known.taps, known.pooling)

    @classmethod
    def from_hyper_parameters(cls, values: dict[str, Any]) -> "Architecture":
        """Read what `hyper_parameters` wrote.

        Raises:
            BadInput: a value is missing or of the wrong type.
        """
        try:
            return cls(
                extractor=str(values["extractor"]),
                input_size=int(values["input_size"]),
                flow_steps=int(values["flow_steps"]),
                taps=tuple(int(tap) for tap in values["taps"]),
                pooling=int(values["pooling"]),
                whitening=bool(values["whitening"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"hyper_parameters {values!r} do not describe a U-Flow: {error!r}") from error

    def hyper_parameters(self) -> dict[str, Any]:
        """Plain types only, so that a checkpoint loads with ``weights_only=True``."""
        return {
            "extractor": self.extractor,
            "input_size": self.input_size,
            "flow_steps": self.flow_steps,
            "taps": list(self.taps),
            "pooling": self.pooling,
            "whitening": self.whitening,
        }

    @property
    def features(self) -> tuple[Scale, ...]:
        """The feature maps that enter the flow, finest first."""
        channels = EXTRACTORS[self.extractor].channels
        strides = [2 ** (tap + 1) for tap in self.taps]
        return tuple(
            Scale(stride, channels[tap], self.input_size // stride)
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

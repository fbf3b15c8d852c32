"""The manifest of a U-Flow bundle: pictures in, latent statistics out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.drift import DriftRange
from uflow_edge.runtime.manifest import Manifest, Signature, Tensor, common_fields
from uflow_edge.runtime.nfa.tree import DEFAULT_RULE, RULES, Rule
from uflow_edge.runtime.operating_point import LOG_NFA_0, OperatingPoint
from uflow_edge.runtime.preprocess import Fit

INPUT_NAME = "image"


@dataclass(frozen=True, slots=True)
class LatentScale:
    """One scale of latents: C channels on H x W pixels, each ``stride`` input pixels wide."""

    stride: int
    height: int
    width: int
    channels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UFlowManifest(Manifest):
    """What ``manifest.json`` says of a U-Flow.

    Attributes:
        extractor: name of the frozen backbone.
        input_size: S, side of the square input in pixels.
        mean, std: of RGB in [0, 1], as the extractor is given it; the graph does this itself.
        fit: how a frame that is not square becomes one: ``squash`` it, or ``crop`` its centre.
        scales: of the latents, finest first.
        exceedance_probability: p at which exceedances are counted.
        rule: how the tree NFA weighs regions.
        null_model: file of the calibrated null model, which then takes the place of ``rule``; None without one.
        operating_point: threshold on the image score.
        drift: what good frames looked like at calibration, to notice when they no longer do; None: nobody watches.
    """

    kind: ClassVar[str] = "uflow"

    extractor: str
    input_size: int
    fit: Fit
    scales: tuple[LatentScale, ...]
    exceedance_probability: float
    rule: Rule = DEFAULT_RULE
    operating_point: OperatingPoint = LOG_NFA_0
    drift: DriftRange | None = None
    null_model: str | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def channels(self) -> tuple[int, ...]:
        """C_i of every scale, finest first."""
        return tuple(scale.channels for scale in self.scales)

    @property
    def signature(self) -> Signature:
        """``image``, uint8 RGB, to ``energy_i`` and then ``exceedance_i``, finest scale first."""
        side = self.input_size
        maps = tuple(
            Tensor(f"{statistic}_{i}", (scale.height, scale.width))
            for statistic in ("energy", "exceedance")
            for i, scale in enumerate(self.scales)
        )
        return Signature((Tensor(INPUT_NAME, (side, side, 3), "uint8"),), maps)

    def plausible(self, outputs: Sequence[NDArray[np.float32]]) -> bool:
        """Sums of squares and counts are not negative."""
        return all(bool((output >= 0).all()) for output in outputs)

    @classmethod
    def parse(cls, values: dict[str, Any]) -> "UFlowManifest":
        """See `Manifest.parse`; dataclasses refuse missing and unknown fields themselves."""
        manifest = cls(
            **{
                **values,
                **common_fields(values),
                "scales": tuple(LatentScale(**scale) for scale in values["scales"]),
                "operating_point": OperatingPoint(**values["operating_point"]),
                "drift": _drift(values.get("drift")),
                "mean": tuple(values.get("mean", ())),
                "std": tuple(values.get("std", ())),
            }
        )
        sizes = [manifest.input_size, *(n for s in manifest.scales for n in (s.height, s.width, s.channels))]
        if not all(isinstance(n, int) and n > 0 for n in sizes) or not manifest.scales:
            raise ValueError(f"sizes must be positive integers: {sizes}")
        if manifest.fit not in get_args(Fit) or manifest.rule not in RULES:
            raise ValueError(f"fit {manifest.fit!r} or rule {manifest.rule!r}")
        if not isinstance(manifest.operating_point.threshold, (int, float)):
            raise ValueError(f"threshold {manifest.operating_point.threshold!r}")
        if manifest.null_model is not None and manifest.null_model not in manifest.files:
            raise ValueError(f"the null model {manifest.null_model} needs a checksum")
        if manifest.drift is not None and len(manifest.drift.mean) != len(manifest.scales) + 1:
            raise ValueError(f"drift of {len(manifest.drift.mean)} numbers, expected one a scale and the score")
        return manifest


def _drift(values: dict[str, Any] | None) -> DriftRange | None:
    if values is None:
        return None
    return DriftRange(**{**values, "mean": tuple(values["mean"]), "deviation": tuple(values["deviation"])})

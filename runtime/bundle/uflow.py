"""The manifest of a U-Flow bundle, whose graphs turn pictures into latent statistics."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from uflow_edge.runtime.bundle.calibration_record import CalibrationRecord
from uflow_edge.runtime.bundle.manifest import Count, Manifest, Side, Signature, Tensor
from uflow_edge.runtime.drift import DriftRange
from uflow_edge.runtime.nfa import DEFAULT_RULE, Rule
from uflow_edge.runtime.nfa.null_model import LARGEST_WINDOW
from uflow_edge.runtime.nfa.tree import TREE_RULES
from uflow_edge.runtime.operating_point import LOG_NFA_0, OperatingPoint
from uflow_edge.runtime.resize.cpu import Fit
from uflow_edge.runtime.storage.strict_json import Text

INPUT_NAME = "image"
NULL_MODEL_FILES = "null_model-*.npz"
"""Pattern of the names of null models: each is named after its content."""


@dataclass(frozen=True, slots=True)
class LatentScale:
    """One scale of latents: C channels on H x W pixels, each ``stride`` input pixels wide."""

    stride: Side
    height: Side
    width: Side
    channels: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class UFlowManifest(Manifest):
    """The manifest of a U-Flow.

    Attributes:
        input_size: S, side of the square input in pixels.
        mean, std: by which RGB in [0, 1] is normalised for the extractor; the graph does this itself.
        fit: how a frame that is not square becomes one: ``squash`` it, or ``crop`` its centre.
        scales: of the latents, finest first.
        exceedance_probability: p at which the graphs count exceedances; None: they give energies alone.
        rule: how scores are computed. ``block`` is chosen for a run (see `scoring.with_rule`), and never stored: what a
            bundle is calibrated with are tree scores.
        null_model: file of the calibrated null model, which then takes the place of ``rule``; None without one.
        operating_point: threshold on the image score.
        bits: that cameras used of the 16 in an image file; None: 16.
        calibration: conditions under which null model and threshold were made; None: unknown.
        window: side in pixels of the windows over which a calibration averages energies; 1: it does not.
        drift: statistics of good frames at calibration, to detect drift; None: drift is not watched.
    """

    kind: ClassVar[str] = "uflow"
    noun: ClassVar[str] = "detector"
    option: ClassVar[str] = "--ckpt"

    extractor: Text
    input_size: Annotated[int, Meta(ge=16, le=8192)]
    fit: Fit
    scales: tuple[LatentScale, ...]
    exceedance_probability: Annotated[float, Meta(gt=0, lt=1)] | None
    rule: Rule = DEFAULT_RULE
    operating_point: OperatingPoint = LOG_NFA_0
    calibration: CalibrationRecord | None = None
    drift: DriftRange | None = None
    null_model: Text | None = None
    mean: tuple[float, ...] = ()
    std: tuple[Annotated[float, Meta(gt=0)], ...] = ()
    bits: Annotated[int, Meta(ge=8, le=16)] | None = None
    window: Annotated[int, Meta(ge=1, le=LARGEST_WINDOW)] = 1

    @property
    def channels(self) -> tuple[int, ...]:
        """C_i of every scale, finest first."""
        return tuple(scale.channels for scale in self.scales)

    @property
    def signature(self) -> Signature:
        """``image``, uint8 RGB, to ``energy_i`` and, where they are counted, ``exceedance_i``, finest scale first."""
        side = self.input_size
        statistics = ("energy",) if self.exceedance_probability is None else ("energy", "exceedance")
        maps = tuple(
            Tensor(f"{statistic}_{i}", (scale.height, scale.width))
            for statistic in statistics
            for i, scale in enumerate(self.scales)
        )
        return Signature((Tensor(INPUT_NAME, (side, side, 3), "uint8"),), maps)

    def plausible(self, outputs: Sequence[NDArray[np.float32]]) -> bool:
        """Whether all sums of squares and counts are at least 0."""
        return all(bool((output >= 0).all()) for output in outputs)

    def check(self) -> None:
        Manifest.check(self)
        if not 1 <= len(self.scales) <= 8:
            raise ValueError(f"scales: expected 1 to 8, got {len(self.scales)}")
        for i, scale in enumerate(self.scales):
            if any(abs(side * scale.stride - self.input_size) >= scale.stride for side in (scale.height, scale.width)):
                raise ValueError(f"scales[{i}]: {scale} does not cover input_size {self.input_size}")
        if len(self.mean) not in (0, 3) or len(self.std) != len(self.mean):
            raise ValueError(f"mean and std: expected three numbers each, got {len(self.mean)} and {len(self.std)}")
        if self.rule == "block":
            raise ValueError(f"rule: expected one of {', '.join(TREE_RULES)}; 'block' is chosen for a run")
        if self.drift is not None and len(self.drift.mean) != len(self.scales) + 1:
            raise ValueError(f"drift: expected {len(self.scales) + 1} means, one per scale and the score's")
        if self.null_model is not None and self.null_model not in self.files:
            raise ValueError(f"null_model: {self.null_model!r} has no checksum")
        record = None if self.calibration is None else self.calibration.null_model
        if record is not None and record != (self.null_model is not None):
            raise ValueError(
                f"null_model: {self.null_model!r}, but the calibration was made with{'out' * (not record)} one"
            )
        for name in self.files:
            if fnmatch(name, NULL_MODEL_FILES) and name != self.null_model:
                raise ValueError(
                    f"null_model: {self.null_model!r}, but files lists {name!r}, which belongs to the threshold"
                )

"""From latent statistics to the score map: by the bundle's null model, or by a rule."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path

import numpy as np

from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.inspection import LatentStatistics
from uflow_edge.runtime.nfa import Rule, block_score, tree_score
from uflow_edge.runtime.nfa.maps import upsample_bilinear
from uflow_edge.runtime.nfa.null_model import NullModel
from uflow_edge.runtime.numeric import FloatMap
from uflow_edge.runtime.operating_point import LOG_NFA_0
from uflow_edge.runtime.resize.cpu import Box
from uflow_edge.runtime.storage.files import sha256
from uflow_edge.runtime.views import stitch


@dataclass(frozen=True, slots=True)
class Scorer:
    """Scores the pictures of one bundle.

    Attributes:
        null_model: learned from good images; None: latents are taken as N(0, 1), and the manifest's rule decides.

    Raises:
        BadInput: on construction, if the null model was learned on maps of other sizes, or if a calibration, which is
            one of tree scores, would decide on block scores.
    """

    manifest: UFlowManifest
    null_model: NullModel | None = None

    def __post_init__(self) -> None:
        if self.manifest.rule == "block" and (self.null_model or self.manifest.operating_point.origin == "conformal"):
            raise BadInput("the bundle is calibrated for tree scores, which says nothing about block scores")
        if self.null_model is None:
            return
        expected = [(scale.height, scale.width) for scale in self.manifest.scales]
        found = [scale.pixel_gain.shape for scale in self.null_model.scales]
        if found != expected:
            raise BadInput(f"the null model was learned on energy maps of {found}, not {expected}; calibrate again")

    @classmethod
    def load(cls, folder: Path, manifest: UFlowManifest) -> "Scorer":
        """Read the null model from the folder, if the manifest names one.

        Raises:
            BadInput: it is missing, differs from the one of the manifest, or cannot be read.
        """
        name = manifest.null_model
        if name is None:
            return cls(manifest)
        null_model = NullModel.load(folder / name)
        if sha256(folder / name) != manifest.files[name]:
            raise BadInput(f"{folder / name}: differs from the null model of the manifest (SHA-256); copy both again")
        return cls(manifest, null_model)

    def score(self, energies: Sequence[FloatMap], exceedances: Sequence[FloatMap] = ()) -> FloatMap:
        """Score one picture.

        Args:
            energies: per scale, finest first, (H_i, W_i) float32.
            exceedances: likewise; the block rule alone needs them.

        Returns:
            (S, S) float32, −log10 NFA.

        Raises:
            ValueError: maps that cannot be energies or exceedances, or of another number or size than the manifest's.
        """
        manifest, size = self.manifest, (self.manifest.input_size, self.manifest.input_size)
        if self.null_model is not None:
            return self.null_model.score(energies, size)
        if manifest.rule == "block":
            assert manifest.exceedance_probability is not None, "see with_rule"
            return block_score(exceedances, manifest.channels, size, probability=manifest.exceedance_probability)
        return tree_score(energies, manifest.channels, size, rule=manifest.rule)

    def pixel_evidence(self, energies: Sequence[FloatMap]) -> FloatMap:
        """How unusual each pixel of a picture that was scored is by itself: Σ ln(1 + surprise) over the scales.

        The surprise is −log10 of the null model's probability that a good pixel reaches the energy. Without a null
        model it is half the energy per channel, as in the likelihood map: a χ² law would call all latents likely that
        are calmer than N(0, 1). A moderate surprise at every scale outweighs a large one at a single scale.

        Args:
            energies: per scale, finest first, (H_i, W_i) float32.

        Returns:
            (S, S) float32, not negative; 0 is calm.
        """
        size = (self.manifest.input_size, self.manifest.input_size)
        if self.null_model is not None:
            surprises = [-scale.log10_tail(one) for scale, one in zip(self.null_model.scales, energies, strict=True)]
        else:
            surprises = [one / (2 * c) for one, c in zip(energies, self.manifest.channels, strict=True)]
        return np.asarray(sum(upsample_bilinear(np.log1p(one).astype(np.float32), size) for one in surprises))

    def scores(self, statistics: LatentStatistics) -> Iterator[FloatMap]:
        """Score one picture after the other, like `score`."""
        exceedances = zip(*statistics.exceedances, strict=True) if statistics.exceedances else repeat(())
        return map(self.score, zip(*statistics.energies, strict=True), exceedances)

    def evidence(self, statistics: LatentStatistics, boxes: Sequence[Box]) -> FloatMap:
        """`pixel_evidence` of all parts of a frame in one map; 0 where nothing was inspected."""
        parts = map(self.pixel_evidence, zip(*statistics.energies, strict=True))
        return stitch(parts, boxes, outside=0)[0]


def with_rule(bundle: Bundle[UFlowManifest], rule: Rule) -> Bundle[UFlowManifest]:
    """The same network, scored by a rule at log-NFA 0: no part of its calibration applies.

    Raises:
        BadInput: the block rule, for a bundle whose graphs count no exceedances.
    """
    if rule == "block" and bundle.manifest.exceedance_probability is None:
        raise BadInput(f"{bundle.folder}: the bundle has no exceedance outputs; export it with --block-nfa")
    manifest = replace(
        bundle.manifest, rule=rule, null_model=None, calibration=None, operating_point=LOG_NFA_0, drift=None
    )
    return replace(bundle, manifest=manifest)

"""From energies to the score map: by the bundle's null model where it has one, and by its tree rule where not."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.nfa import tree_score
from uflow_edge.runtime.nfa.null_model import NullModel
from uflow_edge.runtime.numeric import FloatMap
from uflow_edge.runtime.storage.files import sha256


@dataclass(frozen=True, slots=True)
class Scorer:
    """How the pictures of one bundle are scored.

    Attributes:
        manifest: of the bundle.
        null_model: that good images have taught; None: latents are taken as N(0, 1) and the manifest's rule holds.

    Raises:
        BadInput: on construction, where the null model was learned on maps of other sizes.
    """

    manifest: UFlowManifest
    null_model: NullModel | None = None

    def __post_init__(self) -> None:
        if self.null_model is None:
            return
        expected = [(scale.height, scale.width) for scale in self.manifest.scales]
        found = [scale.pixel_gain.shape for scale in self.null_model.scales]
        if found != expected:
            raise BadInput(f"the null model was learned on energy maps of {found}, not {expected}; calibrate again")

    @classmethod
    def load(cls, folder: Path, manifest: UFlowManifest) -> "Scorer":
        """With the null model that lies in the folder, if the manifest names one.

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

    def score(self, energies: Sequence[FloatMap]) -> FloatMap:
        """Of one picture, per scale, finest first, (H_i, W_i) float32, to (S, S) float32, −log10 NFA.

        Raises:
            ValueError: maps that cannot be energies, or of another number or size than the manifest's.
        """
        size = (self.manifest.input_size, self.manifest.input_size)
        if self.null_model is not None:
            return self.null_model.score(energies, size)
        return tree_score(energies, self.manifest.channels, size, rule=self.manifest.rule)

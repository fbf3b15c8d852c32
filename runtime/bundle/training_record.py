"""The training pictures of a bundle, so that calibration can tell them from new ones."""

from dataclasses import asdict, dataclass
from pathlib import Path

from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.storage.strict_json import decode, read_json, to_json

TRAINING = "training.json"


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """What the checkpoint says about its training.

    Attributes:
        fitted: `files.content_hash` of the pictures that the flow was fitted to.
        held_out: likewise, of those that decided when the training stopped.
        gains: ln(mean E / C) of every scale, finest first, for some good pictures that were not fitted.
    """

    fitted: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    gains: tuple[tuple[float, ...], ...] = ()

    def save(self, folder: Path) -> None:
        """Write it into a bundle that is being made."""
        (folder / TRAINING).write_text(to_json(asdict(self)) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, bundle: Bundle[UFlowManifest]) -> "TrainingRecord":
        """The record of a loaded bundle; empty if it has none.

        Raises:
            BadInput: it cannot be read.
        """
        if TRAINING not in bundle.manifest.files:
            return cls()
        path = bundle.folder / TRAINING
        try:
            found = decode(read_json(path), cls)
            if any(len(gains) != len(bundle.manifest.scales) for gains in found.gains):
                raise ValueError(f"gains: expected {len(bundle.manifest.scales)} per picture, one per scale")
        except (OSError, ValueError) as error:
            raise BadInput(f"{path}: no training record ({error}); export the checkpoint again") from error
        return found

"""The authors' own code, out of a checkout of their repository, driven from here with the weights of our checkpoints.

Theirs is under the AGPL and no part of this project: whoever wants the comparison clones it. It may need an environment
of its own, so it runs in another process (`upstream_process`). The two processes work in turn, never at once.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uflow_edge.benchmarks.studies.peers.eager import EagerVerdict
from uflow_edge.benchmarks.studies.peers.peer_process import PeerProcess, what_is_missing
from uflow_edge.export.checkpoints.checkpoint import load_checkpoint
from uflow_edge.runtime.errors import BadInput, MissingDependency
from uflow_edge.runtime.numeric import Image

REPOSITORY = "https://github.com/mtailanian/uflow"
_NEEDED = "import src.model, src.datamodule, src.nfa_tree"


@dataclass(frozen=True, slots=True)
class UpstreamSeconds:
    """Seconds a picture of their pipeline, by their process's clock."""

    preprocessing: float
    network: float
    likelihood: float
    tree: float

    @property
    def whole(self) -> float:
        """Picture to verdict."""
        return self.preprocessing + self.network + self.likelihood + self.tree


class UpstreamPeer(PeerProcess):
    """An interpreter with the authors' code in it. Use it in a ``with`` statement.

    Args:
        checkout: of their repository.
        folder: where it works, and what it writes.
        python: the interpreter; default, this one.

    Raises:
        BadInput: the checkout is none.
        MissingDependency: the interpreter has not all that their code imports.
    """

    def __init__(self, checkout: Path, folder: Path, python: Path | None = None) -> None:
        if not (checkout / "src" / "nfa_tree.py").is_file():
            raise BadInput(f"{checkout}: expected a checkout of {REPOSITORY}, found no src/nfa_tree.py in it")
        folder.mkdir(parents=True, exist_ok=True)
        interpreter = str(python or sys.executable)
        if missing := what_is_missing(interpreter, _NEEDED, checkout):
            raise MissingDependency(
                f"the authors' code does not run in {interpreter} ({missing}). Name one that has what their "
                "requirements.txt lists with --upstream-python PATH"
            )
        super().__init__("the authors' code", interpreter, "upstream_process", str(checkout.absolute()), folder=folder)

    def load(self, checkpoint: Path, threads: int) -> None:
        """Give its network the weights of a checkpoint that is tapped as theirs are and not whitened."""
        read = load_checkpoint(checkpoint)
        self.ask(
            "load",
            checkpoint=str(checkpoint.absolute()),
            backbone=read.architecture.backbone.timm_name,
            input_size=read.architecture.input_size,
            flow_steps=read.architecture.flow_steps,
            mean=read.normalization.mean,
            std=read.normalization.std,
            threads=threads,
        )

    def take(self, pictures_rgb: Sequence[Image]) -> None:
        """Give it pictures of one size, (H, W, 3) uint8 RGB each."""
        file = self._folder / "pictures.npy"
        np.save(file, np.stack(pictures_rgb))
        self.ask("take", file=str(file))

    def stages(self, indices: Sequence[int]) -> UpstreamSeconds:
        """What it takes it from pictures to verdicts, all in one batch, a picture."""
        seconds = self.ask("inspect", indices=list(indices))["seconds"]
        return UpstreamSeconds(*(took / len(indices) for took in seconds))

    def verdict(self, index: int) -> EagerVerdict:
        """What it finds in a picture."""
        file = self._folder / "maps.npz"
        (anomalous,) = self.ask("inspect", indices=[index], save=str(file))["anomalous"]
        with np.load(file) as maps:
            energies = tuple(maps[f"energy_{i}"][0] for i in range(len(maps.files) - 2))
            verdict = EagerVerdict(maps["likelihood"][0], maps["score"][0], energies)
        assert verdict.anomalous == anomalous, "its verdict is not that of its map"
        return verdict

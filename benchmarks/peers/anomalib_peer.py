"""anomalib's U-Flow in anomalib's ``OpenVINOInferencer``, driven from here, with the weights of one of our checkpoints.

anomalib needs much that this project does not, so it may live in an environment of its own: `AnomalibPeer` starts the
interpreter that has it and talks to it (`anomalib_process`). The two processes work in turn, never at once.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uflow_edge.export.checkpoint import load_checkpoint
from uflow_edge.export.tensors import save_tensors
from uflow_edge.runtime.errors import BadInput, MissingDependency
from uflow_edge.runtime.numeric import FloatMap, Image

_PROCESS = Path(__file__).with_name("anomalib_process.py")
_OURS, _THEIRS = "feature_extractor.extractor.", "feature_extractor.feature_extractor."


class AnomalibPeer:
    """An interpreter with anomalib in it. Use it in a ``with`` statement.

    Args:
        folder: where it works, and what it writes.
        python: the interpreter; default, this one.

    Raises:
        MissingDependency: it has no anomalib, or not all that anomalib's U-Flow and OpenVINO need.
    """

    def __init__(self, folder: Path, python: Path | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        interpreter = str(python or sys.executable)
        needed = "import anomalib.models, anomalib.deploy, lightning, onnxscript, openvino"
        try:
            probe = subprocess.run([interpreter, "-c", needed], capture_output=True, text=True, cwd=folder)
        except OSError as error:
            raise MissingDependency(f"{interpreter}: cannot be started ({error})") from error
        if probe.returncode != 0:
            last = (probe.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise MissingDependency(
                f"anomalib's U-Flow does not run in {interpreter} ({last}). Name one that has it with "
                "--anomalib-python PATH; it needs: pip install 'anomalib[openvino]'"
            )
        self._log = (folder / "anomalib.log").open("w")
        self._process = subprocess.Popen(
            [interpreter, str(_PROCESS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=folder,
        )

    def __enter__(self) -> "AnomalibPeer":
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def export(self, checkpoint: Path, sizes: Sequence[int]) -> dict[str, Any]:
        """Let anomalib save and export a U-Flow with the weights of our checkpoint.

        Args:
            checkpoint: of resnet18, tapped as the authors do, not whitened.
            sizes: sides of the square pictures that models are to take.

        Returns:
            ``checkpoint``, the one anomalib saved; ``models``, its OpenVINO models by size; ``anomalib``, its version.
        """
        read = load_checkpoint(checkpoint, "resnet18")
        weights = self._folder / "weights.pth"
        save_tensors({name.replace(_OURS, _THEIRS, 1): value for name, value in read.weights.items()}, weights)
        return self._ask(
            "export",
            weights=str(weights.absolute()),
            input_size=read.architecture.input_size,
            mean=read.normalization.mean,
            std=read.normalization.std,
            sizes=list(sizes),
            folder=str(self._folder.absolute()),
        )

    def load(self, name: str, model: str, config: dict[str, Any]) -> str:
        """Open a model under a name, with settings of OpenVINO's; the precision it then computes in."""
        return str(self._ask("load", name=name, model=model, config=config)["precision"])

    def take(self, name: str, pictures_rgb: Sequence[Image]) -> None:
        """Give it pictures of one size, (H, W, 3) uint8 RGB each, under a name."""
        file = (self._folder / f"{name}.npy").absolute()
        np.save(file, np.stack(pictures_rgb))
        self._ask("pictures", name=name, file=str(file))

    def seconds(self, model: str, pictures: str, index: int) -> float:
        """What it takes it from a picture to its anomaly map, by its own clock."""
        return float(self._ask("predict", model=model, pictures=pictures, index=index)["seconds"])

    def anomaly_map(self, model: str, pictures: str, index: int) -> FloatMap:
        """What it finds, (S, S) float32."""
        file = (self._folder / "map.npy").absolute()
        self._ask("predict", model=model, pictures=pictures, index=index, save=str(file))
        return np.asarray(np.load(file), np.float32)

    def _ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({command: arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "it has ended"}
        if "error" in answer:
            raise BadInput(f"anomalib cannot {command}: {answer['error']}; more in {self._log.name}")
        return answer

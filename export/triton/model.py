"""The Python backend model of a Triton repository, which turns energies into verdicts.

`uflow-export --triton` copies this file there as ``model.py``, with the bundle's manifest and null model beside it.
Triton makes a `TritonPythonModel` for each instance; the server's Python needs uflow-edge. See docs/triton.md.
"""

from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.bundle.folder import MANIFEST, parse_manifest
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.nfa import regions_above
from uflow_edge.runtime.numeric import FloatMap
from uflow_edge.runtime.scoring import Scorer
from uflow_edge.runtime.storage.strict_json import to_json

Verdicts = dict[str, NDArray[Any]]


class TritonPythonModel:
    """Gives the verdicts of `Inspector` for pictures of the input size; drift is not watched."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the files beside this one, and compile the kernels before the first request.

        Raises:
            BadInput: the manifest or the null model is missing, damaged, or not from one bundle.
        """
        folder = Path(__file__).parent
        manifest = parse_manifest((folder / MANIFEST).read_text(encoding="utf-8"), UFlowManifest)
        self._scorer = Scorer.load(folder, manifest)
        self._triton = import_module("triton_python_backend_utils")  # only a server has it
        scales = len(manifest.scales)
        energies = manifest.signature.outputs[:scales]
        self._inputs = [energy.name for energy in energies]
        self._verdicts([energy.zeros() for energy in energies])

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request; a request that cannot be answered gets an error, the others get their verdicts."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        triton = self._triton
        try:
            energies = [triton.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs]
            verdicts = self._verdicts(energies)
        except ValueError as error:
            return triton.InferenceResponse(output_tensors=[], error=triton.TritonError(f"energies: {error}"))
        return triton.InferenceResponse([triton.Tensor(name, values) for name, values in verdicts.items()])

    def _verdicts(self, energies: Sequence[FloatMap]) -> Verdicts:
        """Verdicts of N pictures, from energies (N, H_i, W_i) float32, finest scale first."""
        scores = np.stack([self._scorer.score(picture) for picture in zip(*energies, strict=True)])
        threshold = self._scorer.manifest.operating_point.threshold
        peaks = scores.max(axis=(1, 2))[:, np.newaxis]
        regions = [to_json([asdict(region) for region in regions_above(one, threshold)]) for one in scores]
        return {
            "score": peaks,
            "anomalous": ~(peaks.astype(np.float64) <= threshold),
            "score_map": scores,
            "mask": scores > threshold,
            "regions": np.array([[text.encode()] for text in regions], np.object_),
        }

"""Chooses the layers to compute in INT8: as much of the work as the energies allow.

Every layer is tried by itself. Roundings are independent, so the error of a set of layers is close to the root of the
sum of their squares. Layers are therefore given up in the order of squared error per multiplication saved, as few as
keep the bound; a bisection on the measured error finds how many. Then those given up are tried once more, the largest
first, since some of them still fit below the bound.

The error is measured at the energies after the latents have been corrected (see `latents`), on pictures that the ranges
were not measured on.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from uflow_edge.calibration.int8.graph import LARGEST, QuantizableLayer, quantize
from uflow_edge.calibration.int8.latents import ChannelAffine, latent_names
from uflow_edge.export.graphs.probe import Probe
from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.numeric import FloatMap, Image

_SECOND_TRIES = 12


@dataclass(frozen=True, slots=True)
class ChosenLayers:
    """The result of `search`.

    Attributes:
        names: of the layers to be quantised, in the order of the graph.
        sensitivity: error of the energies with one layer alone in INT8, by its name.
        error: of the energies with all chosen layers in INT8.
    """

    names: tuple[str, ...]
    sensitivity: Mapping[str, float]
    error: float


class QuantizationTrial:
    """Measures what quantising layers does to the energies.

    Args:
        model: the network in FP32.
        ranges: of the activations, see `quantize`.
        pictures: (S, S, 3) uint8 RGB, that the ranges were not measured on.
        largest_weight: see `quantize`.
    """

    def __init__(
        self, model: ir.Model, ranges: Mapping[str, float], pictures: Sequence[Image], largest_weight: int = LARGEST
    ) -> None:
        self._model = model
        self._ranges = ranges
        self._largest_weight = largest_weight
        self._pictures = pictures
        self._names = latent_names(model)
        self._latents = self._run(model)
        self._energies = [_energies(latents) for latents in self._latents]

    def quantized(self, chosen: Collection[str]) -> ir.Model:
        """The graph with these layers in INT8, its latents not yet corrected."""
        return quantize(self._model, chosen, self._ranges, self._largest_weight)

    def error(self, chosen: Collection[str]) -> float:
        """Mean relative error of the energies at the scale that suffers most, with these layers in INT8."""
        found = self._run(self.quantized(chosen))
        errors = []
        for latents, exact, energies in zip(found, self._latents, self._energies, strict=True):
            corrected = _energies(ChannelAffine.between(latents, exact)(latents))
            floor = np.finfo(np.float32).tiny
            errors.append(float(np.mean(np.abs(corrected - energies) / np.maximum(energies, floor))))
        return max(errors)

    def corrections(self, quantized: ir.Model) -> tuple[ChannelAffine, ...]:
        """What restores the latents of a quantised graph, one per scale."""
        found = self._run(quantized)
        return tuple(ChannelAffine.between(*pair) for pair in zip(found, self._latents, strict=True))

    def _run(self, model: ir.Model) -> list[FloatMap]:
        values = Probe(model, self._names).stacked(self._pictures)
        return [values[name] for name in self._names]


def search(trial: QuantizationTrial, candidates: Sequence[QuantizableLayer], bound: float) -> ChosenLayers:
    """The layers that can be quantised within a bound on `QuantizationTrial.error`, with many multiplications."""
    sensitivity = {
        layer.name: trial.error([layer.name]) for layer in progress(candidates, "layer by layer", unit="layer")
    }
    leaving = sorted(candidates, key=lambda layer: -(sensitivity[layer.name] ** 2) / layer.macs)
    errors: dict[int, float] = {len(leaving): 0.0}  # by how many are given up

    def holds(given_up: int) -> bool:
        if given_up not in errors:
            errors[given_up] = trial.error([layer.name for layer in leaving[given_up:]])
        return errors[given_up] <= bound

    low, high = 0, len(leaving)  # `high` holds
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    kept, error = {layer.name for layer in leaving[high:]}, errors[high]
    again = sorted(leaving[:high], key=lambda layer: -layer.macs)
    hopeful = [layer for layer in again if sensitivity[layer.name] <= bound][:_SECOND_TRIES]
    for layer in progress(hopeful, "second tries", unit="layer"):
        tried = trial.error(kept | {layer.name})
        if tried <= bound:
            kept, error = kept | {layer.name}, tried
    return ChosenLayers(tuple(layer.name for layer in candidates if layer.name in kept), sensitivity, error)


def _energies(latents: FloatMap) -> FloatMap:
    """(N, C, H, W) to (N, H, W)."""
    energies: FloatMap = np.einsum("nchw,nchw->nhw", latents, latents)
    return energies

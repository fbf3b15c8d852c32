"""Restores the mean and standard deviation of an INT8 graph's latents to what they are in FP32.

Rounding adds noise to every latent channel. In some channels of whitened features the noise is larger than the signal:
their energies grow severalfold, and everything looks anomalous. One gain and one offset per channel, estimated on good
pictures and written into the graph before the squares, undo that: each channel again contributes as much energy as
before. This is bias correction (Nagel et al., ICCV 2019, section 4.2) of the first two moments, applied at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from uflow_edge.calibration.int8.graph import constant, operands
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.numeric import FloatMap

_OVER = (0, 2, 3)  # pictures and pixels
_LEAST_SPREAD = 1e-6


@dataclass(frozen=True, slots=True)
class ChannelAffine:
    """Gain and offset of each latent channel of a scale, (1, C, 1, 1) float32 each."""

    gain: FloatMap
    offset: FloatMap

    @classmethod
    def between(cls, found: FloatMap, exact: FloatMap) -> "ChannelAffine":
        """The correction that gives ``found`` the mean and deviation of ``exact``, (N, C, H, W) each."""
        spread = np.maximum(found.std(axis=_OVER, keepdims=True), _LEAST_SPREAD)
        gain = exact.std(axis=_OVER, keepdims=True) / spread
        offset = exact.mean(axis=_OVER, keepdims=True) - gain * found.mean(axis=_OVER, keepdims=True)
        return cls(gain.astype(np.float32), offset.astype(np.float32))

    def __call__(self, latents: FloatMap) -> FloatMap:
        """Correct latents, (N, C, H, W)."""
        return latents * self.gain + self.offset


def latent_names(model: ir.Model) -> tuple[str, ...]:
    """Names of the values whose squares are summed to the energies, finest scale first.

    Raises:
        BadInput: an energy is not a sum of squares.
    """
    return tuple(operands(_square(output))[0].name or "" for output in model.graph.outputs if _is_energy(output))


def correct_latents(model: ir.Model, corrections: Sequence[ChannelAffine]) -> None:
    """Write corrections into a graph, one per scale, finest first."""
    graph = model.graph
    energies = [output for output in graph.outputs if _is_energy(output)]
    for i, (energy, correction) in enumerate(zip(energies, corrections, strict=True)):
        square = _square(energy)
        latent = operands(square)[0]
        scaled, moved = (
            ir.Value(name=f"latent_{i}_{what}", shape=latent.shape, type=ir.TensorType(ir.DataType.FLOAT))
            for what in ("scaled", "corrected")
        )
        gain = constant(graph, f"latent_{i}_gain", correction.gain)
        offset = constant(graph, f"latent_{i}_offset", correction.offset)
        graph.insert_before(
            square,
            [
                ir.node("Mul", [latent, gain], outputs=[scaled], name=scaled.name),
                ir.node("Add", [scaled, offset], outputs=[moved], name=moved.name),
            ],
        )
        for k in range(2):
            square.replace_input_with(k, moved)


def _is_energy(output: ir.Value) -> bool:
    return (output.name or "").startswith("energy_")


def _square(energy: ir.Value) -> ir.Node:
    total = energy.producer()
    summed = None if total is None or not total.inputs else total.inputs[0]
    square = None if summed is None else summed.producer()
    if square is None or square.op_type != "Mul" or square.inputs[0] is not square.inputs[1]:
        raise BadInput(f"output {energy.name} of the graph is not a sum of squares; export it again")
    return square

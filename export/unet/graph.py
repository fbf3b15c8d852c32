"""The graph of a diffusion UNet, which predicts noise and, if learned, variance from a noised picture and its step."""

import onnx_ir as ir
import torch
from torch import Tensor, nn

from uflow_edge.export.graphs.trace import TRACED_BATCH, trace_module
from uflow_edge.export.unet.checkpoint import UNetCheckpoint
from uflow_edge.export.unet.parity import FloatBatch
from uflow_edge.runtime.bundle.manifest import DEFAULT_OPSET, Signature
from uflow_edge.runtime.diffusion.sampling import NoisePredictor


class NoiseGraph(nn.Module):
    """The module that is traced.

    Takes ``sample`` (N, C, S, S) float32 in [-1, 1] and ``timestep`` (N,) float32, whole numbers: indices into the
    schedule. Returns ``noise`` (N, C, S, S) and, where it is learned, ``variance`` (N, C, S, S): -1 for the smallest
    log variance of the step, 1 for the largest.
    """

    def __init__(self, checkpoint: UNetCheckpoint) -> None:
        super().__init__()
        self.model = checkpoint.model
        self.learned_variance = checkpoint.learned_variance

    def forward(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor, ...]:
        (output,) = self.model(sample, timestep, return_dict=False)
        return output.chunk(2, dim=1) if self.learned_variance else (output,)


def trace_unet(
    checkpoint: UNetCheckpoint, signature: Signature, opset: int = DEFAULT_OPSET, batch: int | None = None
) -> ir.Model:
    """A simplified ONNX model that shares the checkpoint's weights.

    Args:
        checkpoint: as `load_unet` returns it.
        opset: of the ONNX standard operators. From 23 on attention is one node, which TensorRT-RTX refuses in FP32.
        batch: pictures per run; None: any number.

    Raises:
        BadInput: the exporter does not support this opset.
    """
    examples = {value.name: torch.zeros(batch or TRACED_BATCH, *value.shape) for value in signature.inputs}
    graph = NoiseGraph(checkpoint).eval()
    return trace_module(graph, examples, signature.output_names, opset, dynamic_batch=batch is None)


def torch_predictor(checkpoint: UNetCheckpoint) -> NoisePredictor:
    """A function that runs the network itself."""
    graph = NoiseGraph(checkpoint).eval()

    def predict(sample: FloatBatch, timestep: FloatBatch) -> tuple[FloatBatch, ...]:
        with torch.inference_mode():
            return tuple(output.numpy() for output in graph(torch.from_numpy(sample), torch.from_numpy(timestep)))

    return predict

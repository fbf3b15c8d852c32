"""Prints what an export would write, without writing it."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from uflow_edge.export.bundle import ExportOptions, energy_graph
from uflow_edge.export.checkpoints.checkpoint import load_checkpoint
from uflow_edge.export.tables import megabytes
from uflow_edge.runtime.bundle.manifest import Precision
from uflow_edge.runtime.cli.command_line import table

_BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "int8": 1}


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the network.

    Attributes:
        name: extractor or flow.
        weights: number of its weights.
        macs: multiply-accumulate operations per image, in convolutions and matrix products.
    """

    name: str
    weights: int
    macs: int

    def size_bytes(self, precision: Precision) -> int:
        """Size of the weights in a graph of this precision: nearly the size of the graph."""
        return self.weights * _BYTES[precision]


def parts(network: nn.Module, input_size: int) -> tuple[Part, ...]:
    """Extractor and flow of a network, lowered or not; modules that never run are left out."""
    called: set[nn.Module] = set()
    hooks = [module.register_forward_pre_hook(lambda m, _: called.add(m)) for module in network.modules()]
    counter = FlopCounterMode(display=False, depth=2)
    with torch.no_grad(), counter:
        network(torch.zeros(1, 3, input_size, input_size))
    for hook in hooks:
        hook.remove()
    counts = counter.get_flop_counts()
    return tuple(
        Part(
            name,
            _weights(network.get_submodule(attribute), called),
            sum(counts.get(f"{type(network).__name__}.{attribute}", {}).values()) // 2,
        )
        for name, attribute in (("extractor", "feature_extractor"), ("flow", "flow"))
    )


def _weights(part: nn.Module, called: set[nn.Module]) -> int:
    """Weights of the modules that were called, or contain one that was."""
    run = [module for module in part.modules() if any(inner in called for inner in module.modules())]
    tensors = (tensor for m in run for tensor in (*m.parameters(recurse=False), *m.buffers(recurse=False)))
    return sum(tensor.numel() for tensor in tensors if tensor.is_floating_point())


def print_dry_run(checkpoint_path: Path, folder: Path, options: ExportOptions) -> None:
    """Print what an export of this checkpoint would write."""
    checkpoint = load_checkpoint(checkpoint_path, options.extractor)
    architecture = checkpoint.architecture
    found = parts(energy_graph(checkpoint, lowered=True).network, architecture.input_size)
    scales = ", ".join(f"{scale.channels} x {scale.side} x {scale.side}" for scale in architecture.latents)
    source = f" ({checkpoint.extractor_weights})" if checkpoint.extractor_weights else ""
    what = f"{checkpoint.origin}, {architecture.extractor}{source}, {architecture.flow_steps} flow steps"
    print(f"{checkpoint_path}: {what}")
    print(f"input {architecture.input_size} x {architecture.input_size}, latents {scales}\n")
    rows = [(part.name, f"{part.macs / 1e9:.3f}", f"{part.weights / 1e6:.2f}") for part in found]
    print(table(("part", "GMAC per image", "million weights"), rows, left=(0,)) + "\n")
    batch = "any batch" if options.batch is None else f"batch {options.batch}"
    for precision in options.precisions:
        size = megabytes(sum(part.size_bytes(precision) for part in found))
        print(f"would write {folder}/model.{precision}.onnx, about {size}, {batch}, opset {options.opset}")
    if folder.exists():
        print(f"{folder} exists already: with --overwrite it is replaced")

"""Gives a bundle an INT8 graph, made from its FP32 graph and good images of its line.

    measure ranges → choose layers → quantise → correct the latents → prove the graph → list it

The other modules hold one step each: `search`, `graph` (and `half`), `latents`, and `store` for the last two.
docs/int8.md has the measurements. Needs onnx and onnx-ir, not torch.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir

from uflow_edge.calibration.int8.graph import LARGEST, QuantizableLayer, layers
from uflow_edge.calibration.int8.half import with_fp16_rest
from uflow_edge.calibration.int8.latents import correct_latents
from uflow_edge.calibration.int8.search import ChosenLayers, QuantizationTrial, search
from uflow_edge.calibration.int8.store import Int8Failed, store_int8
from uflow_edge.export.graphs.parity import ENERGY_BOUNDS, Parity
from uflow_edge.export.graphs.probe import Probe
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.manifest import Variant
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.engines.proof import SEVEN_BIT_LARGEST, has_vnni
from uflow_edge.runtime.errors import BadInput, UsageError
from uflow_edge.runtime.images.files import find_images, read_image, spread
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.resize.cpu import model_input

logger = logging.getLogger(__name__)

FILE = "model.int8.onnx"
FEWEST_IMAGES = 8

_ALLOWANCE = 1.5  # for pictures and engines that the search has not seen


@dataclass(frozen=True, slots=True)
class Int8Options:
    """How to quantise.

    Attributes:
        error_bound: mean relative error of the energies that the search may spend, at the scale that suffers most; the
            finished graph may have half as much again on other pictures.
        rest: precision of everything that is not INT8: fp32 for CPUs, fp16 for GPUs.
        weight_bits: 7 keeps an x86 processor without VNNI from saturating; by default 8 where this one has it.
        calibration_images: the most images that ranges are measured on.
        search_images: images held out from these, to choose layers by.

    Raises:
        UsageError: on construction, if the bound or a number of images is not positive.
    """

    error_bound: float = ENERGY_BOUNDS["int8"]
    rest: Literal["fp32", "fp16"] = "fp32"
    weight_bits: Literal[7, 8] = field(default_factory=lambda: 8 if has_vnni() else 7)
    calibration_images: int = 32
    search_images: int = 8

    def __post_init__(self) -> None:
        if not self.error_bound > 0 or min(self.calibration_images, self.search_images) < 1:
            raise UsageError(f"expected a positive bound and positive numbers of images: {self}")


@dataclass(frozen=True, slots=True)
class Int8Result:
    """The INT8 graph of a bundle, and how it was made.

    Attributes:
        layers: all that could have been quantised.
        choice: those that were, and how sensitive each layer is.
        parities: the INT8 graph against the FP32 one, one per engine, on pictures that layers were not chosen by. At
            least one holds; engines whose parity does not hold are not used.
        calibration_images, search_images: how many there were of each.
    """

    variant: Variant
    layers: tuple[QuantizableLayer, ...]
    choice: ChosenLayers
    parities: tuple[Parity, ...]
    calibration_images: int
    search_images: int
    seconds: float

    @property
    def quantized_work(self) -> float:
        """Share of the multiplications that INT8 does, 0 to 1."""
        chosen = set(self.choice.names)
        return sum(layer.macs for layer in self.layers if layer.name in chosen) / sum(
            layer.macs for layer in self.layers
        )


def quantize_bundle(
    bundle: Bundle[UFlowManifest], images: Sequence[Path], options: Int8Options = Int8Options()
) -> tuple[Bundle[UFlowManifest], Int8Result]:
    """Give a bundle an INT8 graph, in place of an older one; the bundle can be loaded at every moment.

    Args:
        bundle: as loaded, with an FP32 graph first.
        images: good images of the line, files and folders.

    Returns:
        The bundle as it is now, and what was done.

    Raises:
        BadInput: too few images, or no FP32 graph to start from.
        Int8Failed: no layer keeps the bound, or the finished graph misses it by more than half on other pictures in
            every engine; the bundle is unchanged.
    """
    started = time.perf_counter()
    manifest = bundle.manifest
    exact = manifest.variants[0]
    if exact.precision != "fp32":
        raise BadInput(f"{bundle.folder}: its first graph is {exact.precision}, expected fp32; export it again")
    calibration, held_out = _pictures(manifest, images, options)
    logger.info(f"measuring activations on {len(calibration)} images")
    model = ir.load(bundle.path(exact))
    candidates = layers(model)
    ranges = largest_magnitudes(model, sorted({layer.source for layer in candidates}), calibration)
    logger.info(f"choosing layers by {len(held_out)} other images")
    largest_weight = SEVEN_BIT_LARGEST if options.weight_bits == 7 else LARGEST
    trial = QuantizationTrial(model, ranges, held_out, largest_weight)
    choice = search(trial, candidates, options.error_bound)
    if not choice.names:
        raise Int8Failed(
            f"{bundle.folder}: no layer can be computed in INT8 with energies within {options.error_bound:.1%}; "
            "allow a larger error, or stay with fp16"
        )
    quantized = trial.quantized(choice.names)
    correct_latents(quantized, trial.corrections(quantized))
    if options.rest == "fp16":
        quantized = with_fp16_rest(quantized)
    bound = _ALLOWANCE * options.error_bound
    variant = Variant(FILE, "int8", quantized.opset_imports[""], exact.batch, bound)
    logger.info("comparing with the fp32 graph")
    bundle, parities = store_int8(bundle, variant, quantized, calibration[: len(held_out)])
    seconds = time.perf_counter() - started
    return bundle, Int8Result(
        bundle.manifest.variants[-1], candidates, choice, parities, len(calibration), len(held_out), seconds
    )


def largest_magnitudes(model: ir.Model, names: Sequence[str], pictures: Sequence[Image]) -> dict[str, float]:
    """The largest magnitude of each value of a graph on pictures, (S, S, 3) uint8 RGB each.

    Nothing that was seen is clipped: anomalies reach farther than good images do, and a clipped anomaly is invisible.
    """
    largest = dict.fromkeys(names, 0.0)
    for values in Probe(model, names).each(progress(pictures, "largest activations")):
        for name, value in values.items():
            largest[name] = max(largest[name], float(np.abs(value).max()))
    return largest


def _pictures(manifest: UFlowManifest, images: Sequence[Path], options: Int8Options) -> tuple[list[Image], list[Image]]:
    """Pictures to measure ranges on, and others to choose layers by, spread evenly over the given images."""
    files = list(find_images(images))
    if len(files) < FEWEST_IMAGES:
        raise BadInput(f"{len(files)} images: INT8 needs at least {FEWEST_IMAGES} good images of the line, better 40")
    held = min(options.search_images, len(files) // 2)
    used = min(options.calibration_images + held, len(files))
    chosen = spread(files, used)
    aside = set(spread(range(used), held))
    pictures = [
        model_input(read_image(file), manifest.input_size, manifest.fit) for file in progress(chosen, "reading images")
    ]
    calibration = [picture for i, picture in enumerate(pictures) if i not in aside]
    return calibration, [pictures[i] for i in sorted(aside)]

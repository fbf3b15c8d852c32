"""An INT8 graph for a bundle, made from its FP32 graph and good pictures of its line.

    measure ranges → choose layers → quantise → correct the latents → prove it → list it

One module each: int8_ranges, int8_search, int8_graph, int8_latents, and int8_bundle for the last two. docs/int8.md has
what was measured. Needs onnx and onnx-ir, not torch.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from uflow_edge.calibration.int8.cache import cache_file, cache_folder, cached
from uflow_edge.calibration.int8.equalisation import equalize, links
from uflow_edge.calibration.int8.graph import LARGEST, SEVEN_BIT_LARGEST, Layer, layers
from uflow_edge.calibration.int8.half import with_fp16_rest
from uflow_edge.calibration.int8.latents import correct_latents
from uflow_edge.calibration.int8.ranges import RANGE_METHODS, RangeMethod, measure
from uflow_edge.calibration.int8.search import Choice, Judge, search
from uflow_edge.calibration.int8.store import Int8Failed, store_int8
from uflow_edge.export.graphs.parity import ENERGY_BOUNDS, Parity
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.manifest import Variant
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.engines.proof import has_vnni
from uflow_edge.runtime.errors import BadInput, UsageError
from uflow_edge.runtime.images.files import find_images, read_image, spread
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.resize.cpu import model_input

FILE = "model.int8.onnx"
FEWEST_IMAGES = 8

_ALLOWANCE = 1.5  # for pictures and engines that the search has not seen


@dataclass(frozen=True, slots=True)
class Int8Options:
    """How to quantise.

    Attributes:
        error_bound: mean relative error of the energies that the search may spend, at the scale that suffers most; the
            finished graph may have half as much again on other pictures.
        ranges: how the range of an activation is chosen. What good images do not reach, anomalies may, and what is
            clipped cannot be seen: the default clips nothing that was ever seen.
        equalize: whether channels are brought to one size first: helps where every layer is to be quantised, and does
            not go with FP16 around it, where enlarged channels may overflow.
        rest: precision of what is not INT8: fp32 for CPUs, fp16 for GPUs.
        weight_bits: 7 keeps an x86 processor without VNNI from saturating; default, 8 where this one does not need it.
        calibration_images: most images that ranges are taken from.
        search_images: images held out of that, to choose layers by.
        cache: folder of kept measurements; None: in the user's cache folder.

    Raises:
        UsageError: on construction, values that make no sense.
    """

    error_bound: float = ENERGY_BOUNDS["int8"]
    ranges: RangeMethod = "minmax"
    equalize: bool = False
    rest: Literal["fp32", "fp16"] = "fp32"
    weight_bits: Literal[7, 8] = field(default_factory=lambda: 8 if has_vnni() else 7)
    calibration_images: int = 32
    search_images: int = 8
    cache: Path | None = None

    def __post_init__(self) -> None:
        if not self.error_bound > 0 or min(self.calibration_images, self.search_images) < 1:
            raise UsageError(f"expected a positive bound and positive numbers of images: {self}")
        if self.equalize and self.rest == "fp16":
            raise UsageError("equalised channels may overflow in FP16: choose one of the two")
        if self.ranges not in RANGE_METHODS:
            raise UsageError(f"ranges {self.ranges!r}: expected one of {', '.join(RANGE_METHODS)}")


@dataclass(frozen=True, slots=True)
class Int8Result:
    """What became of it.

    Attributes:
        variant: as the manifest lists it.
        layers: all that might have been quantised.
        choice: which were, and how sensitive each is.
        parities: the INT8 graph against the FP32 one, one an engine, on pictures that layers were not chosen by; one at
            least holds, and engines whose parity does not are not used.
        calibration_images, search_images: how many there were of each.
        seconds: that it took.
    """

    variant: Variant
    layers: tuple[Layer, ...]
    choice: Choice
    parities: tuple[Parity, ...]
    calibration_images: int
    search_images: int
    seconds: float

    @property
    def quantized_work(self) -> float:
        """Share of the multiplications that INT8 does, 0 to 1."""
        chosen = set(self.choice.chosen)
        return sum(layer.macs for layer in self.layers if layer.name in chosen) / sum(
            layer.macs for layer in self.layers
        )

    @property
    def left_in_float(self) -> tuple[Layer, ...]:
        """Layers that are not quantised, the most sensitive first."""
        left = [layer for layer in self.layers if layer.name not in self.choice.chosen]
        return tuple(sorted(left, key=lambda layer: -self.choice.sensitivity[layer.name]))


def quantize_bundle(
    bundle: Bundle[UFlowManifest],
    images: Sequence[Path],
    options: Int8Options = Int8Options(),
    report: Callable[[str], None] = lambda line: None,
) -> tuple[Bundle[UFlowManifest], Int8Result]:
    """Give a bundle an INT8 graph, or another one; at every moment it can be loaded.

    Args:
        bundle: as loaded, with an FP32 graph first.
        images: good images of the line, files and folders.
        options: see `Int8Options`.
        report: told the name of each stage as it starts.

    Returns:
        The bundle as it is now, and what was done.

    Raises:
        BadInput: too few images, or no FP32 graph to start from.
        Int8Failed: no layer keeps the bound, or the finished graph misses it by more than half on other pictures in
            every engine; the bundle is as it was.
    """
    started = time.perf_counter()
    manifest = bundle.manifest
    exact = manifest.variants[0]
    if exact.precision != "fp32":
        raise BadInput(f"{bundle.folder}: its first graph is {exact.precision}, expected fp32; export it again")
    calibration, held_out = _pictures(manifest, images, options)
    report(f"measuring activations on {len(calibration)} images")
    model = ir.load(bundle.path(exact))
    prepared, ranges = _prepared(model, manifest.graph_sha256(exact), calibration, options)
    report(f"choosing layers by {len(held_out)} other images")
    largest_weight = SEVEN_BIT_LARGEST if options.weight_bits == 7 else LARGEST
    judge = Judge(model, prepared, ranges, held_out, largest_weight)
    candidates = layers(prepared)
    choice = search(judge, candidates, options.error_bound)
    if not choice.chosen:
        raise Int8Failed(
            f"{bundle.folder}: no layer can be computed in INT8 with energies within {options.error_bound:.1%}; "
            "allow a larger error, or stay with fp16"
        )
    quantized = judge.quantized(choice.chosen)
    correct_latents(quantized, judge.corrections(quantized))
    if options.rest == "fp16":
        quantized = with_fp16_rest(quantized)
    bound = _ALLOWANCE * options.error_bound
    variant = Variant(FILE, "int8", quantized.opset_imports[""], exact.batch, bound)
    report("comparing with the fp32 graph")
    bundle, parities = store_int8(bundle, variant, quantized, calibration[: len(held_out)])
    seconds = time.perf_counter() - started
    return bundle, Int8Result(
        bundle.manifest.variants[-1], candidates, choice, parities, len(calibration), len(held_out), seconds
    )


def _pictures(manifest: UFlowManifest, images: Sequence[Path], options: Int8Options) -> tuple[list[Image], list[Image]]:
    """Pictures to measure ranges on, and others to choose layers by: spread evenly over the images given."""
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


def _prepared(
    model: ir.Model, graph_sha256: str, pictures: Sequence[Image], options: Int8Options
) -> tuple[ir.Model, dict[str, float]]:
    """The graph to quantise, and the range of every activation in it."""
    folder = options.cache or cache_folder()
    if options.equalize:
        chain = links(model)
        names = sorted({link.value for link in chain})
        path = cache_file(folder, graph_sha256, "as exported", pictures)
        seen = cached(path, lambda: measure(model, names, pictures)) if chain else {}
        model = equalize(model, {name: seen[name].by_channel for name in names}, chain)
    prepared = model
    sources = sorted({layer.source for layer in layers(prepared)})
    path = cache_file(folder, graph_sha256, f"equalised: {options.equalize}", pictures)
    magnitudes = cached(path, lambda: measure(prepared, sources, pictures))
    return prepared, {name: magnitudes[name].range(options.ranges) for name in sources}

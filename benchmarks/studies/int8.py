"""What INT8 costs and gains: ``python -m uflow_edge.benchmarks.studies.int8 --bundle solar.uflow --data solar/``.

Compares our graph, ours with single remedies left out, and graphs of other quantisers, made from the same FP32 graph:
onnxruntime's static quantiser, and graphs made elsewhere (``--peer``; docs/int8.md has the line for NVIDIA ModelOpt).
Quality is measured in onnxruntime, on test images that neither training nor quantisation has seen.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from uflow_edge.benchmarks.studies.int8_costs import Quality, Seen, processor_medians
from uflow_edge.calibration.int8.graph import layers, quantize
from uflow_edge.calibration.int8.quantize_bundle import (
    Int8Options,
    Int8Result,
    largest_magnitudes,
    quantize_bundle,
)
from uflow_edge.export.graphs.files import write_onnx
from uflow_edge.export.graphs.parity import engines_here
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.manifest import Variant
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.cli.command_line import progress, run_command, table
from uflow_edge.runtime.cli.parser import command_parser
from uflow_edge.runtime.cli.values import finite_float
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.errors import ExitCode, UflowEdgeError, require
from uflow_edge.runtime.images.files import find_images, read_image, spread
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.resize.cpu import model_input

_CALIBRATION_METHODS = {"min-max": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
_PEER_IMAGES = 8  # onnxruntime's calibrators keep the activations of all images in memory


@dataclass(frozen=True, slots=True)
class ComparedGraph:
    """A graph to compare.

    Attributes:
        name: for people.
        file: the graph.
        variant: what it is in a bundle.
        work: share of the multiplications in INT8; None where it was not counted.
    """

    name: str
    file: Path
    variant: Variant
    work: float | None = None


def main(arguments: argparse.Namespace) -> ExitCode:
    """Quantise in every way, then print two tables."""
    bundle = Bundle.load(arguments.bundle, UFlowManifest)
    manifest = bundle.manifest
    train = list(find_images([arguments.data / "train" / "good"]))
    good, defective = (
        _pictures(arguments.data / "test" / kind, manifest, arguments.images) for kind in ("good", "defective")
    )
    labels = np.arange(len(good) + len(defective)) >= len(good)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ours = list(_ours(bundle, train, arguments.error_bound, folder))
        exact = ComparedGraph("fp32", bundle.path(manifest.variants[0]), manifest.variants[0], 0.0)
        halves = [ComparedGraph("fp16", bundle.path(v), v, 0.0) for v in manifest.variants if v.precision == "fp16"]
        # As onnxruntime's users run them: with its own fusions, which `int8` variants go without.
        files = dict(_onnxruntime_static(exact.file, _spread(train, manifest, _PEER_IMAGES), folder))
        files |= {name: Path(file) for name, _, file in (peer.partition("=") for peer in arguments.peer)}
        peers = [ComparedGraph(name, file, exact.variant) for name, file in files.items()]
        contenders = [exact, *halves, *ours, *peers]
        _print_quality(contenders, manifest, [*good, *defective], labels)
        _print_times([exact, *halves, *ours[:2], *peers[:1]], manifest, good[0], arguments.rounds)
    return ExitCode.OK


def _ours(bundle: Bundle[UFlowManifest], images: Sequence[Path], bound: float, folder: Path) -> Iterator[ComparedGraph]:
    """The product's graphs, then those with one remedy left out."""
    usual = Int8Options(error_bound=bound)
    variations: Mapping[str, Int8Options] = {
        "ours": usual,
        "ours, FP16 around it": replace(usual, rest="fp16"),
        "ours, every layer": replace(usual, error_bound=1e6),
    }
    for i, (name, options) in enumerate(variations.items()):
        copy = folder / f"{i}.uflow"
        shutil.copytree(bundle.folder, copy)
        changed, result = quantize_bundle(Bundle.load(copy, UFlowManifest), images, options)
        if name == "ours":
            _print_layers(result)
        yield ComparedGraph(name, changed.path(result.variant), result.variant, result.quantized_work)
    yield ComparedGraph("every layer, min-max, no remedy", _plain(bundle, images, folder), result.variant, 1.0)


def _plain(bundle: Bundle[UFlowManifest], images: Sequence[Path], folder: Path) -> Path:
    model = ir.load(bundle.path(bundle.manifest.variants[0]))
    found = layers(model)
    sources = sorted({layer.source for layer in found})
    ranges = largest_magnitudes(model, sources, _spread(images, bundle.manifest, 32))
    return write_onnx(quantize(model, [layer.name for layer in found], ranges), folder / "plain.onnx")[0]


def _onnxruntime_static(graph: Path, pictures: Sequence[Image], folder: Path) -> Iterator[tuple[str, Path]]:
    quantization: Any = require("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._pictures = iter(pictures)

        def get_next(self) -> dict[str, Any] | None:
            picture = next(self._pictures, None)
            return None if picture is None else {"image": picture[np.newaxis]}

    for title, method in progress(_CALIBRATION_METHODS.items(), "onnxruntime's static quantiser", unit="method"):
        file = folder / f"onnxruntime-{method}.onnx"
        quantization.quantize_static(
            str(graph), str(file), Reader(),
            quant_format=quantization.QuantFormat.QDQ, op_types_to_quantize=["Conv"], per_channel=True,
            activation_type=quantization.QuantType.QInt8, weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod[method],
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "CalibPercentile": 99.99},
        )  # fmt: skip
        yield f"onnxruntime, {title}", file


def _print_layers(result: Int8Result) -> None:
    print(
        f"\n{len(result.choice.names)} of {len(result.layers)} layers in INT8, {result.quantized_work:.0%} of the "
        f"multiplications, energies within {result.choice.error:.1%}, {result.seconds:.0f} s; left in float:\n"
    )
    left = [layer for layer in result.layers if layer.name not in result.choice.names]
    rows = [
        (layer.name, f"{layer.macs / 1e6:.1f}", f"{result.choice.sensitivity[layer.name]:.1%}")
        for layer in sorted(left, key=lambda layer: -result.choice.sensitivity[layer.name])
    ]
    print(table(("layer", "million products", "error by itself"), rows, left=(0,)) + "\n")


def _print_quality(
    contenders: Sequence[ComparedGraph], manifest: UFlowManifest, pictures: Sequence[Image], labels: Any
) -> None:
    exact: Seen | None = None
    rows = []
    for contender in contenders:
        try:
            with closing(OnnxRuntimeEngine(contender.file, manifest, contender.variant)) as engine:
                seen = Seen.by(engine.run, pictures, manifest)
        except Exception as error:  # a graph of someone else's that onnxruntime cannot run is a result too
            if isinstance(error, UflowEdgeError) or exact is not None:
                print(f"{contender.name}: {' '.join(str(error).split())[:200]}")
                continue
            raise
        exact = exact or seen
        rows.append(_row(contender, seen.quality(exact, labels)))
    print(f"\n{int((~labels).sum())} good and {int(labels.sum())} defective test images, {manifest.rule} rule\n")
    heading = ("", "work in INT8", "energies' error", "score change", "mask IoU", "AUROC")
    print(table(heading, rows, left=(0,)) + "\n")


def _row(contender: ComparedGraph, quality: Quality) -> tuple[str, ...]:
    return (
        contender.name,
        "" if contender.work is None else f"{contender.work:.0%}",
        f"{quality.energy_error:.1%}",
        f"{quality.score_change:.1f}",
        "–" if quality.mask_iou is None else f"{quality.mask_iou:.3f}",
        "–" if quality.auroc is None else f"{quality.auroc:.4f}",
    )


def _print_times(contenders: Sequence[ComparedGraph], manifest: UFlowManifest, picture: Image, rounds: int) -> None:
    with ExitStack() as opened:
        runs: dict[tuple[str, str], Callable[[], object]] = {}
        for contender in contenders:
            for make in engines_here(contender.file, manifest, contender.variant, threads=1):
                engine = opened.enter_context(closing(make()))
                library = engine.name.split()[0]
                runs[contender.name, library] = lambda run=engine.run: run(picture[np.newaxis])  # type: ignore[misc]
        times = dict(zip(runs, processor_medians(list(runs.values()), rounds), strict=True))
    rows = []
    for (name, library), milliseconds in times.items():
        ratio = times[contenders[0].name, library] / milliseconds
        best = min(times[contenders[0].name, other] for other in {key[1] for key in times}) / milliseconds
        rows.append((name, library, f"{milliseconds:.1f}", f"{ratio:.2f}", f"{best:.2f}"))
    print(f"one image, one thread, processor time, median of {rounds} interleaved rounds\n")
    print(table(("", "engine", "ms", "against its FP32", "against the best FP32"), rows, left=(0, 1)))


def _pictures(folder: Path, manifest: UFlowManifest, most: int) -> list[Image]:
    return _spread(list(find_images([folder])), manifest, most)


def _spread(files: Sequence[Path], manifest: UFlowManifest, most: int) -> list[Image]:
    """So many pictures, evenly taken from the files, as the model sees them."""
    return [model_input(read_image(file), manifest.input_size, manifest.fit) for file in spread(files, most)]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = command_parser(
        "python -m uflow_edge.benchmarks.studies.int8",
        "Compare INT8 graphs of a bundle: accuracy on labelled images, and time.",
        ["python -m uflow_edge.benchmarks.studies.int8 --bundle demo/solar.uflow --data demo/data"],
    )
    parser.add_argument("--bundle", type=Path, required=True, metavar="FOLDER", help="with an FP32 graph")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="FOLDER", help="with train/good, test/good and test/defective"
    )
    parser.add_argument("--images", type=int, default=120, help="test images of each kind (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=30, help="of timing (default: %(default)s)")
    parser.add_argument(
        "--error-bound",
        type=finite_float,
        default=Int8Options().error_bound,
        help="of our energies (default: %(default)s)",
    )
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=FILE", help="another quantised graph to compare"
    )
    return parser


if __name__ == "__main__":
    run_command(lambda: parser().parse_args(), main)

"""What every export has in common: it replaces nothing unasked, and writes no graph that has not proved itself."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Generic, TypeVar

import onnx_ir as ir

from uflow_edge.export.graphs.files import write_onnx
from uflow_edge.export.graphs.parity import Judged
from uflow_edge.export.graphs.precision import rounded, to_fp16
from uflow_edge.runtime.bundle.folder import MANIFEST, Bundle
from uflow_edge.runtime.bundle.manifest import Manifest, Precision, Variant
from uflow_edge.runtime.errors import DISTRIBUTION, BadInput, UflowEdgeError
from uflow_edge.runtime.storage.files import check_writable

ON_A_GPU = ", rounded as on a GPU"
_TOOLS = (DISTRIBUTION, "torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "onnxruntime-gpu")

P = TypeVar("P", bound=Judged)
M = TypeVar("M", bound=Manifest)


class ParityLost(UflowEdgeError):
    """The exported graphs do not compute what the checkpoint does."""


@dataclass(frozen=True, slots=True)
class WrittenVariant(Generic[P]):
    """What became of one graph.

    Attributes:
        file: its name.
        size_bytes: with its weights.
        parities: one an engine.
        written: whether it is in the bundle.
    """

    file: str
    size_bytes: int
    parities: tuple[P, ...]
    written: bool


@dataclass(frozen=True, slots=True)
class Exported(Generic[M, P]):
    """A bundle, and what became of every graph that was asked for."""

    bundle: Bundle[M]
    variants: tuple[WrittenVariant[P], ...]


@dataclass(frozen=True, slots=True)
class GraphOptions:
    """Choices of a graph.

    Attributes:
        opset: of the ONNX standard operators.
        batch: samples a run that it is fixed to; None takes any number.
        allow_parity_loss: write it even if it misses its bound.
    """

    opset: int
    batch: int | None
    allow_parity_loss: bool


def refuse_to_replace(folder: Path, overwrite: bool) -> None:
    """Make sure that a bundle may and can be written here.

    Raises:
        BadInput: something is there that must not be replaced, or nothing can be written there.
    """
    if folder.exists() and not overwrite:
        raise BadInput(f"{folder}: exists already; choose another --out, or replace it with --overwrite")
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise BadInput(f"{folder}: is not a bundle, so it will not be replaced; choose another --out")
    check_writable(folder, "folder")


def write_variant(
    graph: ir.Model,
    precision: Precision,
    folder: Path,
    options: GraphOptions,
    error_bound: float,
    measure: Callable[[Path, Variant, str], Sequence[P]],
) -> tuple[Variant, WrittenVariant[P]]:
    """Write a graph in one precision, and take it away again if it does not compute what it should.

    Args:
        graph: in FP32, as traced.
        precision: to write it in.
        folder: of the bundle that is being made.
        options: see `GraphOptions`.
        error_bound: noted in the manifest.
        measure: compares the graph in a file, in every engine that it sees fit; the text says in which way the graph is
            not the one of the bundle, and is empty where it is.
    """
    path = folder / f"model.{precision}.onnx"
    model = to_fp16(graph) if precision == "fp16" else graph
    files = write_onnx(model, path)
    size_bytes = sum(file.stat().st_size for file in files)
    data = next((file.name for file in files if file != path), None)
    variant = Variant(path.name, precision, options.opset, options.batch, error_bound, data)
    parities = list(measure(path, variant, ""))
    if precision == "fp16":  # CPUs compute much of it in FP32, which flatters it; here every FP16 result is rounded
        with TemporaryDirectory(dir=folder) as temporary:
            as_on_a_gpu, *_ = write_onnx(rounded(model), Path(temporary) / path.name)
            parities += measure(as_on_a_gpu, variant, ON_A_GPU)
    written = options.allow_parity_loss or all(parity.holds for parity in parities)
    if not written:
        for file in files:
            file.unlink()
    return variant, WrittenVariant(path.name, size_bytes, tuple(parities), written)


def refuse_parity_loss(checkpoint: Path, results: Sequence[WrittenVariant[P]]) -> None:
    """Make sure that there is a graph to ship.

    Raises:
        ParityLost: none keeps its bound; the message says how far each is off.
    """
    if not any(result.written for result in results):
        worst = "; ".join(str(parity) for result in results for parity in result.parities if not parity.holds)
        raise ParityLost(f"{checkpoint}: the exported graphs differ from the checkpoint; no bundle written. {worst}")


def bundle_there(folder: Path, kind: type[M]) -> Bundle[M] | None:
    """The bundle that will be replaced; None where there is none, or a damaged one, of which nothing can be kept."""
    try:
        return Bundle.load(folder, kind)
    except BadInput:
        return None


def tool_versions(*more: str) -> dict[str, str]:
    """Of what took part in the export, by distribution, those that are installed."""
    versions = {}
    for name in (*_TOOLS, *more):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions

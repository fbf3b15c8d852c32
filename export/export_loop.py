"""The export of any network: trace it, write its graphs, prove each against torch, all or nothing."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, Generic, TypeVar

import onnx_ir as ir

from uflow_edge.export.engines.plans import carry_over
from uflow_edge.export.graphs.files import write_onnx
from uflow_edge.export.graphs.parity import PARITY, AnyParity, parity_json
from uflow_edge.export.graphs.precision import rounded, to_fp16
from uflow_edge.runtime.bundle.folder import MANIFEST, Bundle
from uflow_edge.runtime.bundle.manifest import DEFAULT_OPSET, EXPORTED_PRECISIONS, Manifest, Precision, Variant
from uflow_edge.runtime.errors import DISTRIBUTION, BadInput, UflowEdgeError
from uflow_edge.runtime.storage.files import check_writable, replacing_folder, sha256

logger = logging.getLogger(__name__)

ON_A_GPU = ", rounded as on a GPU"
_TOOLS = (DISTRIBUTION, "torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "onnxruntime-gpu")

P = TypeVar("P", bound=AnyParity)
M = TypeVar("M", bound=Manifest)


class ParityLost(UflowEdgeError):
    """The exported graphs do not compute what the checkpoint does."""


@dataclass(frozen=True, slots=True)
class GraphOptions:
    """Options of every export.

    Attributes:
        precisions: of the graphs to write, the reference first.
        batch: samples per run that the graphs are fixed to; None: any number.
        parity_images: files and folders of images on which graphs and checkpoint are compared; empty: others are found.
        allow_parity_loss: also write graphs that miss their bound.
    """

    precisions: tuple[Precision, ...] = EXPORTED_PRECISIONS
    opset: int = DEFAULT_OPSET
    batch: int | None = None
    parity_images: tuple[Path, ...] = ()
    allow_parity_loss: bool = False


@dataclass(frozen=True, slots=True)
class WrittenVariant(Generic[P]):
    """The result for one graph.

    Attributes:
        size_bytes: with its weights.
        written: whether it is in the bundle.
    """

    file: str
    size_bytes: int
    parities: tuple[P, ...]
    written: bool


@dataclass(frozen=True, slots=True)
class Exported(Generic[M, P]):
    """The new bundle, and the result for each graph that was asked for."""

    bundle: Bundle[M]
    variants: tuple[WrittenVariant[P], ...]


class NetworkExport(ABC, Generic[M, P]):
    """What the loop needs to know about one network.

    Attributes:
        manifest: without graphs and files.
        reference_file: file of `add_files` that engines are checked against when they are opened; None: there is none.
    """

    manifest: M
    reference_file: ClassVar[str | None] = None

    @abstractmethod
    def trace(self) -> ir.Model:
        """The FP32 graph."""

    @abstractmethod
    def error_bound(self, precision: Precision) -> float:
        """The bound that the manifest states for a graph."""

    @abstractmethod
    def compare(self, path: Path, variant: Variant, how: str) -> Sequence[P]:
        """Compare a graph with torch, in one engine or more.

        Args:
            how: in what way the graph differs from the one in the bundle; empty if it does not.
        """

    def suited_to_fp16(self, graph: ir.Model) -> ir.Model:
        """The FP32 graph with weights that lose less by rounding."""
        return graph

    def add_files(self, folder: Path, manifest: M) -> None:
        """Write more files into the new bundle, whose graphs are there."""

    def keep(self, old: Bundle[M], folder: Path, manifest: M) -> M:
        """Copy what still holds from the bundle that is replaced; return the new manifest with it."""
        return manifest


def export_network(
    network: NetworkExport[M, P], checkpoint: Path, folder: Path, options: GraphOptions, *, overwrite: bool
) -> Exported[M, P]:
    """Write a bundle in one rename; engines of a bundle that is replaced are kept where their graphs stay the same.

    Raises:
        ParityLost: no graph keeps its bound; nothing is written.
    """
    manifest = network.manifest
    with replacing_folder(folder, overwrite=overwrite) as temporary:
        logger.info("tracing the network …")
        graph = network.trace()
        results = []
        for precision in options.precisions:
            logger.info(f"comparing {precision} with torch …")
            variant, result = _write_variant(network, graph, precision, temporary, options)
            results.append(result)
            if result.written:
                manifest = replace(manifest, variants=(*manifest.variants, variant))
        _refuse_parity_loss(checkpoint, results)
        network.add_files(temporary, manifest)
        parities = {result.file: result.parities for result in results}
        (temporary / PARITY).write_text(parity_json(parities), encoding="utf-8")
        manifest = replace(manifest, files={file.name: sha256(file) for file in sorted(temporary.iterdir())})
        with suppress(BadInput):  # nothing is kept of a damaged bundle, or of one of another kind
            old = Bundle.load(folder, type(manifest))
            manifest = network.keep(old, temporary, carry_over(old, temporary, manifest))
        (temporary / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return Exported(Bundle.load(folder, type(manifest)), tuple(results))


def check_replaceable(folder: Path, overwrite: bool) -> None:
    """Make sure that a bundle may and can be written here.

    Raises:
        BadInput: something is there that must not be replaced, or nothing can be written there.
    """
    if folder.exists() and not overwrite:
        raise BadInput(f"{folder}: exists already; choose another --out, or replace it with --overwrite")
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise BadInput(f"{folder}: is not a bundle, so it will not be replaced; choose another --out")
    check_writable(folder, "folder")


def tool_versions(*more: str) -> dict[str, str]:
    """Versions of the installed distributions that take part in an export, by name."""
    versions = {}
    for name in (*_TOOLS, *more):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _write_variant(
    network: NetworkExport[M, P], graph: ir.Model, precision: Precision, folder: Path, options: GraphOptions
) -> tuple[Variant, WrittenVariant[P]]:
    """Write the graph in one precision, and remove it again if it misses its bound."""
    path = folder / f"model.{precision}.onnx"
    model = to_fp16(network.suited_to_fp16(graph)) if precision == "fp16" else graph
    files = write_onnx(model, path)
    size_bytes = sum(file.stat().st_size for file in files)
    data = next((file.name for file in files if file != path), None)
    variant = Variant(path.name, precision, options.opset, options.batch, network.error_bound(precision), data)
    parities = list(network.compare(path, variant, ""))
    if precision == "fp16":  # CPUs compute much of it in FP32, which flatters it; here every FP16 result is rounded
        with TemporaryDirectory(dir=folder) as temporary:
            as_on_a_gpu, *_ = write_onnx(rounded(model), Path(temporary) / path.name)
            parities += network.compare(as_on_a_gpu, variant, ON_A_GPU)
    holds = all(parity.holds for parity in parities)
    if holds:
        variant = replace(variant, reference=network.reference_file)
    written = holds or options.allow_parity_loss
    if not written:
        for file in files:
            file.unlink()
    return variant, WrittenVariant(path.name, size_bytes, tuple(parities), written)


def _refuse_parity_loss(checkpoint: Path, results: Sequence[WrittenVariant[P]]) -> None:
    if not any(result.written for result in results):
        worst = "; ".join(str(parity) for result in results for parity in result.parities if not parity.holds)
        raise ParityLost(f"{checkpoint}: the exported graphs differ from the checkpoint; no bundle written. {worst}")

"""The bundle: a folder with everything that a line needs: graphs, a manifest and the evidence for both.

    bottle.uflow/
      manifest.json      what the files are, and the SHA-256 of each
      model.fp32.onnx    the network
      model.fp16.onnx    the same with half-precision weights and arithmetic where that is safe
      parity.json        how far each graph is from the network it was traced from
      reference.npz      a few pictures and their FP32 outputs, which engines are checked against
      engines/           TensorRT plans, named after what they run on, each with a log of its layers

docs/bundle.md specifies it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from uflow_edge.runtime.bundle.graph_check import check_graph
from uflow_edge.runtime.bundle.manifest import SCHEMA, Manifest, Variant
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.bundle.unet import UNetManifest
from uflow_edge.runtime.errors import BadInput, UsageError
from uflow_edge.runtime.storage.files import replacing, sha256
from uflow_edge.runtime.storage.strict_json import decode, parse_json, read_json

SUFFIX = ".uflow"
MANIFEST = "manifest.json"
_KINDS: tuple[type[Manifest], ...] = (UFlowManifest, UNetManifest)

M = TypeVar("M", bound=Manifest)
M_co = TypeVar("M_co", bound=Manifest, covariant=True)


@dataclass(frozen=True, slots=True)
class Bundle(Generic[M_co]):
    """A bundle on disk whose files are what its manifest says."""

    folder: Path
    manifest: M_co

    @staticmethod
    def load(folder: str | Path, kind: type[M]) -> "Bundle[M]":
        """Read and verify a bundle.

        Args:
            kind: of manifest that it must have; `Manifest` takes any.

        Raises:
            BadInput: there is no bundle, it is of another kind, its manifest cannot be read, or a file is missing or
                differs from what was exported; the message names the file.
        """
        folder = Path(folder)
        manifest = read_manifest(folder / MANIFEST, kind)
        for name, expected in manifest.files.items():
            file = folder / name
            if not file.is_file():
                raise BadInput(f"{file}: missing from the bundle; export the checkpoint again")
            if sha256(file) != expected:
                raise BadInput(
                    f"{file}: differs from what was exported (SHA-256); copy the bundle again or re-export it"
                )
        for variant in manifest.variants:
            check_graph(folder / variant.file, () if variant.data is None else (variant.data,))
        return Bundle(folder, manifest)

    def path(self, variant: Variant) -> Path:
        """The file of a graph of this bundle."""
        return self.folder / variant.file


def write_manifest(folder: Path, manifest: M) -> Bundle[M]:
    """Replace the manifest of a bundle that is being edited; it must list the files as they are.

    Raises:
        OSError: it cannot be written; the old one is still there.
    """
    with replacing(folder / MANIFEST) as temporary:
        temporary.write_text(manifest.to_json(), encoding="utf-8")
    return Bundle(folder, manifest)


def parse_manifest(text: str, kind: type[M]) -> M:
    """Parse the text of a ``manifest.json`` of this version or an earlier one.

    Args:
        kind: of manifest that it must be; `Manifest` accepts any.

    Raises:
        BadInput: not JSON, a newer schema or another kind, or fields missing, unknown, or of the wrong type or range.
    """
    return _parsed(lambda: parse_json(text), kind)


def _parsed(read: Callable[[], Any], kind: type[M]) -> M:
    try:
        return _decoded(read(), kind)
    except ValueError as error:
        raise BadInput(f"no valid manifest ({error}); copy the bundle again or export it again") from error


def _decoded(values: Any, kind: type[M]) -> M:
    if not isinstance(values, dict):
        raise ValueError("expected one JSON object")
    schema, named = values.pop("schema", None), values.pop("kind", None)
    if type(schema) is int and schema > SCHEMA:
        raise BadInput(f"schema {schema}, made by a newer version; this one reads up to {SCHEMA}: update uflow-edge")
    if type(schema) is not int or schema < 1:
        raise ValueError(f"schema: expected a number from 1 to {SCHEMA}")
    found = next((candidate for candidate in _KINDS if candidate.kind == named), None)
    if found is None:
        raise ValueError("expected kind " + " or ".join(repr(candidate.kind) for candidate in _KINDS))
    if not issubclass(found, kind):
        raise BadInput(
            f"this bundle holds a {found.noun}; expected a {kind.noun}, made with: uflow-export {kind.option} …"
        )
    if schema < 3:
        _rename_energy_bound(values)
    manifest = decode(values, found)
    manifest.check()
    return manifest


def _rename_energy_bound(values: dict[str, Any]) -> None:
    """Schemas 1 and 2 call the bound so."""
    variants = values.get("variants")
    for variant in variants if isinstance(variants, list) else ():
        if isinstance(variant, dict) and "energy_bound" in variant:
            variant["error_bound"] = variant.pop("energy_bound")


def read_manifest(path: Path, kind: type[M]) -> M:
    """Read a manifest without checking the files that it lists.

    Raises:
        BadInput: there is none, or see `parse_manifest`.
    """
    try:
        return _parsed(lambda: read_json(path), kind)
    except FileNotFoundError as error:
        raise BadInput(
            f"{path.parent}: no bundle here (no {MANIFEST}); make one with: uflow-export {_option(kind)} …"
        ) from error
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error})") from error
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error


def _option(kind: type[Manifest]) -> str:
    return next(candidate.option for candidate in _KINDS if issubclass(candidate, kind))


def find_bundle(folder: Path, kind: type[Manifest] = UFlowManifest) -> Path:
    """The only bundle of a kind in a folder.

    Raises:
        UsageError: there is none, or more than one; the message lists them.
    """
    found = sorted(path for path in folder.glob(f"*{SUFFIX}") if _may_be(path / MANIFEST, kind))
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(
            f"no *{SUFFIX} bundle of a {kind.noun} in {folder.resolve()}; name one with --bundle, or make one with: "
            f"uflow-export {_option(kind)} …"
        )
    listed = ", ".join(path.name for path in found)
    raise UsageError(f"{len(found)} bundles in {folder.resolve()}: {listed}; name one with --bundle")


def _may_be(manifest: Path, kind: type[Manifest]) -> bool:
    """A damaged manifest counts too: the error about it helps more than 'no bundle'."""
    if not manifest.is_file():
        return False
    try:
        named = read_json(manifest)["kind"]
    except (OSError, ValueError, KeyError, TypeError):
        return True
    return any(issubclass(candidate, kind) and candidate.kind == named for candidate in _KINDS)

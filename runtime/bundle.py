"""The bundle: a folder with graphs, a manifest and its own evidence; the whole of what a line needs.

    bottle.uflow/
      manifest.json      what the files are, and the SHA-256 of each
      model.fp32.onnx    the network
      model.fp16.onnx    the same with half-precision weights and arithmetic where that is safe
      parity.json        every graph against the network it was traced from
      engines/           TensorRT plans, named after what they run on, each with a log of its layers beside it

docs/bundle.md specifies it.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from uflow_edge.runtime.errors import BadInput, UsageError
from uflow_edge.runtime.files import replacing, sha256
from uflow_edge.runtime.manifest import READABLE_SCHEMAS, Manifest, Variant
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.uflow_manifest import UFlowManifest
from uflow_edge.runtime.unet_manifest import UNetManifest

SUFFIX = ".uflow"
MANIFEST = "manifest.json"
_KINDS: tuple[type[Manifest], ...] = (UFlowManifest, UNetManifest)

_CALIBRATION = ("source", "null_model", "drift", "operating_point")

M = TypeVar("M", bound=Manifest)
M_co = TypeVar("M_co", bound=Manifest, covariant=True)


class BundleChanged(BadInput):
    """The bundle on disk is no longer the one that was loaded."""


@dataclass(frozen=True, slots=True)
class Bundle(Generic[M_co]):
    """A bundle on disk whose files are what its manifest says."""

    folder: Path
    manifest: M_co

    @staticmethod
    def load(folder: str | Path, kind: type[M]) -> "Bundle[M]":
        """Read and verify a bundle.

        Args:
            folder: where it is.
            kind: of manifest that it must have; `Manifest` takes any.

        Raises:
            BadInput: no bundle there, one of another kind, a manifest that cannot be read, or a file that is missing or
                differs from what was exported; the message names the file.
        """
        folder = Path(folder)
        manifest = _read_manifest(folder / MANIFEST, kind)
        for name, expected in manifest.files.items():
            file = folder / name
            if not file.is_file():
                raise BadInput(f"{file}: missing from the bundle; export the checkpoint again")
            if sha256(file) != expected:
                raise BadInput(
                    f"{file}: differs from what was exported (SHA-256); copy the bundle again or re-export it"
                )
        return Bundle(folder, manifest)

    def path(self, variant: Variant) -> Path:
        """Where a variant's graph is."""
        return self.folder / variant.file


def write_manifest(folder: Path, manifest: M) -> Bundle[M]:
    """Give a bundle on disk another manifest, which must list its files as they are.

    Raises:
        OSError: it cannot be written; the old one is still there.
    """
    with replacing(folder / MANIFEST) as temporary:
        temporary.write_text(manifest.to_json(), encoding="utf-8")
    return Bundle(folder, manifest)


def save_operating_point(bundle: Bundle[UFlowManifest], point: OperatingPoint) -> Bundle[UFlowManifest]:
    """Write another threshold into the manifest on disk; changes there that do not bear on it stay.

    Raises:
        BundleChanged: the bundle was exported or calibrated again, or another threshold was saved, since it was loaded.
        BadInput: the manifest cannot be read any more.
        OSError: it cannot be written; the old one is still there.
    """
    manifest = _read_manifest(bundle.folder / MANIFEST, UFlowManifest)
    if any(getattr(manifest, name) != getattr(bundle.manifest, name) for name in _CALIBRATION):
        raise BundleChanged(
            f"{bundle.folder}: its calibration has changed since it was loaded, so the threshold was not saved; start "
            "again to use the bundle as it is now"
        )
    return write_manifest(bundle.folder, replace(manifest, operating_point=point))


def parse_manifest(text: str, kind: type[M]) -> M:
    """Parse what `Manifest.to_json` wrote.

    Args:
        text: of ``manifest.json``.
        kind: that it must be; `Manifest` takes any.

    Raises:
        BadInput: not JSON, another schema or kind, or fields missing, unknown or of the wrong type.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        raise BadInput(f"not JSON ({error})") from error
    named = values.pop("kind", None) if isinstance(values, dict) else None
    wanted = [candidate for candidate in _KINDS if issubclass(candidate, kind)]
    parser = next((candidate for candidate in wanted if candidate.kind == named), None)
    if parser is None:
        expected = " or ".join(repr(candidate.kind) for candidate in wanted)
        raise BadInput(f"expected a manifest of kind {expected}, got {named!r}")
    schema = values.pop("schema", None)
    if schema not in READABLE_SCHEMAS:
        known = ", ".join(map(str, READABLE_SCHEMAS))
        raise BadInput(f"schema {schema!r}; this version reads schemas {known}: export the checkpoint again")
    try:
        manifest = parser.parse(values)
    except (AttributeError, KeyError, TypeError, ValueError, UsageError) as error:
        raise BadInput(f"fields are missing, unknown or of the wrong type ({error})") from error
    assert isinstance(manifest, kind)
    return manifest


def _read_manifest(path: Path, kind: type[M]) -> M:
    try:
        return parse_manifest(path.read_text(encoding="utf-8"), kind)
    except FileNotFoundError as error:
        raise BadInput(
            f"{path.parent}: no bundle here (no {MANIFEST}); make one with: uflow-export --ckpt …"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error})") from error
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error


def find_bundle(folder: Path, kind: type[Manifest] = UFlowManifest) -> Path:
    """The one bundle of a kind in a folder.

    Raises:
        UsageError: there is none, or more than one; the message lists them.
    """
    found = sorted(path for path in folder.glob(f"*{SUFFIX}") if _may_be(path / MANIFEST, kind))
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(
            f"no *{SUFFIX} bundle in {folder.resolve()}; name one with --bundle, or make one with uflow-export"
        )
    listed = ", ".join(path.name for path in found)
    raise UsageError(f"{len(found)} bundles in {folder.resolve()}: {listed}; name one with --bundle")


def _may_be(manifest: Path, kind: type[Manifest]) -> bool:
    """A damaged manifest counts too: the error about it helps more than 'no bundle'."""
    if not manifest.is_file():
        return False
    try:
        named = json.loads(manifest.read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, KeyError, TypeError):
        return True
    return any(issubclass(candidate, kind) and candidate.kind == named for candidate in _KINDS)

"""Changes a bundle on disk so that it can be loaded at every moment, also after a crash.

New files are written to a hidden folder first. Then one rename of the manifest turns the old bundle into the new one.
Everything that decides a verdict is in the manifest or, like a null model, in a file named after its content, so old
and new are never mixed. A file that is replaced under its own name would have a wrong digest for a moment; so the
manifest first stops listing it, and the graphs and engines that need it: a crash then leaves the old bundle without
them. Files that the new manifest does not list are removed last.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from uflow_edge.runtime.bundle.folder import MANIFEST, Bundle, read_manifest, write_manifest
from uflow_edge.runtime.bundle.manifest import Manifest
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.storage.files import holding, scratch_folder, sha256

_CALIBRATION = ("null_model", "calibration", "drift", "operating_point")

M = TypeVar("M", bound=Manifest)


class BundleChanged(BadInput):
    """The bundle on disk is no longer the one that was loaded."""


@dataclass(slots=True)
class BundleEdit(Generic[M]):
    """Changes that are being collected.

    Attributes:
        bundle: on disk; once the edit is finished, the new one.
        manifest: of the new bundle. Its ``files`` follow `add` and `drop`; whatever is assigned to them is ignored.
    """

    bundle: Bundle[M]
    manifest: M
    _folder: Path
    _added: dict[str, str] = field(default_factory=dict)
    _dropped: set[str] = field(default_factory=set)

    def add(self, name: str, content: bytes | Path) -> None:
        """Add a file, or replace one.

        Args:
            content: of the file, or a finished file on the same disk, which is moved.

        Raises:
            OSError: it cannot be written; the bundle is as it was.
        """
        file = self._folder / name
        file.parent.mkdir(exist_ok=True)
        if isinstance(content, Path):
            content.replace(file)
        else:
            file.write_bytes(content)
        self._added[name] = sha256(file)

    def drop(self, *names: str) -> None:
        """Remove files, listed or not, unless `add` is called with the same name."""
        self._dropped.update(names)

    def commit(self) -> None:
        """Make the collected changes; `editing` calls this when its block ends.

        Raises:
            ValueError: the new manifest contradicts itself; the bundle is as it was.
            OSError: something cannot be written. The bundle can still be loaded.
        """
        old, folder = self.bundle.manifest, self.bundle.folder
        kept = {name: digest for name, digest in old.files.items() if name not in self._dropped}
        new = replace(self.manifest, files={**kept, **self._added})
        new.check()
        replaced = {name for name, digest in self._added.items() if old.files.get(name, digest) != digest}
        if replaced:
            between = _without(old, replaced)
            between.check()
            write_manifest(folder, between)
        for name in self._added:
            (folder / name).parent.mkdir(exist_ok=True)
            (self._folder / name).replace(folder / name)
        self.bundle = write_manifest(folder, new)
        for name in (old.files.keys() | self._dropped) - new.files.keys():
            (folder / name).unlink(missing_ok=True)


@contextmanager
def editing(bundle: Bundle[M]) -> Iterator[BundleEdit[M]]:
    """Collect changes to a bundle and make them when the block ends; an exception in the block changes nothing.

    The edit starts from the manifest on disk, so what others have changed since the bundle was loaded is kept. One edit
    waits for another.

    Raises:
        BundleChanged: another checkpoint was exported into the bundle since it was loaded.
        BadInput: the manifest can no longer be read.
        OSError: something cannot be written. The bundle can still be loaded.
    """
    with holding(bundle.folder), scratch_folder(bundle.folder) as temporary:
        manifest = read_manifest(bundle.folder / MANIFEST, type(bundle.manifest))
        if manifest.source != bundle.manifest.source:
            raise BundleChanged(
                f"{bundle.folder}: a checkpoint was exported into it since it was loaded, so nothing was saved; start "
                "again to use the bundle as it is now"
            )
        edit = BundleEdit(Bundle(bundle.folder, manifest), manifest, temporary)
        yield edit
        edit.commit()


def save_operating_point(bundle: Bundle[UFlowManifest], point: OperatingPoint) -> Bundle[UFlowManifest]:
    """Write another threshold into the bundle on disk.

    Raises:
        BundleChanged: the bundle was exported or calibrated again, or another threshold was saved, since it was loaded.
        BadInput: the manifest can no longer be read.
        OSError: it cannot be written; the old one is still there.
    """
    with editing(bundle) as edit:
        if any(getattr(edit.manifest, name) != getattr(bundle.manifest, name) for name in _CALIBRATION):
            raise BundleChanged(
                f"{bundle.folder}: its calibration has changed since it was loaded, so the threshold was not saved; "
                "start again to use the bundle as it is now"
            )
        edit.manifest = replace(edit.manifest, operating_point=point)
    return edit.bundle


def _without(manifest: M, names: Collection[str]) -> M:
    """The manifest without these files, and without the graphs and engines that need them."""
    variants = tuple(v for v in manifest.variants if not {v.file, v.data, v.reference} & set(names))
    graphs = {variant.file for variant in variants}
    plans = tuple(plan for plan in manifest.plans if plan.file not in names and plan.graph in graphs)
    files = {name: digest for name, digest in manifest.files.items() if name not in names}
    return replace(manifest, variants=variants, plans=plans, files=files)

"""A recipe from which a worker builds its inspector; it is sent instead of an engine, which cannot be pickled."""

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from uflow_edge.runtime.bundle.folder import MANIFEST, Bundle
from uflow_edge.runtime.bundle.manifest import Precision
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images.decode import Reading, in_use, use
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.storage.files import sha256
from uflow_edge.runtime.views import ViewOptions

if TYPE_CHECKING:
    from uflow_edge.runtime.engines.selection import Backend
    from uflow_edge.runtime.inspector import Inspector


@dataclass(frozen=True, slots=True)
class InspectorRecipe:
    """Everything a worker needs to build its inspector; made with `from_bundle`.

    Attributes:
        bundle: the absolute folder, the same on every machine, and the manifest to use instead of the folder's.
        bundle_sha256: SHA-256 of the folder's manifest, which contains those of all other files.
        backend, precision: see `engines.selection.open_engine`.
        views: the parts of an image that are inspected.
    """

    bundle: Bundle[UFlowManifest]
    bundle_sha256: str
    backend: "Backend" = "auto"
    precision: Precision | None = None
    threads: int = 1
    views: ViewOptions = ViewOptions()
    reading: Reading = Reading()

    @classmethod
    def from_bundle(
        cls,
        bundle: Bundle[UFlowManifest],
        *,
        threshold: float | None = None,
        backend: "Backend" = "auto",
        precision: Precision | None = None,
        threads: int | None = None,
        views: ViewOptions = ViewOptions(),
    ) -> "InspectorRecipe":
        """Make the recipe for a loaded bundle; workers read images as this process does.

        Drift is not watched: it needs images in the order of time, which an archive on several workers does not have.

        Args:
            bundle: on storage that all workers share, or copied to the same place on every machine.
            threshold: replaces the bundle's operating point.
            backend, precision, threads, views: see the class; by default one thread, as workers share their machine.
        """
        manifest = replace(bundle.manifest, drift=None)
        if threshold is not None:
            manifest = replace(manifest, operating_point=OperatingPoint(threshold, "manual"))
        used = Bundle(bundle.folder.absolute(), manifest)
        return cls(used, sha256(bundle.folder / MANIFEST), backend, precision, threads or 1, views, in_use())

    def facts(self) -> dict[str, Any]:
        """Everything that decides the results, in plain types."""
        manifest = self.bundle.manifest
        return {
            "bundle_sha256": self.bundle_sha256,
            "operating_point": asdict(manifest.operating_point),
            "rule": manifest.rule,
            "null_model": manifest.null_model,
            "backend": self.backend,
            "precision": self.precision,
            "views": asdict(self.views),
            **({} if self.reading == Reading() else {"reading": asdict(self.reading)}),
        }

    def open(self) -> "Inspector":
        """Load the bundle on this machine, and warm up. The engine lives as long as the process.

        Raises:
            BadInput: the bundle is missing or damaged, or differs from the one at the start of the run.
            UflowEdgeError: no engine for it runs here.
        """
        import cv2

        from uflow_edge.runtime.inspector import Inspector

        cv2.setNumThreads(1)
        use(self.reading)
        folder = self.bundle.folder
        Bundle.load(folder, UFlowManifest)  # checks the files
        if sha256(folder / MANIFEST) != self.bundle_sha256:
            raise BadInput(f"{folder}: differs from the bundle at the start of the run; copy that one to every machine")
        return Inspector.load(
            self.bundle, backend=self.backend, precision=self.precision, threads=self.threads, views=self.views
        )

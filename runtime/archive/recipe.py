"""How a worker makes its inspector: sent to it in place of an engine, which cannot travel."""

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
    """What every worker opens; make it with `of`.

    Attributes:
        bundle: absolute folder, the same on every machine; and the manifest to judge by, whatever is in the folder's.
        bundle_sha256: of the folder's manifest, which has those of all other files.
        backend, precision: see `engines.selection.open_engine`.
        threads: of the engine in each worker.
        views: which parts of an image are inspected.
        reading: how image files are read.
    """

    bundle: Bundle[UFlowManifest]
    bundle_sha256: str
    backend: "Backend" = "auto"
    precision: Precision | None = None
    threads: int = 1
    views: ViewOptions = ViewOptions()
    reading: Reading = Reading()

    @classmethod
    def of(
        cls,
        bundle: Bundle[UFlowManifest],
        *,
        threshold: float | None = None,
        backend: "Backend" = "auto",
        precision: Precision | None = None,
        threads: int | None = None,
        views: ViewOptions = ViewOptions(),
    ) -> "InspectorRecipe":
        """For a bundle that was loaded; images are read as this process reads them.

        Drift is not watched: it is a matter of order in time, and an archive on several workers has none.

        Args:
            bundle: on storage that all workers share, or with a copy at the same place on every machine.
            threshold: in place of its operating point.
            backend, precision, threads, views: see the class; by default one thread, for workers share their machine.
        """
        manifest = replace(bundle.manifest, drift=None)
        if threshold is not None:
            manifest = replace(manifest, operating_point=OperatingPoint(threshold, "manual"))
        judging = Bundle(bundle.folder.absolute(), manifest)
        return cls(judging, sha256(bundle.folder / MANIFEST), backend, precision, threads or 1, views, in_use())

    def facts(self) -> dict[str, Any]:
        """All of it that decides numbers, in plain types."""
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
        """Load the bundle as it is on this machine, and warm up. The engine lives as long as the process.

        Raises:
            BadInput: the bundle is missing, damaged, or another than the one the run began with.
            UflowEdgeError: no engine for it runs here.
        """
        import cv2

        from uflow_edge.runtime.inspector import Inspector

        cv2.setNumThreads(1)
        use(self.reading)
        folder = self.bundle.folder
        Bundle.load(folder, UFlowManifest)  # the files are whole
        if sha256(folder / MANIFEST) != self.bundle_sha256:
            raise BadInput(f"{folder}: another bundle than the one this run began with; copy the same to every machine")
        return Inspector.load(
            self.bundle,
            backend=self.backend,
            precision=self.precision,
            threads=self.threads,
            views=self.views,
        )

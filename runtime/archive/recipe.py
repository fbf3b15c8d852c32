"""How a worker makes its inspector: sent to it in place of an engine, which cannot travel."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uflow_edge.runtime.bundle import MANIFEST, Bundle
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.files import sha256
from uflow_edge.runtime.manifest import Precision
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.uflow_manifest import UFlowManifest
from uflow_edge.runtime.views import ViewOptions

if TYPE_CHECKING:
    from uflow_edge.runtime.engines.selection import Backend
    from uflow_edge.runtime.inspector import Inspector


@dataclass(frozen=True, slots=True)
class InspectorRecipe:
    """What every worker opens; make it with `of`.

    Attributes:
        bundle: absolute folder, the same on every machine.
        bundle_sha256: of its manifest, which has those of all other files.
        operating_point: to judge with.
        backend, precision: see `engines.selection.open_engine`.
        threads: of the engine in each worker.
        views: which parts of an image are inspected.
    """

    bundle: Path
    bundle_sha256: str
    operating_point: OperatingPoint
    backend: "Backend" = "auto"
    precision: Precision | None = None
    threads: int = 1
    views: ViewOptions = ViewOptions()

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
        """For a bundle that was loaded.

        Args:
            bundle: on storage that all workers share, or with a copy at the same place on every machine.
            threshold: in place of its operating point.
            backend, precision, threads, views: see the class; by default one thread, for workers share their machine.
        """
        point = bundle.manifest.operating_point if threshold is None else OperatingPoint(threshold, "manual")
        digest = sha256(bundle.folder / MANIFEST)
        return cls(bundle.folder.absolute(), digest, point, backend, precision, threads or 1, views)

    def facts(self) -> dict[str, Any]:
        """All of it that decides numbers, in plain types."""
        facts = asdict(self)
        return {name: value for name, value in facts.items() if name not in ("bundle", "threads")}

    def open(self) -> "Inspector":
        """Load the bundle as it is on this machine, and warm up. The engine lives as long as the process.

        Drift is not watched: it is a matter of order in time, and an archive on several workers has none.

        Raises:
            BadInput: the bundle is missing, damaged, or another than the one the run began with.
            UflowEdgeError: no engine for it runs here.
        """
        import cv2

        from uflow_edge.runtime.device_frames import device_frames
        from uflow_edge.runtime.engines.selection import open_engine
        from uflow_edge.runtime.inspector import Inspector

        cv2.setNumThreads(1)
        bundle = Bundle.load(self.bundle, UFlowManifest)
        if sha256(self.bundle / MANIFEST) != self.bundle_sha256:
            raise BadInput(f"{self.bundle}: another bundle than the one this run began with; copy the same everywhere")
        bundle = replace(bundle, manifest=replace(bundle.manifest, drift=None))
        engine = open_engine(bundle, self.backend, self.precision, self.threads)
        frames = device_frames(engine, bundle.manifest.input_size, lambda line: None)
        inspector = Inspector.of(bundle, engine, self.views, frames)
        inspector.warm_up()
        inspector.operating_point = self.operating_point
        return inspector

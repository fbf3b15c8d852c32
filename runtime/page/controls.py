"""What the live page asks of the pipeline, and what it may change there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from uflow_edge.runtime.line.capture import CameraState
from uflow_edge.runtime.line.tally import Tally


def _no_cameras() -> Mapping[str, CameraState]:
    return {}


@dataclass(frozen=True, slots=True)
class Controls:
    """The pipeline's handles, called from the page's threads: each must be quick and safe to call from any thread.

    Attributes:
        tally: what became of every frame.
        threshold: on the image score, as it applies now.
        saved_threshold: as the bundle says.
        set_threshold: apply another from the next frame on. May raise `UflowEdgeError` to refuse it.
        save_threshold: write the one that applies into the bundle; None where that is not offered. May raise
            `UflowEdgeError` or OSError.
        fire_trigger: have the next frame inspected; None without a software trigger.
        state: of every camera, by name.
        promise: what the threshold that applies promises, for people; empty where nobody knows.
        exposition: the metrics in Prometheus' text format; None without.
        bundle, digest: name of the bundle that inspects, and the SHA-256 of its manifest; empty where there is none.
        engine: that runs it.
    """

    tally: Callable[[], Tally]
    threshold: Callable[[], float]
    saved_threshold: Callable[[], float]
    set_threshold: Callable[[float], None]
    save_threshold: Callable[[], None] | None = None
    fire_trigger: Callable[[], None] | None = None
    state: Callable[[], Mapping[str, CameraState]] = _no_cameras
    promise: Callable[[], str] = lambda: ""
    exposition: Callable[[], bytes] | None = None
    bundle: str = ""
    digest: str = ""
    engine: str = ""

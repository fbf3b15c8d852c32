"""The network of `uflow-purify`, from a bundle."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.manifest import Precision
from uflow_edge.runtime.bundle.unet import UNetManifest
from uflow_edge.runtime.diffusion.sampling import NoisePredictor
from uflow_edge.runtime.diffusion.schedule import NoiseSchedule
from uflow_edge.runtime.engines.selection import Backend, open_engine


@dataclass(frozen=True, slots=True)
class OpenNetwork:
    """A network that is ready to run.

    Attributes:
        schedule: the noise schedule that it was trained with.
        noisiest_step: index of the noisiest step that it has learned.
        image_size: S, side of a patch in pixels.
        channels: C, channels of a patch: 3 (RGB) or 1 (grey).
        identity: SHA-256 of the checkpoint, the same for all precisions and engines.
    """

    predict: NoisePredictor
    close: Callable[[], None]
    schedule: NoiseSchedule
    noisiest_step: int
    image_size: int
    channels: int
    identity: str


def open_network(
    folder: Path,
    backend: Backend = "auto",
    precision: Precision | None = None,
    threads: int | None = None,
) -> OpenNetwork:
    """Verify a bundle and open its network. The caller closes it.

    Args:
        backend, precision, threads: see `open_engine`.

    Raises:
        BadInput: the bundle is damaged, or not one of a diffusion network.
        UsageError, MissingDependency, EngineFailed: see `open_engine`.
    """
    bundle = Bundle.load(folder, UNetManifest)
    manifest = bundle.manifest
    schedule = NoiseSchedule.make(manifest.schedule, manifest.steps)
    engine = open_engine(bundle, backend, precision, threads)
    last = len(schedule) - 1 if manifest.noisiest_step is None else manifest.noisiest_step
    return OpenNetwork(
        engine.run, engine.close, schedule, last, manifest.image_size, manifest.channels, manifest.source.sha256
    )

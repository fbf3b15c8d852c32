"""A calibration goes into its bundle all at once: at every moment it can be loaded, with the old one or the new.

The new null model lies beside the old one under a name of its own, then one rename of the manifest changes from one to
the other. The report follows, whose name never changes: while it is exchanged, the manifest does not list it.
"""

from dataclasses import replace
from pathlib import Path

from uflow_edge.calibration.calibrate import Calibration
from uflow_edge.runtime.bundle.calibration_record import REPORT
from uflow_edge.runtime.bundle.folder import Bundle, write_manifest
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.nfa.null_model import NullModel
from uflow_edge.runtime.storage.files import replacing, scratch_folder, sha256

_NULL_MODEL = "null_model"


def save_calibration(
    bundle: Bundle[UFlowManifest], calibration: Calibration, page: str | None
) -> Bundle[UFlowManifest]:
    """Write a calibration into a bundle, in place of an earlier one.

    Args:
        bundle: that was calibrated; what else has changed in its manifest meanwhile stays.
        calibration: what was found.
        page: the report, HTML; None: without one, and an older one goes.

    Raises:
        OSError: something cannot be written. The bundle can be loaded all the same, with the old calibration or the
            new one.
    """
    folder = bundle.folder
    # Before anything is written: the name of an image may hold what UTF-8 does not.
    content = None if page is None else page.encode("utf-8", "backslashreplace")
    name = None if calibration.null_model is None else _write_null_model(folder, calibration.null_model)
    manifest = Bundle.load(folder, UFlowManifest).manifest
    files = {file: digest for file, digest in manifest.files.items() if file not in (REPORT, manifest.null_model)}
    if name is not None:
        files[name] = sha256(folder / name)
    manifest = replace(
        manifest,
        files=files,
        null_model=name,
        operating_point=calibration.operating_point,
        calibration=calibration.record,
        drift=calibration.drift,
    )
    written = write_manifest(folder, manifest)
    for old in folder.glob(f"{_NULL_MODEL}-*.npz"):
        if old.name != name:
            old.unlink()
    if content is None:
        (folder / REPORT).unlink(missing_ok=True)
        return written
    with replacing(folder / REPORT) as temporary:
        temporary.write_bytes(content)
    return write_manifest(folder, replace(manifest, files={**files, REPORT: sha256(folder / REPORT)}))


def _write_null_model(folder: Path, model: NullModel) -> str:
    """Named after its content, so that two calibrations never share a name."""
    with scratch_folder(folder) as temporary:
        path = temporary / f"{_NULL_MODEL}.npz"
        model.save(path)
        name = f"{_NULL_MODEL}-{sha256(path)[:12]}.npz"
        path.replace(folder / name)
    return name

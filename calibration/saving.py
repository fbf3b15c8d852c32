"""Saves a calibration in its bundle, in place of an earlier one."""

from dataclasses import replace

from uflow_edge.calibration.calibrate import Calibration
from uflow_edge.runtime.bundle.calibration_record import REPORT
from uflow_edge.runtime.bundle.edit import BundleEdit, editing
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import NULL_MODEL_FILES, UFlowManifest
from uflow_edge.runtime.nfa.null_model import NullModel
from uflow_edge.runtime.storage.files import scratch_folder, sha256


def save_calibration(
    bundle: Bundle[UFlowManifest], calibration: Calibration, page: str | None
) -> Bundle[UFlowManifest]:
    """Write a calibration into a bundle, in place of an earlier one.

    Args:
        bundle: that was calibrated; whatever else has changed in it on disk is kept.
        page: the report, HTML; None: no report, and an older one is removed.

    Raises:
        BundleChanged: another checkpoint was exported into the bundle since it was loaded.
        OSError: something cannot be written. The bundle can still be loaded, with the old calibration or the new one.
    """
    with editing(bundle) as edit:
        edit.drop(REPORT, *(path.name for path in bundle.folder.glob(NULL_MODEL_FILES)))
        name = None if calibration.null_model is None else _add_null_model(edit, calibration.null_model)
        if page is not None:  # the name of an image may hold what UTF-8 does not
            edit.add(REPORT, page.encode("utf-8", "backslashreplace"))
        edit.manifest = replace(
            edit.manifest,
            bits=bundle.manifest.bits,
            null_model=name,
            operating_point=calibration.operating_point,
            calibration=calibration.record,
            drift=calibration.drift,
        )
    return edit.bundle


def _add_null_model(edit: BundleEdit[UFlowManifest], model: NullModel) -> str:
    """Named after its content, so that two calibrations never share a name."""
    with scratch_folder(edit.bundle.folder) as temporary:
        path = temporary / "null_model.npz"
        model.save(path)
        name = NULL_MODEL_FILES.replace("*", sha256(path)[:12])
        edit.add(name, path)
    return name

"""What becomes of the calibration of a bundle that is exported again."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path

from uflow_edge.runtime.bundle.calibration_record import REPORT
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.operating_point import LOG_NFA_0

logger = logging.getLogger(__name__)


def with_old_calibration(old: Bundle[UFlowManifest], folder: Path, manifest: UFlowManifest) -> UFlowManifest:
    """Keep a calibration where the new graphs give the energies that it was made with: those of one checkpoint do.

    Args:
        old: the bundle that will be replaced.
        folder: of the new bundle, to which files are copied.
        manifest: of the new bundle; a threshold of its own stays.
    """
    before = old.manifest
    calibration = f"threshold {before.operating_point.threshold:.2f}" + (" and null model" if before.null_model else "")
    calibrated = before.operating_point != LOG_NFA_0 or before.null_model is not None
    reason = _why_not(before, manifest)
    if calibrated and reason is None:
        logger.info(f"keeping the calibration of the bundle that is replaced: {calibration}")
        names = [name for name in before.files if name in (before.null_model, REPORT)]
        for name in names:
            shutil.copyfile(old.folder / name, folder / name)
        manifest = replace(
            manifest,
            files={**manifest.files, **{name: before.files[name] for name in names}},
            null_model=before.null_model,
            operating_point=before.operating_point,
            drift=before.drift,
            calibration=before.calibration,
        )
    elif calibrated:
        logger.warning(f"discarding the calibration of the bundle that is replaced, {calibration}: {reason}")
    if any(variant.precision == "int8" for variant in before.variants):
        logger.warning(
            "discarding the INT8 graph of the bundle that is replaced: uflow-calibrate --int8 makes it again"
        )
    return manifest


def _why_not(before: UFlowManifest, now: UFlowManifest) -> str | None:
    """Why a calibration does not hold for the new graphs; None where it does."""
    if now.operating_point != LOG_NFA_0:
        return "the threshold is taken anew"
    if before.source.sha256 != now.source.sha256:
        return "it was made with another checkpoint"
    if before.fit != now.fit:
        return f"frames were made square by {before.fit}, now by {now.fit}"
    precision = "fp32" if before.calibration is None else before.calibration.precision
    if precision not in {variant.precision for variant in now.variants}:
        return f"it was made in {precision}, which is not among the new graphs"
    return None

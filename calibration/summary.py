"""Summarises a calibration in words and numbers, for the terminal and for the report."""

from collections.abc import Mapping

import numpy as np

from uflow_edge.calibration.calibrate import Calibration
from uflow_edge.calibration.operating_point import clopper_pearson
from uflow_edge.runtime.numeric import Size
from uflow_edge.runtime.text import decimal, percent

_FEW_SIZES = 3


def notices(calibration: Calibration) -> list[str]:
    """What a user should know before trusting the calibration, one or two sentences each."""
    found = calibration.admission.left_out
    if calibration.unlike is not None:
        found.append(f"{calibration.unlike} Nothing is promised as long as they differ.")
    if calibration.admission.stopped_by:
        found.append(
            f"{calibration.admission.stopped_by} of the images decided when training stopped. To the flow they are "
            "nearly, but not exactly, like new images, so slightly more than promised may be flagged."
        )
    suspicious = len(calibration.suspicious_held_out)
    if suspicious:
        found.append(
            f"Held-out images that look anomalous: {suspicious}. They count, or the promise would not hold. If some "
            "are defective, leave them out with --exclude and calibrate again."
            + (" The threshold is one of their scores." if calibration.operating_point.suspicious else "")
        )
    if calibration.suspicious_fitted:
        left_out = len(calibration.suspicious_fitted)
        found.append(f"Images that look anomalous and were left out of the null model: {left_out}.")
    if calibration.correlation is not None:
        found.append(
            f"Scores of successive images are correlated (rank correlation {calibration.correlation:.2f}). If several "
            "images show the same part, the promise rests on fewer parts than it counts."
        )
    if len(calibration.sizes) > 1:
        found.append(
            f"Images differ in size: {_sizes(calibration.sizes)} pixels. All were resized; frames of the line should "
            "show the same view."
        )
    if calibration.drift is None:
        found.append("There are too few good held-out images to define drift, so it will not be monitored.")
    return found


def _sizes(counts: Mapping[Size, int]) -> str:
    """All sizes if they are few, the most frequent first; otherwise the smallest and the largest."""
    if len(counts) <= _FEW_SIZES:
        return ", ".join(f"{count} of {width} x {height}" for (height, width), count in counts.items())
    smallest, largest = (
        "{1} x {0}".format(*choose(counts, key=lambda size: size[0] * size[1])) for choose in (min, max)
    )
    return f"{len(counts)} sizes from {smallest} to {largest}"


def alarm_rows(calibration: Calibration) -> list[list[str]]:
    """Cells of a table: the threshold and the images, how many were flagged, their share, and its 95 % interval."""
    held_out, point = calibration.scores, calibration.operating_point
    judged = [("held-out images", np.asarray(held_out))]
    if calibration.null_fit is not None:
        judged.append(("images of the null model", calibration.null_fit.goodness.image_scores))
    rows = []
    for images, scores in judged:
        for label, threshold in ((f"threshold {decimal(point.threshold)}", point.threshold), ("log-NFA 0", 0.0)):
            count, total = int((scores > threshold).sum()), len(scores)
            low, high = clopper_pearson(count, total)
            share, interval = percent(count / total), f"{percent(low)} to {percent(high)}"
            rows.append([f"{label}, {images}", f"{count} of {total}", share, interval])
    return rows

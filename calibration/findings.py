"""What a person is told of a calibration, at the terminal and in the report."""

from collections.abc import Mapping

import numpy as np

from uflow_edge.calibration.calibrate import Calibration
from uflow_edge.calibration.operating_point import clopper_pearson
from uflow_edge.runtime.numeric import Size
from uflow_edge.runtime.text import decimal, percent

_FEW_SIZES = 3


def notices(calibration: Calibration) -> list[str]:
    """What a person should know before trusting the calibration, a sentence each."""
    found = calibration.admission.left_out
    if calibration.unlike is not None:
        found.append(f"{calibration.unlike} Nothing is promised until they are alike.")
    if calibration.admission.stopped_by:
        found.append(
            f"The training was stopped by {calibration.admission.stopped_by} of the images: to the flow they are "
            "nearly, not exactly, like new ones, so a little more than promised may be flagged."
        )
    suspicious = len(calibration.suspicious_held_out)
    if suspicious:
        found.append(
            f"Held-out images that look anomalous: {suspicious}. They count, or the promise would not hold; if some "
            "are defective, leave them out with --exclude and calibrate again."
            + (" The threshold is one of their scores." if calibration.operating_point.suspicious else "")
        )
    if calibration.suspicious_fitted:
        left_out = len(calibration.suspicious_fitted)
        found.append(f"Images that look anomalous and were left out of the null model: {left_out}.")
    if calibration.correlation is not None:
        found.append(
            f"Scores of successive images are alike (rank correlation {calibration.correlation:.2f}). If images show "
            "the same part more than once, the promise rests on fewer than it counts."
        )
    if len(calibration.sizes) > 1:
        found.append(
            f"Images differ in size: {_sizes(calibration.sizes)} pixels. All were resized; the line should see what "
            "these show."
        )
    if calibration.drift is None:
        found.append("Too few good held-out images to say what drift is: nobody will watch for it.")
    return found


def _sizes(counts: Mapping[Size, int]) -> str:
    """A few sizes by themselves, the most frequent first; of many, the smallest and the largest."""
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

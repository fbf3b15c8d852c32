"""What a person is told of a calibration, at the terminal and in the report."""

from uflow_edge.calibration.calibrate import Calibration


def notices(calibration: Calibration) -> list[str]:
    """What a person should know before trusting the calibration, a sentence each."""
    found = []
    if calibration.suspicious_held_out:
        found.append(
            f"Held-out images that look anomalous: {len(calibration.suspicious_held_out)}. They count, or the promise "
            "would not hold; if some are defective, leave them out with --exclude and calibrate again."
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
        sizes = ", ".join(f"{count} of {width} x {height}" for (height, width), count in calibration.sizes.items())
        found.append(f"Images differ in size: {sizes} pixels. All were resized; the line should see what these show.")
    if calibration.unreadable:
        found.append(f"Images that could not be read and were left out: {len(calibration.unreadable)}.")
    if calibration.drift is None:
        found.append("Too few good held-out images to say what drift is: nobody will watch for it.")
    return found


def alarm_rows(calibration: Calibration) -> list[tuple[str, int, int]]:
    """What was judged at which threshold, how many good images were flagged, and of how many."""
    point, images = calibration.operating_point, len(calibration.held_out)
    rows = [
        (f"threshold {point.threshold:.2f}, held-out images", calibration.above(point.threshold), images),
        ("log-NFA 0, held-out images", calibration.above(0.0), images),
    ]
    if calibration.null_fit is not None:
        fitted = calibration.null_fit.goodness.image_scores
        for label, threshold in ((f"threshold {point.threshold:.2f}", point.threshold), ("log-NFA 0", 0.0)):
            rows.append((f"{label}, images of the null model", int((fitted > threshold).sum()), len(fitted)))
    return rows

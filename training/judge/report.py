"""The HTML report of what was tried: tables, the epochs, and pictures of the pseudo-defects."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np

from uflow_edge.runtime.report.page import render
from uflow_edge.runtime.report.pictures import jpeg_uri
from uflow_edge.training.judge.choice import HEAD, Exam, best_of, trial_rows
from uflow_edge.training.judge.judge import Drawn
from uflow_edge.training.judge.trials import Trial
from uflow_edge.training.progress import Epoch

_TRUTH = (255, 220, 60)  # BGR
_PICTURES = 4


def report_page(trials: Sequence[Trial], exam: Exam, epochs: Sequence[Epoch]) -> str:
    """The page as HTML.

    Args:
        epochs: judged by the defects that are not found.
    """
    best = best_of(trials)
    head = ("epoch", "found", "held-out loss", "kept")
    rows = [
        [str(one.epoch), f"{1 - one.judged:.4f}", f"{one.held_out:.4f}", "kept" if one.epoch == epochs[-1].best else ""]
        for one in epochs
    ]
    return render(
        Path(__file__).with_suffix(".html"),
        title="What the training chose, and why",
        made=datetime.now().astimezone(),
        images=len(exam.good),
        tables=[("Tried before the first step", HEAD, trial_rows(trials), [0])] * (len(trials) > 1)
        + [("Epochs", head, rows, [epochs[-1].best])],
        kinds={
            kind: (best.aurocs[kind], [_figure(one) for one in some[:_PICTURES]]) for kind, some in exam.drawn.items()
        },
    )


def _figure(drawn: Drawn) -> str:
    """The picture with the pseudo-defect outlined, as a data URI."""
    picture = np.ascontiguousarray(drawn.image[:, :, ::-1])
    outlines, _ = cv2.findContours(drawn.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outlines, -1, _TRUTH, 1, cv2.LINE_AA)
    return jpeg_uri(picture)

"""The demo's report."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup

from uflow_edge.benchmarks.evaluation import Detector, Labelled
from uflow_edge.runtime.images.files import read_image
from uflow_edge.runtime.overlay import HEADER
from uflow_edge.runtime.report.page import render, write_page
from uflow_edge.runtime.report.pictures import Figure, jpeg_uri

_SHOWN = 6
"""Pictures in each gallery."""
_THUMBNAIL = 260


@dataclass(frozen=True, slots=True)
class DemoStep:
    """One step of the demo."""

    command: str
    seconds: float


def write_report(
    path: Path,
    test: Labelled,
    detectors: list[Detector],
    verdicts: list[dict[str, Any]],
    overlays: list[Path],
    stages: list[DemoStep],
) -> None:
    """Write the page in one rename.

    Args:
        verdicts: what ``uflow-infer --jsonl`` wrote, in the order of the test images.
    """
    good = int((~test.defective).sum())
    point = verdicts[0]["operating_point"]

    def gallery(*, defective: bool, highest: bool) -> list[Figure]:
        chosen = np.flatnonzero(test.defective == defective)
        order = sorted(chosen, key=lambda i: verdicts[i]["score"], reverse=highest)[:_SHOWN]
        return [_figure(test.paths[i], verdicts[i], overlays[i]) for i in order]

    page = render(
        Path(__file__).with_suffix(".html"),
        title="Solar cells, from images to verdicts",
        good=good,
        defective=int(test.defective.sum()),
        ranking=[_ranking(detector, test) for detector in detectors],
        ours=[i for i, detector in enumerate(detectors) if "calibrated" in detector.name],
        decisions=_decisions(test, detectors, verdicts),
        promise=_promise(good, point),
        times=_times(verdicts),
        stages=[(Markup("<code>{}</code>").format(stage.command), f"{stage.seconds:.0f}") for stage in stages],
        threshold=point["threshold"],
        found=gallery(defective=True, highest=True),
        missed=gallery(defective=True, highest=False),
        false_alarms=gallery(defective=False, highest=True),
    )
    write_page(path, page)


def _ranking(detector: Detector, test: Labelled) -> list[str]:
    low, high = detector.auroc_interval(test)
    found = f"{detector.found_at(test, 0.05):.1%}"
    return [detector.name, f"{detector.auroc(test):.4f}", f"{low:.3f} to {high:.3f}", found]


def _promise(good: int, point: dict[str, Any]) -> dict[str, str] | None:
    """The share of good cells that may be flagged, and what chance makes of it; None where it is not an average."""
    rate = point["false_alarm_rate"]
    if rate is None or point["confidence"] is not None:
        return None
    # Of n test cells at a threshold from m held-out ones: a beta-binomial count (Vovk, 2012).
    spread = (rate * (1 - rate) * (1 / good + 1 / (point["good_images"] + 2))) ** 0.5
    low, high = max(rate - 2 * spread, 0), rate + 2 * spread
    return {"rate": f"{rate:.0%}", "held_out": point["good_images"], "low": f"{low:.1%}", "high": f"{high:.1%}"}


def _decisions(test: Labelled, detectors: Sequence[Detector], verdicts: list[dict[str, Any]]) -> list[list[str]]:
    anomalous = np.array([verdict["anomalous"] for verdict in verdicts])
    label = f"operating point of the bundle, score > {verdicts[0]['operating_point']['threshold']:.1f}"
    shares = {label: (anomalous[test.defective].mean(), anomalous[~test.defective].mean())}
    for detector in detectors:
        if detector.natural_threshold is not None:
            shares[f"log-NFA 0: {detector.name}"] = detector.at_threshold(test, detector.natural_threshold)
    return [[label, f"{found:.1%}", f"{alarms:.1%}"] for label, (found, alarms) in shares.items()]


def _times(verdicts: list[dict[str, Any]]) -> list[list[str]]:
    rows = []
    for stage in ("preprocess", "engine", "nfa", "work"):
        times = [verdict["milliseconds"][stage] for verdict in verdicts]
        ninety = statistics.quantiles(times, n=10)[-1]
        rows.append([stage, f"{statistics.median(times):.2f}", f"{ninety:.2f}"])
    return rows


def _figure(image: Path, verdict: dict[str, Any], overlay: Path) -> Figure:
    picture = read_image(overlay)[HEADER:]  # its writing is too small to be read here
    height = round(picture.shape[0] * _THUMBNAIL / picture.shape[1])
    small = np.asarray(cv2.resize(picture, (_THUMBNAIL, height), interpolation=cv2.INTER_AREA), np.uint8)
    word, kind = ("anomaly", "bad") if verdict["anomalous"] else ("good", "good")
    return Figure(jpeg_uri(small), image.name, verdict["score"], word, kind)

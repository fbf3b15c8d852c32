"""The demo's page: one file, no script, no network."""

import base64
import statistics
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from uflow_edge.benchmarks.evaluation import Detector, Labelled
from uflow_edge.runtime.heat import legend_html
from uflow_edge.runtime.images.files import read_image
from uflow_edge.runtime.overlay import HEADER
from uflow_edge.runtime.report_style import STYLE
from uflow_edge.runtime.storage.files import replacing

_SHOWN = 6
"""Pictures a row of the gallery."""
_THUMBNAIL = 260


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the demo and what it took.

    Attributes:
        command: as typed.
        seconds: wall-clock.
    """

    command: str
    seconds: float


def write_report(
    path: Path,
    test: Labelled,
    detectors: list[Detector],
    verdicts: list[dict[str, Any]],
    overlays: list[Path],
    stages: list[Stage],
) -> None:
    """Write the page in one rename.

    Args:
        path: of the page.
        test: the test images.
        detectors: every method compared.
        verdicts: what ``uflow-infer --jsonl`` wrote, in the order of the test images.
        overlays: the pictures it drew, in the same order.
        stages: of the demo.
    """
    good, defective = int((~test.defective).sum()), int(test.defective.sum())
    body = [
        f"<header><h1>Solar cells, from images to verdicts</h1><p>{good} good and {defective} defective cells that the "
        "training has not seen, inspected with the exported model in onnxruntime.</p></header>",
        _section("How well it tells them apart", _ranking(test, detectors), _RANKING),
        _section("Decisions", _decisions(test, detectors, verdicts), _promise(good, verdicts)),
        _section("Time of one image", _stage_times(verdicts)),
        _section("What was run", _stages(stages)),
        _section(
            "Defective cells, the highest scores", _gallery(test, verdicts, overlays, defective=True, highest=True)
        ),
        _section(
            "Defective cells, the lowest scores: what is missed",
            _gallery(test, verdicts, overlays, defective=True, highest=False),
        ),
        _section(
            "Good cells, the highest scores: false alarms first, then what is nearest to one",
            _gallery(test, verdicts, overlays, defective=False, highest=True),
            legend_html(verdicts[0]["operating_point"]["threshold"]) + _SOURCES,
        ),
    ]
    page = (
        "<!doctype html>\n<html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        "<meta name=color-scheme content='light dark'>"
        f"<title>Solar cells</title><style>{STYLE}{_OURS}</style><body><main>{''.join(body)}</main></body></html>\n"
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


_OURS = ".ours td { font-weight: 650; } .command td { white-space: normal; }"
_RANKING = (
    "AUROC with a 95 % bootstrap interval. Found: share of defective cells at a threshold that 5 % of the good test "
    "cells exceed. Both baselines use the features that the flow is given, and all good cells of the training folder, "
    "of which the flow holds out a tenth. Bold: the score that the bundle decides with."
)
_SOURCES = (
    "Images: ELPV data set, Deitsch et al. and Buerhop-Lutz et al., CC BY-NC-SA 4.0. White: outline of what is "
    "detected at the operating point."
)


def _section(title: str, content: str, note: str = "") -> str:
    below = f"<div class=note-text>{note}</div>" if note else ""
    return f"<section><h2>{title}</h2>{content}{below}</section>"


def _table(head: list[str], rows: list[list[str]], ours: int | None = None, kind: str = "plain") -> str:
    """Rows under a head; ``ours`` is the number of the row to stress."""
    heading = "".join(f"<th>{cell}</th>" for cell in head)
    lines = [
        f"<tr{' class=ours' if i == ours else ''}>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>"
        for i, row in enumerate(rows)
    ]
    return f"<div class=wide><table class={kind}><tr>{heading}</tr>{''.join(lines)}</table></div>"


def _stages(stages: list[Stage]) -> str:
    rows = [[f"<code>{escape(stage.command)}</code>", f"{stage.seconds:.0f}"] for stage in stages]
    return _table(["step", "seconds"], rows, kind="command")


def _promise(good: int, verdicts: list[dict[str, Any]]) -> str:
    """What the share of good cells flagged has to do with the share that was promised."""
    point = verdicts[0]["operating_point"]
    rate = point["false_alarm_rate"]
    if rate is None or point["confidence"] is not None:
        return ""
    # Of n test cells at a threshold from m held-out ones: a beta-binomial count (Vovk, 2012).
    spread = (rate * (1 - rate) * (1 / good + 1 / (point["good_images"] + 2))) ** 0.5
    low, high = max(rate - 2 * spread, 0), rate + 2 * spread
    return (
        f"Promised: at most {rate:.0%} of good cells flagged, on average over draws of the {point['good_images']} good "
        f"cells that the threshold was taken from. With those and the {good} good cells here, shares from {low:.1%} to "
        f"{high:.1%} are what chance alone makes of it (two standard deviations)."
    )


def _ranking(test: Labelled, detectors: list[Detector]) -> str:
    rows = []
    for detector in detectors:
        low, high = detector.auroc_interval(test)
        auroc = f"{detector.auroc(test):.4f}"
        rows.append([escape(detector.name), auroc, f"{low:.3f} to {high:.3f}", f"{detector.found_at(test, 0.05):.1%}"])
    ours = next((i for i, one in enumerate(detectors) if "calibrated" in one.name), None)
    return _table(["method", "image AUROC", "95 % interval", "found at 5 % false alarms"], rows, ours)


def _decisions(test: Labelled, detectors: list[Detector], verdicts: list[dict[str, Any]]) -> str:
    anomalous = np.array([verdict["anomalous"] for verdict in verdicts])
    point = verdicts[0]["operating_point"]
    found, alarms = anomalous[test.defective].mean(), anomalous[~test.defective].mean()
    label = f"operating point of the bundle, score &gt; {point['threshold']:.1f}"
    rows = [[label, f"{found:.1%}", f"{alarms:.1%}"]]
    for detector in detectors:
        if detector.natural_threshold is not None:
            found, alarms = detector.at_threshold(test, detector.natural_threshold)
            rows.append([f"log-NFA 0: {escape(detector.name)}", f"{found:.1%}", f"{alarms:.1%}"])
    return _table(["threshold", "defective cells found", "good cells flagged"], rows, ours=0)


def _stage_times(verdicts: list[dict[str, Any]]) -> str:
    rows = []
    for stage in ("preprocess", "engine", "nfa", "work"):
        times = [verdict["milliseconds"][stage] for verdict in verdicts]
        ninety = statistics.quantiles(times, n=10)[-1]
        rows.append([stage, f"{statistics.median(times):.2f}", f"{ninety:.2f}"])
    return _table(["stage", "median, ms", "90 % within, ms"], rows)


def _gallery(
    test: Labelled, verdicts: list[dict[str, Any]], overlays: list[Path], *, defective: bool, highest: bool
) -> str:
    order = sorted(np.flatnonzero(test.defective == defective), key=lambda i: verdicts[i]["score"], reverse=highest)
    figures = []
    for i in order[:_SHOWN]:
        source = _thumbnail(overlays[i])
        figures.append(
            f"<figure><img alt='' src='{source}'><figcaption>{_caption(verdicts[i])}<br>{escape(test.paths[i].name)}"
            "</figcaption></figure>"
        )
    return f"<div class=gallery>{''.join(figures)}</div>"


def _caption(verdict: dict[str, Any]) -> str:
    word = "<b class=bad>anomaly</b>" if verdict["anomalous"] else "<b class=good>good</b>"
    return f"{word} {verdict['score']:.2f}".replace("-", "−")


def _thumbnail(path: Path) -> str:
    picture = read_image(path)[HEADER:]  # its writing is too small to be read here
    height = round(picture.shape[0] * _THUMBNAIL / picture.shape[1])
    small = cv2.resize(picture, (_THUMBNAIL, height), interpolation=cv2.INTER_AREA)
    ok, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert ok, "OpenCV always encodes 8-bit JPEG"
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()

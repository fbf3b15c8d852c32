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
from uflow_edge.runtime.files import replacing
from uflow_edge.runtime.images import read_image

_SHOWN = 6
"""Pictures a row of the gallery."""
_THUMBNAIL = 260

_STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 20%, transparent); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
tr.ours td { font-weight: 600; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: .6rem; }
.gallery img { width: 100%; display: block; } figure { margin: 0; } figcaption { font-size: .8rem; opacity: .75; }
p.note { opacity: .75; font-size: .9rem; }
"""


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
        verdicts: what ``uflow-infer --json`` wrote, in the order of the test images.
        overlays: the pictures it drew, in the same order.
        stages: of the demo.
    """
    body = [
        "<h1>Solar cells, from images to verdicts</h1>",
        f"<p>{int((~test.defective).sum())} good and {int(test.defective.sum())} defective cells that the training "
        "has not seen, inspected with the exported model in onnxruntime.</p>",
        "<h2>How well it tells them apart</h2>",
        _ranking(test, detectors),
        "<p class=note>AUROC with a 95 % bootstrap interval. Found: share of defective cells at a threshold that 5 % "
        "of the good test cells exceed. Both baselines use the features that the flow is given, and all good cells of "
        "the training folder, of which the flow holds out a tenth.</p>",
        "<h2>Decisions</h2>",
        _decisions(test, detectors, verdicts),
        "<h2>Time of one image</h2>",
        _stage_times(verdicts),
        "<h2>What was run</h2>",
        _table(["step", "seconds"], [[f"<code>{escape(s.command)}</code>", f"{s.seconds:.0f}"] for s in stages]),
        "<h2>Defective cells, the highest scores</h2>",
        _gallery(test, verdicts, overlays, defective=True, highest=True),
        "<h2>Defective cells, the lowest scores: what is missed</h2>",
        _gallery(test, verdicts, overlays, defective=True, highest=False),
        "<h2>Good cells, the highest scores: what is nearest to a false alarm</h2>",
        _gallery(test, verdicts, overlays, defective=False, highest=True),
        "<p class=note>Images: ELPV data set, Deitsch et al. and Buerhop-Lutz et al., CC BY-NC-SA 4.0. White: outline "
        "of what is detected at the operating point. Colour: how unlikely the latents are.</p>",
    ]
    page = f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
<title>Solar cells</title><style>{_STYLE}</style><body>{''.join(body)}</body></html>"
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _table(head: list[str], rows: list[list[str]], ours: int = 0) -> str:
    heading = "".join(f"<th>{cell}</th>" for cell in head)
    lines = [
        f"<tr{' class=ours' if i < ours else ''}>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>"
        for i, row in enumerate(rows)
    ]
    return f"<table><tr>{heading}</tr>{''.join(lines)}</table>"


def _ranking(test: Labelled, detectors: list[Detector]) -> str:
    rows = []
    for detector in detectors:
        low, high = detector.auroc_interval(test)
        auroc = f"{detector.auroc(test):.4f}"
        rows.append([escape(detector.name), auroc, f"{low:.3f} to {high:.3f}", f"{detector.found_at(test, 0.05):.1%}"])
    ours = sum(detector.name.startswith("U-Flow") for detector in detectors)
    return _table(["method", "image AUROC", "95 % interval", "found at 5 % false alarms"], rows, ours)


def _decisions(test: Labelled, detectors: list[Detector], verdicts: list[dict[str, Any]]) -> str:
    anomalous = np.array([verdict["anomalous"] for verdict in verdicts])
    point = verdicts[0]["operating_point"]
    promise = f"promised: at most {point['false_alarm_rate']:.0%} false alarms, from {point['good_images']} good cells"
    found, alarms = anomalous[test.defective].mean(), anomalous[~test.defective].mean()
    label = f"operating point of the bundle, score &gt; {point['threshold']:.1f} ({promise})"
    rows = [[label, f"{found:.1%}", f"{alarms:.1%}"]]
    for detector in detectors:
        if detector.natural_threshold is not None:
            found, alarms = detector.at_threshold(test, detector.natural_threshold)
            rows.append([f"log-NFA 0: {escape(detector.name)}", f"{found:.1%}", f"{alarms:.1%}"])
    return _table(["threshold", "defective cells found", "good cells flagged"], rows, ours=1)


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
            f"<figure><img alt='' src='{source}'><figcaption>{escape(test.paths[i].name)}</figcaption></figure>"
        )
    return f"<div class=gallery>{''.join(figures)}</div>"


def _thumbnail(path: Path) -> str:
    picture = read_image(path)
    height = round(picture.shape[0] * _THUMBNAIL / picture.shape[1])
    small = cv2.resize(picture, (_THUMBNAIL, height), interpolation=cv2.INTER_AREA)
    ok, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert ok, "OpenCV always encodes 8-bit JPEG"
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()

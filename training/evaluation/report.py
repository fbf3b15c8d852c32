"""The page of an evaluation: tables, curves and worst cases. One file, no script, nothing from elsewhere."""

from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime
from html import escape
from urllib.parse import quote

import cv2
import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.heat import legend_html
from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.overlay import draw_maps
from uflow_edge.training.evaluation.charts import Curve, rate_curves
from uflow_edge.training.evaluation.evaluate import Evaluation, examine_case
from uflow_edge.training.evaluation.measured import Case
from uflow_edge.training.evaluation.pixels import PixelMetrics
from uflow_edge.training.evaluation.ranking import PRO_LIMIT
from uflow_edge.training.evaluation.style import STYLE
from uflow_edge.training.evaluation.tables import DECISION_HEAD, MEAN, RANKING_HEAD, decision_rows, ranking_rows

_LONGER_SIDE = 320
_QUALITY = 82
_TRUTH = (255, 220, 60)  # BGR; what is detected is outlined in white


def category_section(evaluation: Evaluation, inspector: Inspector) -> str:
    """Curves and worst cases of one category.

    Args:
        evaluation: what was measured.
        inspector: that measured it; inspects the worst cases again to draw them.
    """
    of_images: dict[str, Curve] = {name: one.image_roc for name, one in evaluation.maps.items()}
    curves = {"ROC of images": rate_curves(of_images, "good images flagged", "defective images found")}
    if pixels := _pixels(evaluation):
        roc, pro = ({name: getattr(one, curve) for name, one in pixels.items()} for curve in ("roc", "pro"))
        curves["ROC of pixels"] = rate_curves(roc, "good pixels flagged", "defective pixels found")
        curves["Per-region overlap"] = rate_curves(pro, "good pixels flagged", "overlap of regions", PRO_LIMIT)
    figures = [f"<figure>{svg}<figcaption>{name}</figcaption></figure>" for name, svg in curves.items()]
    unreadable = "".join(f"<li>{escape(line)}</li>" for line in evaluation.unreadable)
    return (
        f"<section id='{_anchor(evaluation.category)}'><h2>{escape(evaluation.category)}</h2>"
        f"<p class=quiet>{escape(_made_of(evaluation))}</p>"
        + (f"<ul class=notice>{unreadable}</ul>" if unreadable else "")
        + f"{_KEYS}<div class=plots>{''.join(figures)}</div>"
        + f"<p class=quiet>{_pixel_note(evaluation)}{_OUTLINES}</p>"
        + legend_html(inspector.operating_point.threshold)
        + "<h3>Defective images, the lowest scores: what is missed, or nearly</h3>"
        + _gallery(evaluation.missed, inspector)
        + "<h3>Good images, the highest scores: what is nearest to a false alarm</h3>"
        + _gallery(evaluation.false_alarms, inspector)
        + "</section>"
    )


def report_page(evaluations: Sequence[Evaluation], sections: Sequence[str]) -> str:
    """The page.

    Args:
        evaluations: of every category.
        sections: see `category_section`, in the same order.
    """
    names = ", ".join(evaluation.category for evaluation in evaluations)
    title = escape(f"Evaluation of {names if len(evaluations) <= 3 else f'{len(evaluations)} categories'}")
    made = datetime.now().astimezone()
    return (
        "<!doctype html>\n<html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<meta name=color-scheme content='light dark'><title>{title}</title><style>{STYLE}</style><body><main>"
        f"<header><h1>{title}</h1><p class=quiet>{made:%Y-%m-%d %H:%M %Z}</p></header>"
        f"<section><h2>Ranking</h2>{_table(RANKING_HEAD, ranking_rows(evaluations))}<p class=quiet>{_RANKING}</p>"
        f"</section><section><h2>Decisions</h2>{_table(DECISION_HEAD, decision_rows(evaluations))}"
        f"<p class=quiet>{_DECISIONS}</p></section>{''.join(sections)}</main></body></html>\n"
    )


def _made_of(evaluation: Evaluation) -> str:
    scoring = "calibrated" if evaluation.scoring == "calibrated" else f"not calibrated, rule {evaluation.scoring}"
    return (
        f"{evaluation.good} good and {evaluation.defective} defective images in {evaluation.seconds:.1f} s · "
        f"{evaluation.checkpoint.name}, {scoring} · {evaluation.engine}"
    )


def _number(value: float, form: str = ".2f") -> str:
    return format(value, form).replace("-", "−")


def _anchor(category: str) -> str:
    return quote(category, safe="")


_KEYS = "<p class=keys><span class='key nfa'><i></i>nfa</span><span class='key likelihood'><i></i>likelihood</span></p>"
_OUTLINES = "Pictures: blue outlines what is defective, white what is detected at the operating point."
_RANKING = (
    "nfa: −log10 NFA, what decisions are made with; likelihood: the anomaly map without a threshold of its own. "
    "AUPRO: overlap of each connected defect, averaged, integrated to 30 % false positives and normalised. "
    "Oracle mIoU: mean intersection over union of all images at the one threshold that is best for them."
)
_DECISIONS = (
    "mIoU: intersection over union of each image, then the mean; a good image counts 1 if nothing is found on it and 0 "
    "if anything is. False alarms are connected regions."
)


def _pixels(evaluation: Evaluation) -> dict[str, PixelMetrics]:
    """By score map; empty where there were no masks."""
    return {name: one.pixels for name, one in evaluation.maps.items() if one.pixels is not None}


def _pixel_note(evaluation: Evaluation) -> str:
    pixels = _pixels(evaluation)
    if not pixels:
        return "No masks were given: images alone were compared. "
    thresholds = ", ".join(f"{name} {_number(one.oracle_threshold, '.4g')}" for name, one in pixels.items())
    bounds = ", ".join(f"{name} ± {one.auroc_uncertainty:.1g}" for name, one in pixels.items())
    return f"Oracle thresholds: {thresholds}. What pairs of pixels in one bin can move the AUROC at most: {bounds}. "


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Categories lead to their sections; below each mean a new block begins."""
    heading = "".join(f"<th>{cell}</th>" for cell in head)
    lines = "".join(_row(*row) for row in rows)
    return f"<div class=wide><table><tr>{heading}</tr>{lines}</table></div>"


def _row(category: str, *cells: str) -> str:
    is_mean = category == MEAN
    first = category if is_mean else f"<a href='#{_anchor(category)}'>{escape(category)}</a>"
    others = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f"<tr{' class=mean' if is_mean else ''}><td>{first}</td>{others}</tr>"


def _gallery(cases: Sequence[Case], inspector: Inspector) -> str:
    return f"<div class=gallery>{''.join(_figure(case, inspector) for case in cases)}</div>"


def _figure(case: Case, inspector: Inspector) -> str:
    jpeg = _drawn(*examine_case(case, inspector), inspector.manifest.channels)
    name = escape(f"{case.image.kind}/{case.image.path.name}")
    verdict = "found" if case.score > inspector.operating_point.threshold else "passed"
    return (
        f"<figure><img alt='{name}' src='data:image/jpeg;base64,{jpeg}'>"
        f"<figcaption><b>{_number(case.score)}</b> {verdict}<br>{name}</figcaption></figure>"
    )


def _drawn(frame: Image, truth: NDArray[np.bool_], inspection: Inspection, channels: tuple[int, ...]) -> str:
    """JPEG in base64: heat map, what is detected outlined in white, and the true defect in blue."""
    longer = max(frame.shape[:2])
    height, width = (max(round(side * _LONGER_SIDE / longer), 1) for side in frame.shape[:2])
    picture = draw_maps(frame, inspection, channels, (height, width))
    small = cv2.resize(truth.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    outlines, _ = cv2.findContours(small, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outlines, -1, _TRUTH, 2, cv2.LINE_AA)
    encoded, data = cv2.imencode(".jpg", np.asarray(picture), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert encoded, "OpenCV always encodes 8-bit JPEG"
    return b64encode(data.tobytes()).decode()

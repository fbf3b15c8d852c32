"""The HTML report of an evaluation: tables, curves and worst cases."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np
from markupsafe import Markup

from uflow_edge.runtime.heat import HeatMap
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.report.charts import Curve, rate_curves
from uflow_edge.runtime.report.page import render
from uflow_edge.runtime.report.pictures import Figure, jpeg_uri, small_overlay
from uflow_edge.training.evaluation.accumulators import Case
from uflow_edge.training.evaluation.evaluate import Evaluation, examine_case
from uflow_edge.training.evaluation.ranking import PRO_LIMIT
from uflow_edge.training.evaluation.score_maps import MapName
from uflow_edge.training.evaluation.tables import DECISION_HEAD, MEAN, RANKING_HEAD, decision_rows, ranking_rows

_TRUTH = (255, 220, 60)  # BGR; detected regions are outlined in white
_COLOURS: dict[MapName, str] = {"nfa": "nfa", "evidence": "evidence", "likelihood": "other"}


@dataclass(frozen=True, slots=True)
class Section:
    """The section of the report on one category.

    Attributes:
        missed, false_alarms: pictures of the worst cases, in the order of the evaluation.
    """

    evaluation: Evaluation
    threshold: float
    heat_map: HeatMap
    missed: Sequence[Figure]
    false_alarms: Sequence[Figure]

    @property
    def anchor(self) -> str:
        return _anchor(self.evaluation.category)

    @property
    def plots(self) -> dict[str, Markup]:
        """Charts by title; charts of pixels need masks."""
        maps = self.evaluation.maps
        of_images: dict[str, Curve] = {_COLOURS[name]: one.image_roc for name, one in maps.items()}
        plots = {"ROC of images": rate_curves(of_images, "good images flagged", "defective images found")}
        pixels = {_COLOURS[name]: one.pixels for name, one in maps.items() if one.pixels is not None}
        if pixels:
            roc: dict[str, Curve] = {name: one.roc for name, one in pixels.items()}
            pro: dict[str, Curve] = {name: one.pro for name, one in pixels.items()}
            flagged = "good pixels flagged"
            plots["ROC of pixels"] = rate_curves(roc, flagged, "defective pixels found")
            plots["Per-region overlap"] = rate_curves(pro, flagged, "overlap of regions", PRO_LIMIT)
        return plots


def category_section(evaluation: Evaluation, inspector: Inspector, heat_map: HeatMap = "nfa") -> Section:
    """Inspect the worst cases of one category again, and draw them."""

    def draw(cases: Sequence[Case]) -> list[Figure]:
        return [_figure(case, inspector, heat_map) for case in cases]

    threshold = inspector.operating_point.threshold
    return Section(evaluation, threshold, heat_map, draw(evaluation.missed), draw(evaluation.false_alarms))


def report_page(sections: Sequence[Section]) -> str:
    """The report on all categories as HTML."""
    evaluations = [section.evaluation for section in sections]
    names = ", ".join(evaluation.category for evaluation in evaluations)
    ranking, decisions = ranking_rows(evaluations), decision_rows(evaluations)
    return render(
        Path(__file__).with_suffix(".html"),
        title=f"Evaluation of {names if len(evaluations) <= 3 else f'{len(evaluations)} categories'}",
        made=datetime.now().astimezone(),
        tables=[
            ("Ranking", RANKING_HEAD, _linked(ranking), _means(ranking)),
            ("Decisions", DECISION_HEAD, _linked(decisions), _means(decisions)),
        ],
        sections=sections,
    )


def _anchor(category: str) -> str:
    return quote(category, safe="", errors="backslashreplace")  # the name of a folder may not be UTF-8


def _linked(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Rows whose categories link to their sections."""
    link = Markup('<a href="#{}">{}</a>')
    return [[MEAN if name == MEAN else link.format(_anchor(name), name), *cells] for name, *cells in rows]


def _means(rows: Sequence[Sequence[str]]) -> list[int]:
    return [i for i, row in enumerate(rows) if row[0] == MEAN]


def _figure(case: Case, inspector: Inspector, heat_map: HeatMap) -> Figure:
    """Draw the heat map, with detected regions outlined in white and the true defect in blue."""
    frame, truth, inspection = examine_case(case, inspector)
    picture = small_overlay(frame, inspection, inspector.manifest.channels, heat_map)
    small = cv2.resize(truth.astype(np.uint8), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    outlines, _ = cv2.findContours(small, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outlines, -1, _TRUTH, 2, cv2.LINE_AA)
    verdict = "found" if case.score > inspector.operating_point.threshold else "passed"
    return Figure(jpeg_uri(picture), f"{case.image.kind}/{case.image.path.name}", case.score, verdict)

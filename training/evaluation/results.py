"""The results of an evaluation of one or more categories: tables in the terminal, a JSON document, a report."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uflow_edge.runtime.cli.command_line import table
from uflow_edge.runtime.storage.files import replacing
from uflow_edge.runtime.storage.strict_json import finite, to_json
from uflow_edge.training.evaluation.evaluate import Evaluation
from uflow_edge.training.evaluation.tables import DECISION_HEAD, RANKING_HEAD, decision_rows, means, ranking_rows

if TYPE_CHECKING:
    from uflow_edge.training.evaluation.report import Section


@dataclass(frozen=True, slots=True)
class EvaluationResults:
    """The results of all categories so far.

    Attributes:
        sections: sections of the report, in the same order; empty without a report.
    """

    evaluations: list[Evaluation] = field(default_factory=list)
    sections: "list[Section]" = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """All categories, and the mean of each number over the measured ones."""
        categories = [evaluation.as_json() for evaluation in self.evaluations]
        failed = {"failed": self.failed} if self.failed else {}
        return {"categories": categories, "mean": means(self.evaluations), **failed}

    def write(self, json_file: Path | None, page: Path | None) -> None:
        """Write the JSON document and the report, each unless it is None, and print the tables."""
        if json_file is not None:
            _write(json_file, to_json(finite(self.as_json()), indent=1) + "\n")
        if page is not None:
            from uflow_edge.training.evaluation.report import report_page

            _write(page, report_page(self.sections))
        print(table(RANKING_HEAD, ranking_rows(self.evaluations), left={0, 1}), end="\n\n")
        print(table(DECISION_HEAD, decision_rows(self.evaluations), left={0, 1}))


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    print(f"wrote {path}")

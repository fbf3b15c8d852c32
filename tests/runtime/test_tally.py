"""What became of every frame, and of every result."""

from dataclasses import dataclass
from pathlib import Path

from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.line.capture import Feed
from uflow_edge.runtime.line.pipeline import Pipeline
from uflow_edge.runtime.sources import Frame
from uflow_edge.runtime.sources.synthetic import SyntheticCamera


@dataclass
class LossySink:
    name: str
    undelivered: int

    def put(self, frame: Frame, inspection: Inspection) -> None:
        self.undelivered += 1

    def close(self) -> None:
        pass


def test_sinks_of_one_name_lose_together(exported: Path) -> None:
    sinks = [LossySink("broker", 2), LossySink("folder", 0), LossySink("broker", 5)]
    pipeline = Pipeline(Inspector.load(exported), [Feed(SyntheticCamera(96, 96))], sinks)
    assert pipeline.tally().undelivered == {"broker": 7, "folder": 0}

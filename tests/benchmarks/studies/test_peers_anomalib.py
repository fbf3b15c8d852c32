"""The process that runs anomalib, as far as it goes without anomalib; and the contest where there is one.

``UFLOW_EDGE_ANOMALIB_PYTHON`` names an interpreter that has it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from uflow_edge.benchmarks.studies.peers import answering
from uflow_edge.benchmarks.studies.peers.anomalib_contest import anomalib_contest
from uflow_edge.benchmarks.studies.peers.anomalib_peer import AnomalibPeer
from uflow_edge.benchmarks.studies.peers.models import RECIPES, make_model
from uflow_edge.benchmarks.studies.peers.settings import Settings
from uflow_edge.runtime.errors import MissingDependency


def test_process_answers_line_by_line(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.zeros((3, 4, 4, 3), np.uint8))
    commands = [
        {"pictures": {"name": "p", "file": str(tmp_path / "p.npy")}},
        {"predict": {"model": "m", "pictures": "p", "index": 0}},
        {"pictures": {"name": "q", "file": str(tmp_path / "q.npy")}},
    ]
    done = subprocess.run(
        [sys.executable, answering.__file__, "anomalib_process"],
        input="".join(json.dumps(command) + "\n" for command in commands),
        capture_output=True,
        text=True,
        check=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers[0] == {"pictures": 3}
    assert answers[1] == {"error": "KeyError: 'm'"}
    assert answers[2]["error"].startswith("FileNotFoundError")


def test_an_interpreter_without_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDependency, match="no-such-python: cannot be started"):
        AnomalibPeer(tmp_path, tmp_path / "no-such-python")
    without = tmp_path / "python"
    without.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # without its packages
    without.chmod(0o755)
    with pytest.raises(MissingDependency, match=r"No module named 'anomalib'.*--anomalib-python PATH"):
        AnomalibPeer(tmp_path, without)


@pytest.mark.slow
def test_anomalib_agrees(tmp_path: Path) -> None:
    python = os.environ.get("UFLOW_EDGE_ANOMALIB_PYTHON")
    if python is None:
        pytest.skip("UFLOW_EDGE_ANOMALIB_PYTHON names no interpreter with anomalib")
    settings = Settings(tmp_path, input_size=64, picture_size=96, pictures=3, threads=1, rounds=1)
    told = anomalib_contest(make_model(RECIPES["resnet18"], 64, tmp_path / "model"), settings, Path(python))
    assert told.startswith("anomalib 2.")
    assert "| 64 × 64 | ours, OpenVINO | verdict by the tree NFA |" in told

import pytest

from uflow_edge.benchmarks.latency.starts import start_infer
from uflow_edge.runtime.errors import BadInput


def test_a_start_takes_time_memory_and_processors(exported, texture_folder):
    picture = next((texture_folder / "train" / "good").iterdir())
    start = start_infer(["--bundle", str(exported), "--images", str(picture)])
    assert start.seconds > 0.05 and start.megabytes > 50 and start.processor_seconds > 0.05


def test_a_start_that_fails_says_why(tmp_path):
    with pytest.raises(BadInput, match=f"uflow-infer as a new process failed .*{tmp_path.name}"):
        start_infer(["--bundle", str(tmp_path), "--images", str(tmp_path)])

from collections.abc import Callable

import pytest

from uflow_edge.benchmarks.studies.peers.__main__ import main


def test_tables(exit_code: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ("--input-size", 64, "--rounds", 1, "--bursts", 1, "--threads", 1)
    assert exit_code(main, "--networks", "lite0", *tiny) == 0
    printed = capsys.readouterr().out
    assert "## eager\n\n| network | eager: network |" in printed
    assert "| efficientnet_lite0, strides 8, 16, whitened | onnxruntime | bare session.run |" in printed
    assert "## anomalib\n\nskipped: it needs --networks resnet18" in printed
    assert "| extractor | " in printed

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from uflow_edge.calibration import command
from uflow_edge.calibration.latency import latencies_ms
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest


def test_latency_of_every_graph(exported: Path) -> None:
    bundle = Bundle.load(exported, UFlowManifest)
    found = latencies_ms(bundle)
    assert {file for file, _ in found} == {variant.file for variant in bundle.manifest.variants}
    assert all(0 < milliseconds < 10_000 for milliseconds in found.values())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--max-false-alarms", 2), "false-alarm rate 2.0: expected a number between 0 and 1"),
        (("--confidence", 1), "confidence 1.0: expected a number between 0 and 1"),
        (("--confidence", "high"), "expected a finite number, got 'high'"),
        (("--exclude", "elephant.png"), "no such image"),
        (("--int8", "--null-model", "none"), "--int8 needs images for a null model"),
        (("--overlap", 0.5), "--overlap needs --tile"),
    ],
)
def test_what_cannot_be_meant(
    argv: tuple[object, ...],
    message: str,
    exported: Path,
    good_folder: Path,
    exit_code: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_code(command.main, "--bundle", exported, "--good", good_folder, *argv) == 2
    assert message in capsys.readouterr().err


def test_the_command_needs_neither_torch_nor_scipy() -> None:
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['torch', 'scipy', 'sklearn', 'onnx', 'onnx_ir']))\n"
        "from uflow_edge.calibration import calibrate, command, report, saving\n"
        "from uflow_edge.calibration.operating_point import clopper_pearson\n"
        "print(round(clopper_pearson(1, 100)[1], 4))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "0.0545"

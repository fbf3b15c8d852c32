"""Engines in a bundle: built with TensorRT-RTX, kept while they fit, and never at the cost of the bundle."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from extras import needs
from uflow_edge.export.engines import plans
from uflow_edge.export.engines.plan_options import PlanOptions
from uflow_edge.export.engines.plans import build_plans, carry_over, layers_file, plan_for
from uflow_edge.export.engines.tensorrt import Layers
from uflow_edge.export.engines.toolchain import Toolchain, find_toolchain
from uflow_edge.runtime.bundle.folder import MANIFEST, Bundle, parse_manifest
from uflow_edge.runtime.bundle.manifest import BatchRange, Variant
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.errors import UsageError
from uflow_edge.runtime.storage.files import sha256

pytestmark = needs("tensorrt_rtx_bindings")

RTX = PlanOptions("rtx")
ADA = PlanOptions("rtx", compute_capabilities=("8.9",))


@pytest.fixture
def bundle(exported, tmp_path) -> Bundle:
    """A copy of a real bundle, to build in."""
    shutil.copytree(exported, tmp_path / "gravel.uflow")
    return Bundle.load(tmp_path / "gravel.uflow", UFlowManifest)


@pytest.fixture
def orin() -> Toolchain:
    return Toolchain(sys, "tensorrt", "10.3.0.30", "12.6", ("8.7",))


@pytest.fixture
def quick(monkeypatch) -> list[str]:
    """Stand in for the builder where a test is about what is built when; gives the graphs that were built."""
    built = []

    def build_engine(toolchain, graph, inputs, outputs, options, batch, timing_cache):
        built.append(graph.name)
        return f"engine {len(built)}".encode(), Layers("network", [], {"fp32": 7}, ())

    monkeypatch.setattr(plans, "build_engine", build_engine)
    return built


def save(bundle: Bundle, **changes: object) -> Bundle:
    manifest = replace(bundle.manifest, **changes)
    (bundle.folder / MANIFEST).write_text(manifest.to_json())
    return Bundle.load(bundle.folder, UFlowManifest)


def other_graph(bundle: Bundle) -> Bundle:
    """The same model in other bytes, as from an export of another checkpoint."""
    path = bundle.folder / "model.fp32.onnx"
    model = onnx.load(str(path))
    model.doc_string = "another"
    onnx.save(model, str(path))
    return save(bundle, files={**bundle.manifest.files, path.name: sha256(path)})


def test_a_real_bundle_gets_real_engines_once(bundle) -> None:
    precisions = [variant.precision for variant in bundle.manifest.variants]
    after, results = build_plans(bundle, precisions, RTX)
    release = ".".join(results[0].plan.version.split(".")[:2])
    for precision, result in zip(precisions, results, strict=True):
        assert result.plan.file == f"engines/sm80+86+89+120-rtx{release}-{precision}.plan"
        assert not result.reused
        assert result.size_bytes == (bundle.folder / result.plan.file).stat().st_size > 1_000_000
        assert result.layers[precision] > 50
        assert ("fp16" in result.layers) == (precision == "fp16")
    assert Bundle.load(bundle.folder, UFlowManifest) == after

    log = json.loads((bundle.folder / layers_file(results[0].plan)).read_text())
    assert layers_file(results[0].plan) in after.manifest.files
    assert log["layers_are"].startswith("network: as parsed, before fusion")
    assert log["layers_by_type"] == results[0].layers
    assert log["plan"]["graph_sha256"] == bundle.manifest.files["model.fp32.onnx"]
    assert sum(entry["type"] == "CONVOLUTION" for entry in log["layers"]) > 40

    again, kept = build_plans(after, precisions, RTX)
    assert kept == tuple(replace(result, reused=True, seconds=0.0) for result in results)
    assert again == after


def test_it_says_what_it_does(bundle, quick, logged: list[str]) -> None:
    bundle, (result,) = build_plans(bundle, ["fp32"], ADA)
    build_plans(bundle, ["fp32"], ADA)
    assert logged == [f"building {result.plan.file} from model.fp32.onnx …", f"{result.plan.file} is up to date"]


@pytest.mark.parametrize(
    ("choice", "why"),
    [
        ({"batch": BatchRange(1, 2, 8)}, "batch: 1:1:4 instead of 1:2:8"),
        ({"workspace_mebibytes": 64}, "options: workspace 1024 MiB instead of workspace 64 MiB"),
    ],
)
def test_other_choices_replace_a_plan_and_say_so(bundle, quick, choice, why, logged: list[str]) -> None:
    bundle, (first,) = build_plans(bundle, ["fp32"], ADA)
    bundle, (second,) = build_plans(bundle, ["fp32"], replace(ADA, **choice))
    assert logged[1].endswith(f"the one there differs in {why} …")
    assert first.plan.file == second.plan.file
    assert bundle.manifest.plans == (second.plan,)
    assert (bundle.folder / second.plan.file).read_bytes() == b"engine 2"
    assert Bundle.load(bundle.folder, UFlowManifest) == bundle


@pytest.mark.parametrize(
    "change",
    [{"version": "10.3.0.26"}, {"cuda": "12.8"}, {"compute_capabilities": ("8.6",)}, {"library": "tensorrt_rtx"}],
    ids=str,
)
def test_a_change_of_the_toolchain_rebuilds(bundle, quick, orin, monkeypatch, change) -> None:
    monkeypatch.setattr(plans, "find_toolchain", lambda options: orin)
    bundle, _ = build_plans(bundle, ["fp32"])
    bundle, (kept,) = build_plans(bundle, ["fp32"])
    assert kept.reused
    monkeypatch.setattr(plans, "find_toolchain", lambda options: replace(orin, **change))
    bundle, (rebuilt,) = build_plans(bundle, ["fp32"])
    assert not rebuilt.reused
    assert len(quick) == 2
    same_name = rebuilt.plan.file == kept.plan.file
    assert len(bundle.manifest.plans) == (1 if same_name else 2)
    assert same_name == (change.keys() <= {"version", "cuda"})


def test_another_graph_rebuilds_and_clears_away_what_was_built_from_the_old_one(bundle, quick) -> None:
    bundle, (ada,) = build_plans(bundle, ["fp32"], ADA)
    bundle, (all_gpus,) = build_plans(bundle, ["fp32"], RTX)
    bundle, (rebuilt,) = build_plans(other_graph(bundle), ["fp32"], RTX)
    assert not rebuilt.reused
    assert bundle.manifest.plans == (rebuilt.plan,)
    assert not (bundle.folder / ada.plan.file).exists()
    assert not (bundle.folder / layers_file(ada.plan)).exists()
    assert rebuilt.plan.file == all_gpus.plan.file
    assert Bundle.load(bundle.folder, UFlowManifest) == bundle


def test_files_are_named_after_what_they_run_on(bundle, orin) -> None:
    half = Variant("model.fp16.onnx", "fp16", 18)
    manifest = replace(bundle.manifest, variants=(half,), files={half.file: "0" * 64})
    plan = plan_for(manifest, half, PlanOptions(version_compatible=True, dla_core=1, batch=BatchRange(2, 2, 2)), orin)
    assert plan.file == "engines/sm87-trt10.3-fp16.plan"
    assert layers_file(plan) == "engines/sm87-trt10.3-fp16.layers.json"
    assert plan.options == "workspace 1024 MiB, version-compatible, DLA core 1"
    assert plans._timing_cache(bundle.folder / plan.file).name == "sm87-trt10.3.timing"


def test_weights_beside_the_graph_count_as_the_graph(bundle) -> None:
    apart = Variant("model.fp16.onnx", "fp16", 18, data="model.fp16.data")
    files = {"model.fp16.onnx": "a" * 64, "model.fp16.data": "b" * 64}
    first = replace(bundle.manifest, files=files).graph_sha256(apart)
    retrained = replace(bundle.manifest, files={**files, "model.fp16.data": "c" * 64}).graph_sha256(apart)
    assert len(first) == len(retrained) == 64
    assert first != retrained


@pytest.mark.parametrize(
    ("fixed", "asked", "expected"),
    [
        (None, None, BatchRange(1, 1, 4)),
        (None, BatchRange(1, 4, 8), BatchRange(1, 4, 8)),
        (2, None, BatchRange(2, 2, 2)),
        (2, BatchRange(2, 2, 2), BatchRange(2, 2, 2)),
    ],
)
def test_the_batch_is_the_one_asked_for_or_the_graphs_own(fixed, asked, expected) -> None:
    assert PlanOptions(batch=asked).batch_for(Variant("model.fp32.onnx", "fp32", 18, batch=fixed)) == expected


def test_a_fixed_graph_takes_no_other_batch() -> None:
    with pytest.raises(
        UsageError, match="model.fp32.onnx is fixed to batch 2, not 1:1:4; export it with --batch 1:1:4"
    ):
        PlanOptions(batch=BatchRange()).batch_for(Variant("model.fp32.onnx", "fp32", 18, batch=2))


def test_a_dla_takes_one_batch_only() -> None:
    with pytest.raises(UsageError, match="one batch size only, not 1:1:4"):
        PlanOptions(dla_core=0).batch_for(Variant("model.fp32.onnx", "fp32", 18))


def test_a_precision_without_a_graph_is_refused(bundle) -> None:
    manifest = replace(bundle.manifest, variants=bundle.manifest.variants[:1])
    with pytest.raises(UsageError, match="no fp16 graph to build an engine from, only: fp32"):
        build_plans(Bundle(bundle.folder, manifest), ["fp32", "fp16"], RTX)


@pytest.mark.parametrize("failing", ["plan", "manifest", "log"])
def test_a_full_disk_leaves_a_bundle_that_loads(bundle, quick, monkeypatch, failing) -> None:
    bundle, (first,) = build_plans(bundle, ["fp32"], ADA)
    before = sorted(path.name for path in bundle.folder.rglob("*"))
    real = Path.replace
    names = {"plan": ".plan", "log": ".layers.json", "manifest": MANIFEST}

    def replace_unless_full(self, target):
        if str(target).endswith(names[failing]):
            raise OSError(28, "No space left on device", str(target))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace_unless_full)
    with pytest.raises(OSError, match="No space left"):
        build_plans(bundle, ["fp32"], replace(ADA, workspace_mebibytes=64))
    monkeypatch.undo()
    assert sorted(path.name for path in bundle.folder.rglob("*")) == before  # nothing half written lies about
    loaded = Bundle.load(bundle.folder, UFlowManifest)
    assert loaded.manifest.plans in ((first.plan,), ())


def test_an_interrupt_keeps_the_engines_that_are_finished(bundle, quick, monkeypatch) -> None:
    fake = plans.build_engine

    def interrupted(toolchain, graph, *rest):
        if quick:
            raise KeyboardInterrupt
        return fake(toolchain, graph, *rest)

    fp32 = bundle.manifest.variants[0]
    second = replace(fp32, precision="fp16")
    bundle = save(bundle, variants=(fp32, second))
    monkeypatch.setattr(plans, "build_engine", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_plans(bundle, ["fp32", "fp16"], ADA)
    assert [plan.file[-9:] for plan in Bundle.load(bundle.folder, UFlowManifest).manifest.plans] == ["fp32.plan"]


def test_a_damaged_plan_is_noticed(bundle, quick) -> None:
    bundle, (result,) = build_plans(bundle, ["fp32"], ADA)
    (bundle.folder / result.plan.file).write_bytes(b"engine of somebody else")
    with pytest.raises(Exception, match=r"sm89-rtx.*-fp32.plan: differs from what was exported"):
        Bundle.load(bundle.folder, UFlowManifest)


def test_a_new_export_takes_along_engines_of_graphs_that_stayed(bundle, quick, tmp_path) -> None:
    new = tmp_path / "new.uflow"
    shutil.copytree(bundle.folder, new)
    bundle, (result,) = build_plans(bundle, ["fp32"], ADA)
    timing = bundle.folder / "engines" / "sm87-trt10.3.timing"
    timing.write_bytes(b"kernel times")
    manifest = carry_over(bundle, new, parse_manifest((new / MANIFEST).read_text(), UFlowManifest))
    (new / MANIFEST).write_text(manifest.to_json())
    assert Bundle.load(new, UFlowManifest).manifest.plans == (result.plan,)
    assert (new / "engines" / timing.name).read_bytes() == b"kernel times"
    _, (kept,) = build_plans(Bundle.load(new, UFlowManifest), ["fp32"], ADA)
    assert kept.reused


def test_a_new_export_leaves_engines_of_other_graphs_behind(bundle, quick, tmp_path) -> None:
    new = tmp_path / "new.uflow"
    shutil.copytree(bundle.folder, new)
    changed = other_graph(Bundle.load(new, UFlowManifest))
    bundle, _ = build_plans(bundle, ["fp32"], ADA)
    assert carry_over(bundle, new, changed.manifest) == changed.manifest
    assert not (new / "engines").exists()


@pytest.mark.gpu
def test_the_gpu_of_this_machine_gets_an_engine(bundle) -> None:
    pytest.importorskip("tensorrt")
    bundle, (result,) = build_plans(bundle, ["fp32"])
    log = json.loads((bundle.folder / layers_file(result.plan)).read_text())
    assert log["layers_are"].startswith("engine: as they run")
    assert [path.suffix for path in (bundle.folder / "engines").glob("*.timing")] == [".timing"]
    _, (kept,) = build_plans(Bundle.load(bundle.folder, UFlowManifest), ["fp32"])
    assert kept.reused


def test_engines_are_built_where_torch_and_onnx_are_not_installed(bundle) -> None:
    """As on a Jetson, which got the bundle by copying."""
    code = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "timm", "FrEIA", "onnx", "onnxscript", "safetensors"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from uflow_edge.export.engines.plan_options import PlanOptions
from uflow_edge.export.engines.plans import build_plans
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest

_, (result,) = build_plans(Bundle.load({str(bundle.folder)!r}, UFlowManifest), ["fp32"], PlanOptions("rtx"))
print(result.plan.file)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (plan,) = Bundle.load(bundle.folder, UFlowManifest).manifest.plans
    assert done.stdout.split() == [plan.file]
    assert plan.version == find_toolchain(RTX).version

"""Bundles of diffusion UNets: complete, proved, or not there at all."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from uflow_edge.export import plan_parity
from uflow_edge.export.command import main
from uflow_edge.export.engines.plan_options import PlanOptions
from uflow_edge.export.engines.plans import build_plans
from uflow_edge.export.export_loop import Exported, ParityLost
from uflow_edge.export.unet.bundle import UNetExportOptions, export_unet_bundle
from uflow_edge.export.unet.parity import UNET_BOUNDS, Difference, UNetParity
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.unet import UNetManifest
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.storage.files import sha256

FILES = ["manifest.json", "model.fp16.onnx", "model.fp32.onnx", "parity.json"]


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    """A tiny network with random weights, saved by diffusers."""
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("network")
    UNet2DModel(
        sample_size=16,
        out_channels=6,
        block_out_channels=(32, 32),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def exported(network: Path, tmp_path_factory) -> Exported:
    """Its bundle. Read only."""
    return export_unet_bundle(network, tmp_path_factory.mktemp("exported") / "tiny.uflow")


@pytest.fixture
def bundle(exported: Exported, tmp_path: Path) -> Bundle[UNetManifest]:
    """A copy to change."""
    return Bundle.load(shutil.copytree(exported.bundle.folder, tmp_path / "tiny.uflow"), UNetManifest)


def test_the_bundle_is_complete(exported, network) -> None:
    manifest = exported.bundle.manifest
    assert sorted(path.name for path in exported.bundle.folder.iterdir()) == FILES
    assert (manifest.image_size, manifest.channels, manifest.learned_variance) == (16, 3, True)
    assert (manifest.schedule, manifest.steps, manifest.source.origin) == ("linear", 1000, "diffusers'")
    assert manifest.source.sha256 == sha256(network / "diffusion_pytorch_model.safetensors")
    assert [variant.precision for variant in manifest.variants] == ["fp32", "fp16"]
    assert [variant.error_bound for variant in manifest.variants] == [1e-3, 0.1]
    assert {"torch", "diffusers", "onnxruntime"} <= manifest.tools.keys()


def test_both_graphs_are_proved(exported) -> None:
    report = json.loads((exported.bundle.folder / "parity.json").read_text())
    assert list(report) == ["model.fp32.onnx", "model.fp16.onnx"]
    assert [len(entries) for entries in report.values()] == [1, 2]
    for entries in report.values():
        for entry in entries:
            assert entry["holds"]
            assert entry["reference"] == "torch"
            assert entry["timesteps"] == [5, 40, 300, 900]
            assert 0 < entry["noise"]["rms"] < entry["bound"]["rms"]
    assert report["model.fp16.onnx"][1]["engine"].endswith("rounded as on a GPU")


def test_an_engine_runs_it_in_any_batch(exported) -> None:
    bundle = exported.bundle
    variant = bundle.manifest.variants[0]
    engine = OnnxRuntimeEngine.from_bundle(bundle, variant)
    sample = np.random.default_rng(0).standard_normal((5, 3, 16, 16)).astype(np.float32)
    outputs = engine.run(sample, np.arange(5, dtype=np.float32))
    assert [output.shape for output in outputs] == [sample.shape] * 2


def test_an_existing_folder_is_left_alone(exported, network, tmp_path) -> None:
    with pytest.raises(BadInput, match="exists already; .* --overwrite"):
        export_unet_bundle(network, exported.bundle.folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(BadInput, match="is not a bundle, so it will not be replaced"):
        export_unet_bundle(network, tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_lost_parity_leaves_what_was_there(bundle, network, tmp_path) -> None:
    strict = UNetExportOptions(("fp16",), bounds={"fp16": Difference(1e-9, 1e-9)})
    before = {path.name: path.read_bytes() for path in bundle.folder.iterdir()}
    with pytest.raises(ParityLost, match="differ from the checkpoint; no bundle written. onnxruntime .* noise within"):
        export_unet_bundle(network, bundle.folder, options=strict, overwrite=True)
    assert {path.name: path.read_bytes() for path in bundle.folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.uflow"]


def test_a_graph_that_misses_its_bound_is_left_out_unless_wanted(network, tmp_path) -> None:
    strict = {**UNET_BOUNDS, "fp16": Difference(1e-9, 1e-9)}
    found = export_unet_bundle(network, tmp_path / "a.uflow", options=UNetExportOptions(bounds=strict))
    assert [result.written for result in found.variants] == [True, False]
    assert [variant.precision for variant in found.bundle.manifest.variants] == ["fp32"]
    wanted = UNetExportOptions(("fp16",), bounds=strict, allow_parity_loss=True)
    found = export_unet_bundle(network, tmp_path / "b.uflow", options=wanted)
    assert [result.written for result in found.variants] == [True]
    assert not any(parity.holds for parity in found.variants[0].parities)


def test_engines_are_kept_where_their_graph_stays(bundle, network) -> None:
    built, _ = build_plans(bundle, ["fp32"], PlanOptions("rtx", compute_capabilities=("8.6",)))
    (plan,) = built.manifest.plans
    again = export_unet_bundle(network, bundle.folder, overwrite=True).bundle
    assert again.manifest.plans == (plan,)
    assert (again.folder / plan.file).is_file()
    assert again.manifest.files[plan.file] == built.manifest.files[plan.file]


def test_pictures_may_be_given(network, tmp_path) -> None:
    from PIL import Image

    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    options = UNetExportOptions(("fp32",), parity_images=(tmp_path / "a.png",))
    assert export_unet_bundle(network, tmp_path / "a.uflow", options=options).variants[0].written
    with pytest.raises(BadInput, match="no.png"):
        export_unet_bundle(
            network, tmp_path / "b.uflow", options=UNetExportOptions(parity_images=(tmp_path / "no.png",))
        )


@pytest.mark.slow
def test_the_authors_layout_with_its_flags(diffcf_reference, tmp_path) -> None:
    checkpoint, flags = diffcf_reference / "unet.pt", diffcf_reference / "parameters.yaml"
    with pytest.raises(BadInput, match="unet.pt: image_size cannot be told .*--unet-config"):
        export_unet_bundle(checkpoint, tmp_path / "a.uflow")
    options = UNetExportOptions(("fp32",))
    manifest = export_unet_bundle(checkpoint, tmp_path / "a.uflow", flags, options).bundle.manifest
    assert (manifest.source.name, manifest.source.origin) == ("unet.pt", "guided-diffusion's")
    assert manifest.image_size == 64


def test_the_command_exports_proves_and_builds(network, tmp_path, monkeypatch, exit_code, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--unet", network, "--out", "unet.uflow", "--precision", "fp32"]
    assert exit_code(main, *arguments, "--trt", "--trt-target", "rtx", "--compute-capability", "8.6") == 0
    said = capsys.readouterr().out
    assert "compared with torch at steps 5, 40, 300, 900" in said and said.count(" holds\n") == 1
    assert "uflow-purify --bundle unet.uflow" in said
    manifest = Bundle.load("unet.uflow", UNetManifest).manifest
    assert [variant.precision for variant in manifest.variants] == ["fp32"]
    assert [plan.graph for plan in manifest.plans] == ["model.fp32.onnx"]
    capsys.readouterr()
    for wrong, message in (
        (["--fit", "crop"], "--fit: not with --unet"),
        (["--dry-run"], "--dry-run: not with --unet"),
        (["--trt-target", "rtx"], "--trt-target needs --trt"),
    ):
        assert exit_code(main, *arguments, *wrong) == 2
        assert message in capsys.readouterr().err
    assert exit_code(main, "--ckpt", "any.ckpt", "--unet-config", "x.yaml") == 2
    assert exit_code(main, *arguments) == 3  # there already


class StandIn(OnnxRuntimeEngine):
    """Runs the graph that a plan was built from."""

    def __init__(self, bundle, plan) -> None:
        (variant,) = (variant for variant in bundle.manifest.variants if variant.file == plan.graph)
        super().__init__(bundle.path(variant), bundle.manifest, variant)


def test_an_engine_of_a_unet_is_held_against_its_graph(bundle, monkeypatch) -> None:
    monkeypatch.setattr(plan_parity, "TensorRtEngine", StandIn)
    built, (result,) = build_plans(bundle, ["fp32"], PlanOptions("rtx", compute_capabilities=("8.6",)))
    after, (parity,) = plan_parity.check_plans(built, [result.plan])
    assert isinstance(parity, UNetParity)
    assert parity.holds and parity.noise.maximum == 0  # the same graph in the same engine
    assert Bundle.load(after.folder, UNetManifest) == after
    assert json.loads((after.folder / "parity.json").read_text())[result.plan.file][0]["holds"]

"""The authors' checkpoint, loaded and exported here, against every stage of what their code computed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from uflow_edge.export.bundle import ExportOptions, export_bundle
from uflow_edge.export.checkpoints.checkpoint import Checkpoint, load_checkpoint
from uflow_edge.export.network.uflow import EnergyGraph
from uflow_edge.runtime import Inspector
from uflow_edge.runtime.nfa import tree_score

IMAGES = ["good", "defective", "painted"]


@pytest.fixture(scope="module")
def checkpoint(reference: Path) -> Checkpoint:
    return load_checkpoint(reference / "resnet18_256_s4.ckpt")


@pytest.fixture(scope="module")
def graph(checkpoint: Checkpoint) -> EnergyGraph:
    return EnergyGraph(checkpoint.network(), exceedance_probability=0.9).eval()


@pytest.fixture(scope="module")
def inspector(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Inspector:
    folder = tmp_path_factory.mktemp("upstream") / "resnet18.uflow"
    export_bundle(reference / "resnet18_256_s4.ckpt", folder, ExportOptions(("fp32",), block_nfa=True))
    return Inspector.load(folder)


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def test_architecture_is_read_off_names_and_shapes(checkpoint: Checkpoint) -> None:
    architecture = checkpoint.architecture
    assert (architecture.extractor, architecture.input_size, architecture.flow_steps) == ("resnet18", 256, 4)
    assert (architecture.taps, architecture.pooling) == ((1, 2, 3), 1)


@pytest.mark.parametrize("image", IMAGES)
def test_every_stage_in_torch(graph: EnergyGraph, end_to_end: dict[str, np.ndarray], image: str) -> None:
    def upstream(name: str) -> np.ndarray:
        return end_to_end[f"{image}/{name}"]

    extractor = graph.network.feature_extractor
    with torch.no_grad():
        tensor = graph.normalized(torch.from_numpy(upstream("resized_uint8"))[None])
        np.testing.assert_allclose(tensor[0].numpy(), upstream("input"), atol=1e-5)
        features = extractor.pool(extractor.tapped(tensor))
        for i, (feature, normalized) in enumerate(zip(features, extractor.normalize(features), strict=True)):
            assert relative(feature[0].numpy(), upstream(f"feature_{i}")) < 1e-4
            assert relative(normalized[0].numpy(), upstream(f"normalized_{i}")) < 1e-4
        given = [torch.from_numpy(upstream(f"normalized_{i}"))[None] for i in range(3)]
        latents, log_jacobian = graph.network.latents(given, jac=True)
    for i, z in enumerate(latents):
        assert relative(z[0].numpy(), upstream(f"z_{i}")) < 1e-4
    assert float(log_jacobian[0]) == pytest.approx(float(upstream("log_jacobian")[0]), abs=0.1)
    loss = 0.5 * sum(float(z.square().sum()) for z in latents) - float(log_jacobian[0])
    assert loss == pytest.approx(float(upstream("loss")), rel=1e-5)


@pytest.mark.parametrize("image", IMAGES)
def test_onnx_energies_and_their_score(inspector: Inspector, end_to_end: dict[str, np.ndarray], image: str) -> None:
    frame = np.ascontiguousarray(end_to_end[f"{image}/resized_uint8"][:, :, ::-1])
    inspection = inspector.examine(frame)
    for i, energy in enumerate(inspection.energies):
        upstream = end_to_end[f"{image}/energy_{i}"]
        assert (np.abs(energy - upstream) / upstream).max() < 1e-3
        counts = (np.square(end_to_end[f"{image}/z_{i}"]) >= 2.705543454).sum(axis=0)
        assert np.abs(inspection.exceedances[i] - counts).mean() < 0.01
    score = tree_score(inspection.energies, inspector.manifest.channels, (256, 256), rule="upstream")
    upstream = end_to_end[f"{image}/tree_score_256"]
    clear = np.abs(upstream) > 0.1
    np.testing.assert_array_equal((score > 0)[clear], (upstream > 0)[clear])
    log_probability = upstream.max() + float(end_to_end["log10_ntests"])
    assert score.max() == pytest.approx(upstream.max(), abs=0.1 + 1e-3 * float(log_probability))


def test_only_the_painted_cell_is_anomalous_as_upstream_found(inspector: Inspector, end_to_end) -> None:
    decided = {
        image: inspector.inspect(np.ascontiguousarray(end_to_end[f"{image}/resized_uint8"][:, :, ::-1])).anomalous
        for image in IMAGES
    }
    assert decided == {"good": False, "defective": False, "painted": True}


def test_the_block_rule_decides_as_upstreams_does(inspector: Inspector, end_to_end: dict[str, np.ndarray]) -> None:
    """A latent on the quantile may be counted or not, and a window's mean count is rounded down: some pixels differ."""
    block = Inspector(replace(inspector.manifest, rule="block"), inspector.engine)
    for image in IMAGES:
        upstream = end_to_end[f"{image}/block_score_256"]
        inspection = block.examine(np.ascontiguousarray(end_to_end[f"{image}/resized_uint8"][:, :, ::-1]))
        assert (np.abs(inspection.score - upstream) < 1e-3).mean() > 0.97
        assert inspection.verdict.score == pytest.approx(upstream.max(), abs=1e-3)
        assert inspection.verdict.anomalous == (upstream.max() > 0) == (image == "painted")

"""The contest with the authors' code: against a stand-in for a checkout of it, and against one that there is.

``UFLOW_EDGE_UPSTREAM`` names a checkout, ``UFLOW_EDGE_UPSTREAM_PYTHON`` an interpreter that has what it imports.
"""

import os
import platform
import re
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from uflow_edge.benchmarks.studies.peers.eager import EagerPipeline
from uflow_edge.benchmarks.studies.peers.models import RECIPES, Model, make_model, pictures
from uflow_edge.benchmarks.studies.peers.settings import Settings
from uflow_edge.benchmarks.studies.peers.upstream_contest import upstream_contest
from uflow_edge.benchmarks.studies.peers.upstream_peer import UpstreamPeer
from uflow_edge.export.checkpoints.checkpoint import load_checkpoint
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.errors import BadInput, MissingDependency

STAND_IN = {
    "feature_extraction": """
        import timm

        AVAILABLE_EXTRACTORS = ["resnet18"]

        def get_feature_extractor(backbone, input_size):
            assert backbone in AVAILABLE_EXTRACTORS
            return ResNetFeatureExtractor(backbone, input_size)

        class ResNetFeatureExtractor:
            def __init__(self, backbone, input_size):
                self.extractor = timm.create_model(backbone, pretrained=True, features_only=True, out_indices=[1, 2, 3])
    """,
    "model": """
        import torch
        from pathlib import Path
        from src.feature_extraction import get_feature_extractor
        from uflow_edge.export.checkpoints.checkpoint import load_checkpoint

        class UFlow:
            def __init__(self, input_size, flow_steps, backbone):
                self.extractor = get_feature_extractor(backbone, input_size)

            def from_pretrained(self, path):
                self.network = load_checkpoint(Path(path)).network()
                expected = self.network.feature_extractor.extractor.state_dict()
                assert self.extractor.extractor.state_dict().keys() == expected.keys()

            def eval(self):
                print("loaded")  # must not get between the answers

            def __call__(self, images):
                return list(self.network(images)), None

            def get_probability(self, latents, side):
                grown = [
                    torch.nn.functional.interpolate(
                        torch.exp(-0.5 * latent.square().mean(dim=1, keepdim=True)), (side, side), mode="bilinear"
                    )
                    for latent in latents
                ]
                return torch.stack(grown).mean(dim=0)
    """,
    "datamodule": """
        import torch
        from torchvision import transforms

        MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

        class MVTecDataset:
            def __init__(self, root, category, input_size):
                normalize = transforms.Normalize(MEAN.tolist(), STD.tolist())
                self.image_transform = transforms.Compose(
                    [transforms.Resize(input_size), transforms.ToTensor(), normalize]
                )
    """,
    "nfa_tree": """
        import torch
        from uflow_edge.benchmarks.studies.peers.python_tree import tree_score

        def compute_nfa_anomaly_score_tree(latents, side):
            energies = [latent.square().sum(dim=1).numpy() for latent in latents]
            channels = [latent.shape[1] for latent in latents]
            scores = [torch.from_numpy(tree_score(picture, channels, side)) for picture in zip(*energies)]
            return torch.stack(scores)[:, None] + OFFSET
    """,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return make_model(RECIPES["lite0-authors-taps"], 64, tmp_path_factory.mktemp("model") / "lite0")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "work", input_size=64, picture_size=96, pictures=3, threads=1, bursts=1)


def stand_in(folder: Path, offset: float = 0.0) -> Path:
    """A checkout whose few names compute what the authors' do, by code of ours; its scores off by so much."""
    (folder / "src").mkdir(parents=True)
    for name, text in STAND_IN.items():
        lines = [line.removeprefix(" " * 8) for line in text.splitlines()]
        (folder / "src" / f"{name}.py").write_text("\n".join(lines).replace("OFFSET", str(offset)))
    return folder


def test_contest(tmp_path: Path, model: Model, settings: Settings) -> None:
    versions, _, _, _, row, *_ = upstream_contest([model], settings, stand_in(tmp_path / "checkout")).splitlines()
    assert f"Python {platform.python_version()}, torch {version('torch')}, " in versions
    name, network, tree, whole, at_once, ours, faster, *_ = (cell.strip() for cell in row.strip("|").split("|"))
    assert name == model.name
    assert all(re.fullmatch(r"\d+\.\d ms", cell) for cell in (network, tree, whole, at_once, ours))
    assert float(faster) == pytest.approx(float(whole.split()[0]) / float(ours.split()[0]), rel=0.1)
    assert not list((tmp_path / "checkout").rglob("*.pyc"))  # the checkout is left as it was


def test_disagreement_is_noticed(tmp_path: Path, model: Model, settings: Settings) -> None:
    with pytest.raises(AssertionError, match="scores are"):
        upstream_contest([model], settings, stand_in(tmp_path / "checkout", offset=1e3))


def test_process_gives_what_the_code_computes(tmp_path: Path, model: Model) -> None:
    frames = pictures(2, (96, 96))
    eager = EagerPipeline(load_checkpoint(model.checkpoint))
    with UpstreamPeer(stand_in(tmp_path / "checkout"), tmp_path / "work") as peer:
        with pytest.raises(BadInput, match=r"the authors' code cannot inspect: AttributeError.*upstream_process\.log"):
            peer.stages([0])
        peer.load(model.checkpoint, threads=1)
        peer.take(frames)
        for i, frame in enumerate(frames):
            np.testing.assert_allclose(peer.verdict(i).score, eager.inspect(frame).score, atol=0.1)
        stages = peer.stages([0, 1])
    assert min(stages.preprocessing, stages.network, stages.likelihood, stages.tree) > 0
    assert stages.whole == pytest.approx(stages.preprocessing + stages.network + stages.likelihood + stages.tree)


def test_what_is_missing_is_named(
    tmp_path: Path, trained: Path, exported: Path, model: Model, settings: Settings
) -> None:
    with pytest.raises(MissingDependency, match=r"clone https://github\.com/mtailanian/uflow .* --upstream PATH"):
        upstream_contest([model], settings, None)
    pooled = Model("pooled", trained, Bundle.load(exported, UFlowManifest))
    assert upstream_contest([pooled], settings, tmp_path).startswith("skipped: their network taps strides 4, 8 and 16")
    with pytest.raises(BadInput, match=r"expected a checkout of .*found no src/nfa_tree\.py"):
        UpstreamPeer(tmp_path, tmp_path / "work")
    without = tmp_path / "python"
    without.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # without its packages
    without.chmod(0o755)
    with pytest.raises(MissingDependency, match=r"No module named 'torch'.*--upstream-python PATH"):
        UpstreamPeer(stand_in(tmp_path / "checkout"), tmp_path / "work", without)


@pytest.mark.slow
def test_the_authors_agree(tmp_path: Path, settings: Settings, model: Model) -> None:
    checkout, python = (os.environ.get(f"UFLOW_EDGE_UPSTREAM{suffix}") for suffix in ("", "_PYTHON"))
    if checkout is None:
        pytest.skip("UFLOW_EDGE_UPSTREAM names no checkout of the authors' repository")
    both = [make_model(RECIPES["resnet18"], 64, tmp_path / "resnet18"), model]
    told = upstream_contest(both, settings, Path(checkout), Path(python) if python else None)
    assert [row.split(" | ")[0] for row in told.splitlines()[4:]] == [f"| {each.name}" for each in both]

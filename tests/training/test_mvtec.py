"""The authors' settings of MVTec AD: the table, what goes before what, and a training with their extractor."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from uflow_edge.export.checkpoints.checkpoint import load_checkpoint
from uflow_edge.export.network import mcait
from uflow_edge.export.network.architecture import Architecture
from uflow_edge.export.network.backbones import EXTRACTORS
from uflow_edge.export.network.blank import without_weights
from uflow_edge.export.network.uflow import UFlow
from uflow_edge.runtime.errors import UsageError
from uflow_edge.training.command import main, parser
from uflow_edge.training.fit import standardized
from uflow_edge.training.mvtec import CONFIGS
from uflow_edge.training.options import TrainingOptions
from uflow_edge.training.standardize import supported_choice

pytestmark = pytest.mark.long

PLACES = ["--data", "mvtec/bottle", "--out", "bottle.ckpt"]
TEXTURES = {"carpet", "grid", "leather", "tile", "wood"}
OBJECTS = {
    *("bottle", "cable", "capsule", "hazelnut", "metal_nut", "pill", "screw", "toothbrush", "transistor", "zipper"),
}


def test_every_category_has_settings_that_a_training_takes() -> None:
    assert CONFIGS.keys() == TEXTURES | OBJECTS
    for category, published in CONFIGS.items():
        found = parser().parse_args([*PLACES, "--config", category])
        Architecture.default(found.extractor, found.input_size, found.flow_steps)
        options = TrainingOptions(
            found.learning_rate, found.batch, found.epochs, found.patience, couplings=found.couplings
        )
        assert options.couplings == "affine"
        assert (options.learning_rate, options.batch_size) == (published.learning_rate, published.batch_size)
    assert len({published.learning_rate for published in CONFIGS.values()}) == len(CONFIGS)


def test_the_command_line_overrides_the_config_and_that_the_defaults() -> None:
    ours = parser().parse_args(PLACES)
    assert (ours.extractor, ours.input_size, ours.couplings) == ("efficientnet_lite0", None, "additive")
    theirs = parser().parse_args([*PLACES, "--config", "grid"])
    assert (theirs.extractor, theirs.epochs, theirs.batch) == ("mcait", 500, 12)
    assert theirs.learning_rate == 3.6224837438852e-5
    for arguments in (["--epochs", "3", "--config", "grid"], ["--config", "grid", "--epochs", "3"]):
        mixed = parser().parse_args([*PLACES, *arguments])
        assert (mixed.epochs, mixed.batch, mixed.standardize) == (3, 12, "none")


def test_an_unknown_category(exit_code, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(main, *PLACES, "--config", "teapot") == 2
    assert "--config teapot: expected a file that ends in .toml, or one of bottle, cable" in capsys.readouterr().err


@pytest.fixture
def shallow_mcait(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """One transformer block a backbone, at full width and size; files with weights for both."""
    files = []
    for name, backbone in (("FINE", mcait.FINE), ("COARSE", mcait.COARSE)):
        shallow = mcait.Backbone(backbone.module, backbone.timm_name, 1, backbone.blocks_in_timm)
        monkeypatch.setattr(mcait, name, shallow)
        model = timm.create_model(backbone.timm_name, depth=1, depth_token_only=0, num_classes=0)
        files.append(tmp_path / f"{backbone.timm_name}.pth")
        torch.save(model.state_dict(), files[-1])
    return files


def test_a_training_with_their_settings(
    shallow_mcait: list[Path],
    texture_folder: Path,
    tmp_path: Path,
    exit_code,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "bottle.ckpt"
    arguments = ["--config", "bottle", "--data", texture_folder, "--out", out, "--flow-steps", 1, "--epochs", 1]
    assert exit_code(main, *arguments, "--weights", *shallow_mcait, "--learning-rate", 1e-3) == 0
    said = capsys.readouterr().out
    assert f"weights of mcait: {shallow_mcait[0].name}, {shallow_mcait[1].name}" in said
    assert "features standardised by none" in said
    checkpoint = load_checkpoint(out)
    assert checkpoint.architecture == Architecture.default("mcait", 448, 1)
    for prefix, file in zip(("extractor1", "extractor2"), shallow_mcait, strict=True):
        frozen = torch.load(file, weights_only=True)
        for name, value in frozen.items():  # and the backbones' own normalisation with them
            assert torch.equal(checkpoint.weights[f"feature_extractor.{prefix}.{name}"], value), name
    subnets = [value for name, value in checkpoint.weights.items() if name.endswith("subnet.2.weight")]
    assert subnets and all(float(weights[: len(weights) // 2].abs().max()) > 0 for weights in subnets)  # affine

    arguments += ["--overwrite"]
    assert exit_code(main, *arguments, "--weights", shallow_mcait[0]) == 2
    assert "expected one file each for cait_m48_448, then cait_s24_224, got 1" in capsys.readouterr().err
    assert exit_code(main, *arguments, "--weights", *reversed(shallow_mcait)) == 3
    assert "not the weights of timm's cait_m48_448" in capsys.readouterr().err
    assert exit_code(main, *arguments, "--weights", *shallow_mcait, "--standardize", "whiten") == 2
    assert "normalise their features themselves" in capsys.readouterr().err


def test_only_extractors_with_a_normalisation_of_ours_are_standardised() -> None:
    for extractor, known in EXTRACTORS.items():
        with without_weights():
            network = UFlow(Architecture.default(extractor, known.fixed_input_size or 64, 1))
        assert supported_choice(network, "auto") == ("none" if extractor == "mcait" else "auto")
    with pytest.raises(UsageError, match="--standardize channel: the backbones of mcait"):
        supported_choice(network, "channel")


def test_features_of_mcait_enter_the_flow_as_its_backbones_give_them(shallow_mcait: list[Path]) -> None:
    from uflow_edge.export.network.uflow import EnergyGraph
    from uflow_edge.training.features import extract
    from uflow_edge.training.pretrained import load_pretrained
    from uflow_edge.training.train import seeded_network

    network = seeded_network(Architecture.default("mcait", 448, 1), 0)
    load_pretrained(network.feature_extractor, "mcait", shallow_mcait)
    graph = EnergyGraph(network).eval()
    picture = np.random.default_rng(0).integers(0, 256, (448, 448, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = network(graph.normalized(torch.from_numpy(picture)[None]))
        cached = standardized(network, extract(graph, [picture]))
        found, _ = network.latents(tuple(feature.clone() for feature in cached), jac=False)
    for z, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(z, wanted, rtol=1e-4, atol=1e-4)

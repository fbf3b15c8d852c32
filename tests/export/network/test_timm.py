"""Networks of timm by name: from their description to graphs, with random weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from uflow_edge.calibration.int8.quantize_bundle import Int8Options, quantize_bundle
from uflow_edge.export.bundle import ExportOptions, energy_graph, export_bundle
from uflow_edge.export.checkpoints.checkpoint import load_checkpoint
from uflow_edge.export.checkpoints.tensors import save_tensors
from uflow_edge.export.network.architecture import Architecture
from uflow_edge.export.network.backbones import IMAGENET, extractor
from uflow_edge.export.network.uflow import UFlow, torch_runner
from uflow_edge.runtime.errors import BadInput
from uflow_edge.training.train import seeded_network

QUICK = ["convnextv2_atto", "mobilenetv4_conv_small"]
SLOW = [
    "convnext_zepto_rms",  # RMS normalisation
    "densenet121",
    "efficientnet_b0",  # SiLU, squeeze and excitation
    "fasternet_t0",
    "ghostnet_100",
    "hrnet_w18_small",
    "mobilenetv3_small_100",  # hard swish
    "regnety_002",
    "repvit_m0_9",
    "resnetblur50",  # constants that no checkpoint has
    "resnext50_32x4d",
    "resnetv2_50",
    "vgg11_bn",  # its finest features have stride 1
]


def saved(architecture: Architecture, path: Path, **changes: Any) -> Path:
    """A checkpoint with random weights, as our trainer writes it."""
    network = seeded_network(architecture, 0)
    values = network.architecture.hyper_parameters()
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    save_tensors({"state_dict": state, "hyper_parameters": values | changes}, path)
    return path


@pytest.mark.long
@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_it_is_exported(name: str, tmp_path: Path) -> None:
    architecture = Architecture.default(f"timm:{name}", 64, 1)
    assert [scale.stride for scale in architecture.features] == [8, 16]
    checkpoint = load_checkpoint(saved(architecture, tmp_path / "a.ckpt"))
    assert checkpoint.architecture == architecture
    assert checkpoint.normalization == architecture.backbone.normalization
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    trained, lowered = (torch_runner(energy_graph(checkpoint, lowered=lowered))(pictures) for lowered in (False, True))
    for expected, found in zip(trained, lowered, strict=True):
        assert expected.std() / expected.mean() > 1e-3  # it sees the picture
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    exported = export_bundle(tmp_path / "a.ckpt", tmp_path / "a.uflow", ExportOptions(precisions=("fp32",)))
    assert all(parity.holds for parity in exported.variants[0].parities)
    assert exported.bundle.manifest.extractor == f"timm:{name}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnextv2_atto", "mobilenetv4_conv_small", "regnety_002"])
def test_half_and_eight_bits(name: str, texture_folder: Path, tmp_path: Path) -> None:
    saved(Architecture.default(f"timm:{name}", 64, 1), tmp_path / "a.ckpt")
    exported = export_bundle(tmp_path / "a.ckpt", tmp_path / "a.uflow")
    assert all(parity.holds for variant in exported.variants for parity in variant.parities)
    options = Int8Options(error_bound=0.1, search_images=4)
    _, result = quantize_bundle(exported.bundle, [texture_folder / "train" / "good"], options)
    assert any(parity.holds for parity in result.parities)
    assert result.quantized_work > 0.3


def test_normalisation_and_taps_are_what_the_network_has() -> None:
    known = extractor("timm:tf_efficientnet_lite0")
    assert known == replace(extractor("efficientnet_lite0"), channels=known.channels)
    assert extractor("timm:convnext_atto").normalization == IMAGENET
    assert extractor("timm:mobilenetv4_conv_small.e2400_r224_in1k").channels == (32, 32, 64, 96, 960)
    assert extractor("timm:shvit_s1").taps == (4, 5)  # strides 16, 32 and 64


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("convnextv2_nano", "known: resnet18, .*, and networks of timm, as timm:convnextv2_nano"),
        ("timm:convnextv2_nanno", "as timm:convnextv2_nano"),
        ("timm:hf_hub:somebody/else", "unknown extractor"),
        ("timm:resnet18.no_such_tag", "as timm:resnet18"),
        ("timm:vit_tiny_patch16_224", "strides 16, 16, 16; expected powers of two"),
        ("timm:crossvit_9_240", "expected powers of two"),
        ("timm:mixer_b16_224", "timm:mixer_b16_224"),
    ],
)
def test_a_name_that_cannot_be_used(name: str, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint) as caught:
        Architecture.default(name)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "size", "complaint"),
    [
        ("swin_tiny_patch4_window7_224", 256, "does not take input size 256: Input height"),
        ("swin_tiny_patch4_window7_224", 224, r"gives feature maps of shapes \[\(1, 28, 28, 192\)"),
        ("dla34", 64, "as convolutional networks give them"),
        ("hrnet_w18_small", 48, "does not take input size 48"),
    ],
)
def test_a_network_whose_maps_are_others(name: str, size: int, complaint: str) -> None:
    with torch.device("meta"), pytest.raises(BadInput, match=complaint):
        UFlow(Architecture.default(f"timm:{name}", size))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"extractor": "timm:hf_hub:somebody/else"}, "unknown extractor"),
        ({"extractor": "timm:../../etc"}, "unknown extractor"),
        ({"extractor": "timm:" + 10**6 * "a"}, "unknown extractor"),
        ({"described": None}, "do not describe a U-Flow"),
        ({"channels": [32, 32, 10**9, 96, 960]}, "of at most 8192"),
        ({"channels": 100 * [8]}, "at most 8 feature levels"),
        ({"channels": [32, 32, 64, 8192, 960]}, "flow steps 5: expected at most 4 with 8192 channels"),
        ({"channels": [32, 32, 65, 96, 960]}, "feature maps of shapes"),
        ({"finest_level": 1}, "feature maps of shapes|levels 1 to 5"),
        ({"finest_level": 10**30}, "feature levels from"),
        ({"mean": [0.5, 0.5]}, "do not describe a U-Flow"),
        ({"std": [0.5, 0.0, 0.5]}, "normalisation"),
    ],
)
def test_a_checkpoint_that_describes_it_wrongly(changes: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    architecture = Architecture.default("timm:mobilenetv4_conv_small", 64, 1)
    if not changes.keys() <= {"extractor", "described"}:
        changes = {"described": architecture.backbone.record() | changes}
    values = architecture.hyper_parameters() | {"flow_steps": 5} | changes
    save_tensors({"state_dict": {"model.flow.a": torch.zeros(1)}, "hyper_parameters": values}, tmp_path / "a.ckpt")
    with pytest.raises(BadInput, match=complaint):
        load_checkpoint(tmp_path / "a.ckpt")

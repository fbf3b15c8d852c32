"""The authors' two-transformer extractor: structure in seconds, numbers in the slow tests."""

from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F

from uflow_edge.export.checkpoints.checkpoint import load_checkpoint
from uflow_edge.export.network.architecture import Architecture
from uflow_edge.export.network.blank import without_weights
from uflow_edge.export.network.mcait import McaitExtractor, resize_matrix
from uflow_edge.export.network.uflow import UFlow, build_extractor
from uflow_edge.runtime.errors import BadInput

MCAIT = Architecture.default("mcait", 448)
TIMM_NAMES = {"extractor1": "cait_m48_448", "extractor2": "cait_s24_224"}


def whole_backbones() -> dict[str, torch.Tensor]:
    """Names and shapes of what the authors' extractor holds."""
    with without_weights():
        return {
            f"{module}.{name}": value
            for module, timm_name in TIMM_NAMES.items()
            for name, value in timm.create_model(timm_name, pretrained=False).state_dict().items()
        }


def test_scales() -> None:
    assert [(s.stride, s.channels, s.side) for s in MCAIT.features] == [(16, 768, 28), (32, 384, 14)]
    assert [(s.stride, s.channels, s.side) for s in MCAIT.latents] == [(16, 816, 28), (32, 192, 14)]


def test_only_its_own_input_size() -> None:
    for architecture in ({"input_size": 256}, {"taps": [3]}, {"pooling": 3}):
        with pytest.raises(BadInput, match="mcait takes input size 448, for which its position embeddings are made"):
            Architecture.from_hyper_parameters(MCAIT.hyper_parameters() | architecture)


def test_weights_are_timms_but_for_what_nothing_reads() -> None:
    with without_weights():
        extractor = build_extractor(MCAIT)
    kept, whole = extractor.state_dict(), whole_backbones()
    assert all(kept[name].shape == whole[name].shape for name in kept)
    left_out = {name for name in whole if extractor.leaves_out(name)}
    assert left_out == whole.keys() - kept.keys()
    assert {name.split(".")[2] for name in left_out if ".blocks." in name} == {
        *map(str, range(41, 48)),
        "21",
        "22",
        "23",
    }
    assert sum(value.numel() for value in kept.values()) < 0.85 * sum(value.numel() for value in whole.values())


def test_it_is_recognised_without_hyper_parameters(tmp_path: Path) -> None:
    """A checkpoint of true names and shapes; all weights but the permutations share one zero, to keep it small."""
    with without_weights():
        flow = {"flow." + name: value for name, value in UFlow(MCAIT).flow.state_dict().items()}
    state = {"feature_extractor." + name: value for name, value in whole_backbones().items()} | flow
    zero = torch.zeros(1)
    kept = {"model." + name: value if "w_perm" in name else zero.expand(value.shape) for name, value in state.items()}
    torch.save({"state_dict": kept}, tmp_path / "mcait.ckpt")
    checkpoint = load_checkpoint(tmp_path / "mcait.ckpt", extractor="mcait")
    assert checkpoint.architecture == MCAIT
    with pytest.raises(BadInput, match="its extractor is mcait, not resnet18"):
        load_checkpoint(tmp_path / "mcait.ckpt", extractor="resnet18")
    kept.pop("model.feature_extractor.extractor2.blocks.7.norm1.weight")
    torch.save({"state_dict": kept, "hyper_parameters": MCAIT.hyper_parameters()}, tmp_path / "less.ckpt")
    with pytest.raises(BadInput, match=r"1 weights missing for mcait: .*extractor2\.blocks\.7\.norm1\.weight"):
        load_checkpoint(tmp_path / "less.ckpt")


def test_half_size_image_is_torchs() -> None:
    image = torch.randn(2, 3, 448, 448, generator=torch.Generator().manual_seed(0))
    matrix = resize_matrix(448, 224)
    expected = F.interpolate(image, size=(224, 224), mode="bicubic", align_corners=True)
    torch.testing.assert_close(matrix @ image @ matrix.T, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_features_are_timms_at_the_papers_blocks() -> None:
    """Against timm's own way to intermediate features, with layer scales so large that every block counts."""
    torch.manual_seed(0)
    extractor = McaitExtractor(MCAIT).eval()
    image = torch.randn(1, 3, 448, 448)
    half = F.interpolate(image, size=(224, 224), mode="bicubic", align_corners=True)
    for name, value in extractor.named_parameters():
        if "gamma" in name:
            value.data.uniform_(-0.3, 0.3)
    with torch.inference_mode():
        found = extractor(image)
        for (module, timm_name), block, picture, feature in zip(
            TIMM_NAMES.items(), (40, 20), (image, half), found, strict=True
        ):
            whole = timm.create_model(timm_name, pretrained=False).eval()
            missing = whole.load_state_dict(getattr(extractor, module).state_dict(), strict=False).missing_keys
            assert all(extractor.leaves_out(f"{module}.{name}") for name in missing)
            (expected,) = whole.forward_intermediates(picture, indices=[block], norm=True, intermediates_only=True)
            assert feature.shape == expected.shape
            assert float((feature - expected).abs().max() / expected.abs().max()) < 1e-4

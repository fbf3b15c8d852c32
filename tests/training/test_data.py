"""Which images are learnt from, and what is cached of them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from uflow_edge.export.network.architecture import Architecture
from uflow_edge.export.network.backbones import extractor as extractor_named
from uflow_edge.export.network.uflow import EnergyGraph
from uflow_edge.runtime.errors import BadInput, MissingDependency
from uflow_edge.runtime.images.layouts import good_images
from uflow_edge.training.dataset import checked_images, hold_out, test_images
from uflow_edge.training.features import AugmentedFeatures, CachedFeatures
from uflow_edge.training.fit import standardized
from uflow_edge.training.options import Augmentation
from uflow_edge.training.pretrained import _from_hub, load_pretrained
from uflow_edge.training.standardize import standardize
from uflow_edge.training.train import seeded_network


@pytest.fixture(scope="module")
def graph() -> EnergyGraph:
    network = seeded_network(Architecture.default("efficientnet_lite0", 64, 1), 0)
    load_pretrained(network.feature_extractor, "efficientnet_lite0")
    return EnergyGraph(network).eval()


def test_mvtec_layout_and_plain_folder(texture_folder: Path) -> None:
    good = texture_folder / "train" / "good"
    assert good_images(texture_folder) == good_images(good) == sorted(good.iterdir())
    images = test_images(texture_folder)
    assert [(image.kind, image.is_good) for image in images] == [("good", True), ("hole", False)]


def test_folders_that_hold_nothing_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such folder"):
        good_images(tmp_path / "absent")
    with pytest.raises(BadInput, match="no images"):
        good_images(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(BadInput, match="no train/good"):
        good_images(tmp_path)
    with pytest.raises(BadInput, match="at least 2"):
        hold_out([tmp_path], 0.1, 0)


@pytest.mark.parametrize(("n", "fraction", "held"), [(2, 0.1, 1), (10, 0.1, 1), (100, 0.1, 10), (3, 0.9, 2)])
def test_hold_out_splits_repeatably(n: int, fraction: float, held: int) -> None:
    paths = [Path(str(i)) for i in range(n)]
    fit, watch = hold_out(paths, fraction, 7)
    assert len(watch) == held
    assert sorted(fit + watch) == sorted(paths)
    assert hold_out(paths, fraction, 7) == (fit, watch)
    if n == 100:
        assert hold_out(paths, fraction, 8) != (fit, watch)


def test_images_are_known_by_their_content(texture_folder: Path, tmp_path: Path) -> None:
    originals = sorted((texture_folder / "train" / "good").iterdir())
    hashes = list(checked_images(originals).values())
    copies = [Path(shutil.copy(path, tmp_path / f"copy-{path.name}")) for path in originals]
    assert list(checked_images(copies).values()) == hashes
    assert len(set(hashes)) == len(originals)
    copies[3].write_bytes(copies[3].read_bytes() + b"\0")
    assert [new == old for new, old in zip(checked_images(copies).values(), hashes, strict=True)].index(False) == 3


def test_all_broken_images_are_named(texture_folder: Path, tmp_path: Path) -> None:
    paths = [Path(shutil.copy(path, tmp_path)) for path in sorted((texture_folder / "train" / "good").iterdir())]
    for path in (paths[0], paths[15]):
        path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(BadInput, match=r"00\.png: .*; .*15\.png: .*Repair them or remove them"):
        checked_images(paths)


def test_pretrained_weights_know_what_they_see(graph: EnergyGraph) -> None:
    """Mixed-up tensors would still load: shapes repeat. Only the right ones tell a cat from gravel."""
    import timm
    from skimage import data

    from uflow_edge.runtime.resize.cpu import model_input
    from uflow_edge.training.pretrained import _in_timm_names, _packaged_file, _read

    classifier = timm.create_model("tf_efficientnet_lite0").eval()
    file = _packaged_file("efficientnet_lite0")
    assert file is not None
    classifier.load_state_dict(_in_timm_names(_read(file), "tf_efficientnet_lite0"))
    picture = model_input(np.ascontiguousarray(data.chelsea()[:, 75:375, ::-1]), 224)
    with torch.no_grad():
        guess = classifier(graph.normalized(torch.from_numpy(picture)[None])).argmax().item()
    assert 281 <= guess <= 285  # ImageNet's domestic cats


@pytest.mark.parametrize(("extractor", "files"), [("resnet18", 1), ("mcait", 2), ("timm:convnextv2_nano", 1)])
def test_without_a_network_one_line_says_what_to_get(
    extractor: str, files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingDependency, match=rf"model\.safetensors .*give .* with --weights{' FILE' * files}$"):
        _from_hub(extractor_named(extractor).timm_name, extractor)
    assert capsys.readouterr().err == ""


def test_weights_from_a_file(graph: EnergyGraph, tmp_path: Path) -> None:
    extractor = graph.network.feature_extractor
    torch.save(extractor.extractor.state_dict(), tmp_path / "w.pth")
    load_pretrained(extractor, "efficientnet_lite0", [tmp_path / "w.pth"])
    with pytest.raises(BadInput, match="not the weights of timm's resnet18"):
        other = seeded_network(Architecture.default("resnet18", 64, 1), 0).feature_extractor
        load_pretrained(other, "resnet18", [tmp_path / "w.pth"])
    save_file(extractor.extractor.state_dict(), tmp_path / "w.safetensors")
    load_pretrained(extractor, "efficientnet_lite0", [tmp_path / "w.safetensors"])
    for name, complaint in (("w.pth", "cannot be read as a state dict"), ("w.safetensors", "not a safetensors file")):
        (tmp_path / name).write_text("no")
        with pytest.raises(BadInput, match=complaint):
            load_pretrained(extractor, "efficientnet_lite0", [tmp_path / name])


def test_weights_of_a_network_of_timm_keep_their_places(tmp_path: Path) -> None:
    """A whole network has other names than one for features: stages.1.blocks against stages_1.blocks."""
    import timm

    whole = timm.create_model("convnextv2_atto").eval()
    save_file(whole.state_dict(), tmp_path / "w.safetensors")
    extractor = seeded_network(Architecture.default("timm:convnextv2_atto", 64, 1), 0).feature_extractor
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(extractor.extractor(image)[-1], whole.forward_intermediates(image)[1][2])
    assert load_pretrained(extractor, "timm:convnextv2_atto", [tmp_path / "w.safetensors"]) == "w.safetensors"
    for found, level in zip(extractor.extractor(image), (1, 2), strict=True):
        torch.testing.assert_close(found, whole.forward_intermediates(image)[1][level])


def test_a_network_that_timm_has_no_weights_of() -> None:
    extractor = seeded_network(Architecture.default("timm:convnext_atto_rms", 64, 1), 0).feature_extractor
    with pytest.raises(BadInput, match="no pretrained weights of convnext_atto_rms; give a file with them"):
        load_pretrained(extractor, "timm:convnext_atto_rms")


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_cached_features_are_the_extractors(graph: EnergyGraph, texture_folder: Path, tmp_path: Path, where) -> None:
    paths = good_images(texture_folder)
    indices = np.array([11, 2, 7])
    with CachedFeatures(graph, paths, where=where, folder=tmp_path) as cached:
        assert len(cached) == 16
        assert any(tmp_path.iterdir()) == (where == "disk")
        recomputed = AugmentedFeatures(graph, paths, Augmentation(), seed=0)
        for a, b in zip(cached.batch(indices), recomputed.batch(indices, epoch=3), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert not any(tmp_path.iterdir())


def test_memory_or_disk_is_decided_by_size(
    graph: EnergyGraph, texture_folder: Path, tmp_path: Path, monkeypatch
) -> None:
    import psutil

    paths = good_images(texture_folder)
    for available, where in ((10**12, "memory"), (10**4, "disk")):
        memory = psutil.virtual_memory()._replace(available=available)
        monkeypatch.setattr(psutil, "virtual_memory", lambda memory=memory: memory)
        with CachedFeatures(graph, paths, folder=tmp_path) as cached:
            assert cached.where == where


def test_augmentation_is_off_by_default_and_repeatable(graph: EnergyGraph, texture_folder: Path) -> None:
    assert Augmentation().is_none
    frame = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(Augmentation().apply(frame, np.random.default_rng(1)), frame)
    flips = Augmentation(horizontal_flip=True, vertical_flip=True)
    seen = {flips.apply(frame, np.random.default_rng(i)).tobytes() for i in range(40)}
    assert seen == {f.tobytes() for f in (frame, frame[:, ::-1], frame[::-1], frame[::-1, ::-1])}
    cropped = Augmentation(crop=0.5).apply(frame, np.random.default_rng(3))
    assert 10 <= cropped.shape[0] < 20
    paths = good_images(texture_folder)
    features = AugmentedFeatures(graph, paths, flips, seed=5)
    first, again = (features.batch(np.array([1]), epoch=2)[0] for _ in range(2))
    assert torch.equal(first, again)
    assert any(not torch.equal(first, features.batch(np.array([1]), epoch=e)[0]) for e in range(3, 9))


@pytest.mark.parametrize("choice", ["position", "channel"])
def test_standardised_features_have_mean_0_and_variance_1(graph: EnergyGraph, texture_folder: Path, choice) -> None:
    paths = good_images(texture_folder)
    network = seeded_network(graph.network.architecture, 0)
    with CachedFeatures(graph, paths) as cached:
        assert standardize(network, cached, cached, choice) == choice
        for scaled in standardized(network, cached.batch(np.arange(16))):
            over = (0,) if choice == "position" else (0, 2, 3)
            torch.testing.assert_close(scaled.mean(over), torch.zeros_like(scaled.mean(over)), atol=1e-3, rtol=0)
            assert float(scaled.var(over, correction=0).mean()) == pytest.approx(1, abs=0.6)


class Given:
    """Features made up for one scale of 40 channels on 8 x 8 pixels."""

    architecture = Architecture("efficientnet_lite0", 64, 1, (2,), 1)

    def __init__(self, maps: torch.Tensor) -> None:
        self.maps = maps

    def __len__(self) -> int:
        return len(self.maps)

    def batch(self, indices: np.ndarray, epoch: int = 0) -> tuple[torch.Tensor, ...]:
        return (self.maps[indices],)


def test_auto_chooses_what_the_features_are_like() -> None:
    random = torch.Generator().manual_seed(0)
    pattern = torch.randn(1, 40, 8, 8, generator=random)
    noise = 0.3 * torch.randn(120, 40, 8, 8, generator=random)
    shifts = torch.randperm(120, generator=random)
    shifted = torch.stack([torch.roll(pattern[0], (i % 8, i // 8 % 8), (1, 2)) for i in shifts.tolist()])
    mixing = torch.randn(64, 40, 40, generator=random)
    mixed = torch.einsum("pdc,npc->npd", mixing, noise.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(noise.shape)
    for maps, chosen in ((pattern + noise, "position"), (shifted + noise, "channel"), (pattern + mixed, "whiten")):
        network = seeded_network(Given.architecture, 0)
        assert standardize(network, Given(maps[:90]), Given(maps[90:])) == chosen
        assert network.architecture.whitening == (chosen == "whiten")


def test_whitened_features_are_uncorrelated_at_every_pixel() -> None:
    random = torch.Generator().manual_seed(1)
    noise = torch.randn(2000, 40, 8, 8, generator=random)
    mixing = torch.eye(40) + 0.08 * torch.randn(64, 40, 40, generator=random)
    maps = torch.einsum("pdc,npc->npd", mixing, noise.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(noise.shape)
    network = seeded_network(Given.architecture, 0)
    assert standardize(network, Given(maps), Given(maps), "whiten") == "whiten"
    (white,) = standardized(network, (maps,))
    by_pixel = white.flatten(2).permute(2, 0, 1)
    covariance = by_pixel.transpose(1, 2) @ by_pixel / len(maps)
    assert float((covariance - torch.eye(40)).abs().max()) < 0.2
    raw = maps.flatten(2).permute(2, 0, 1)
    assert float((raw.transpose(1, 2) @ raw / len(maps) - torch.eye(40)).abs().max()) > 0.5


def test_whitening_that_would_be_too_large_is_not_considered(monkeypatch: pytest.MonkeyPatch) -> None:
    from uflow_edge.training import standardize as module

    assert Architecture.default("efficientnet_lite0").whitening_bytes < module.LARGEST_WHITENING
    assert Architecture.default("resnet18").whitening_bytes > module.LARGEST_WHITENING
    monkeypatch.setattr(module, "LARGEST_WHITENING", 0)
    maps = torch.randn(40, 40, 8, 8, generator=torch.Generator().manual_seed(2))
    assert standardize(seeded_network(Given.architecture, 0), Given(maps), Given(maps)) in ("position", "channel")

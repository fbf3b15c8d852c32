"""anomalib's checkpoints, put together here as it writes them: anomalib itself is never needed, and never run."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import CenterCrop, Compose, Normalize, RandomHorizontalFlip, Resize

from uflow_edge.export.checkpoints.checkpoint import load_checkpoint
from uflow_edge.export.checkpoints.tensors import load_tensors
from uflow_edge.export.network.architecture import Architecture, Coupling
from uflow_edge.export.network.uflow import EnergyGraph, UFlow
from uflow_edge.runtime.errors import BadInput

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
UFLOW = {
    "backbone": "resnet18",
    "flow_steps": 2,
    "affine_clamp": 2.0,
    "affine_subnet_channels_ratio": 1.0,
    "permute_soft": False,
}


def spec(name: str, **arguments: Any) -> dict[str, Any]:
    """A transform as anomalib 2.7 writes it."""
    return {"class_path": f"torchvision.transforms.v2.{name}", "init_args": arguments}


RESIZE = spec("Resize", size=[64, 64], interpolation="bilinear", max_size=None, antialias=True)
NORMALIZE = spec("Normalize", mean=MEAN, std=STD, inplace=False)


def plain(*transforms: dict[str, Any]) -> dict[str, Any]:
    """What anomalib 2.7 adds to a checkpoint."""
    compose = spec("Compose", transforms=list(transforms))
    return {"hyper_parameters": UFLOW, "anomalib_pre_processor_config": {"transform": compose}}


@pytest.fixture
def fake_class(monkeypatch: pytest.MonkeyPatch) -> Callable[..., type]:
    """A class in a module that does not exist outside this test, so that objects of it can be pickled."""

    def make(module_name: str, name: str, *bases: type, **members: Any) -> type:
        made = type(name, bases, {"__module__": module_name, **members})
        parts = module_name.split(".")
        for i in range(1, len(parts) + 1):
            full = ".".join(parts[:i])
            monkeypatch.setitem(sys.modules, full, sys.modules.get(full) or ModuleType(full))
        monkeypatch.setattr(sys.modules[module_name], name, made, raising=False)
        return made

    return make


@pytest.fixture
def pickled(fake_class: Callable[..., type]) -> Callable[..., dict[str, Any]]:
    """What anomalib up to 2.6 adds: the preprocessing as a live object among the hyper-parameters."""

    def make(*transforms: nn.Module) -> dict[str, Any]:
        pre_processor = fake_class("anomalib.pre_processing.pre_processor", "PreProcessor", nn.Module)()
        pre_processor.transform = Compose(list(transforms))
        pre_processor.export_transform = Compose(list(transforms))
        return {"hyper_parameters": {**UFLOW, "pre_processor": pre_processor, "evaluator": True}}

    return make


@pytest.fixture
def saved(tmp_path: Path, small_state: Callable[..., dict[str, Tensor]]) -> Callable[..., Path]:
    """Write a checkpoint with anomalib's names for the weights, and its own states beside them."""

    def write(content: dict[str, Any], change: Callable[[dict[str, Tensor]], object] = lambda state: None) -> Path:
        weights = small_state()
        state = {name.replace("tractor.extractor.", "tractor.feature_extractor."): v for name, v in weights.items()}
        state |= {"post_processor._image_threshold": torch.tensor(0.5), "post_processor.pixel_max": torch.tensor(2.0)}
        change(state)
        path = tmp_path / "anomalib.ckpt"
        torch.save({"epoch": 1, "state_dict": state, "loops": {}, "hparams_name": "kwargs", **content}, path)
        return path

    return write


def test_names_are_anomalibs(saved: Callable[..., Path]) -> None:
    names = torch.load(saved(plain()), weights_only=True)["state_dict"]
    assert "model.feature_extractor.feature_extractor.layer3.1.bn2.running_var" in names
    assert "model.feature_extractor.feature_normalizations.2.bias" in names
    assert "model.flow.module_list.0.subnet.2.weight" in names


@pytest.mark.parametrize("version", ["2.7", "2.0"])
def test_size_normalisation_and_energies(saved, pickled, small_state, version: str) -> None:
    written = plain(RESIZE, NORMALIZE) if version == "2.7" else pickled(Resize((64, 64)), Normalize(MEAN, STD))
    checkpoint = load_checkpoint(saved(written), "resnet18")
    architecture = checkpoint.architecture
    assert (checkpoint.origin, checkpoint.fit, architecture.input_size) == ("anomalib", "squash", 64)
    assert (checkpoint.normalization.mean, checkpoint.normalization.std) == (tuple(MEAN), tuple(STD))
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    network = UFlow(Architecture("resnet18", 64, 2, (1, 2, 3), 1)).eval()
    network.load_state_dict({name.removeprefix("model."): value for name, value in small_state().items()})
    prepared = ((image / 255 - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)
    with torch.no_grad():
        latents = network(torch.from_numpy(prepared))
        graph = EnergyGraph(checkpoint.network(), checkpoint.normalization).eval()
        found = graph(torch.from_numpy(image))[:3]
    for energy, latent in zip(found, latents, strict=True):
        torch.testing.assert_close(energy, latent.square().sum(1), rtol=1e-4, atol=0)


def test_without_a_preprocessing_of_its_own_it_is_the_default(saved) -> None:
    def at_448(state: dict[str, Tensor]) -> None:
        for i, (channels, side) in enumerate(((64, 112), (128, 56), (256, 28))):
            for kind in ("weight", "bias"):
                state[f"model.feature_extractor.feature_normalizations.{i}.{kind}"] = torch.ones(channels, side, side)

    checkpoint = load_checkpoint(saved({"hyper_parameters": {**UFLOW, "pre_processor": True}}, at_448))
    assert (checkpoint.architecture.input_size, checkpoint.fit) == (448, "squash")
    assert checkpoint.normalization.mean == (0.485, 0.456, 0.406)


def test_crop(saved, pickled) -> None:
    shorter_side = spec("Resize", size=64), NORMALIZE
    assert load_checkpoint(saved(plain(*shorter_side))).fit is None
    assert load_checkpoint(saved(plain(*shorter_side, spec("CenterCrop", size=[64, 64])))).fit == "crop"
    assert load_checkpoint(saved(pickled(Resize(64), CenterCrop(64), Normalize(MEAN, STD)))).fit == "crop"
    assert load_checkpoint(saved(plain(RESIZE, spec("CenterCrop", size=64)))).fit == "squash"


def test_clamp_and_hidden_ratio_are_taken_over(saved) -> None:
    content = plain(RESIZE)
    content["hyper_parameters"] = {**UFLOW, "affine_clamp": 1.5}
    assert load_checkpoint(saved(content)).architecture.coupling == Coupling(clamp=1.5)
    content["hyper_parameters"] = {**UFLOW, "affine_subnet_channels_ratio": 0.5}
    with pytest.raises(BadInput, match=r"weights of another shape .*subnet\.0\.bias"):
        load_checkpoint(saved(content))


def test_soft_permutations_are_flagged(saved) -> None:
    def rotate(state: dict[str, Tensor]) -> None:
        for name in [name for name in state if name.endswith(".w_perm")]:
            q = torch.linalg.qr(torch.randn(state[name].shape[:2], generator=torch.Generator().manual_seed(0))).Q
            state[name] = q[:, :, None, None].clone()

    content = plain(RESIZE)
    content["hyper_parameters"] = {**UFLOW, "permute_soft": True}
    checkpoint = load_checkpoint(saved(content, rotate))
    assert checkpoint.architecture.coupling == replace(Coupling(), permutation="soft")
    hard = load_checkpoint(saved(plain(RESIZE)))
    with torch.no_grad():
        x = torch.rand(1, 3, 64, 64)
        assert not torch.allclose(checkpoint.network()(x)[0], hard.network()(x)[0], rtol=0.1)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (plain(spec("Resize", size=[64, 128]), NORMALIZE), r"resizes pictures to 64 x 128 .* only one square size"),
        (plain(spec("Resize", size=[128, 128])), r"to 128 x 128 pixels \(H x W\) and its weights are for 64 x 64"),
        (plain(NORMALIZE), "to 448 x 448 pixels .* weights are for 64 x 64"),
        (plain(spec("Resize", size=[80, 80]), spec("CenterCrop", size=[64, 64])), "has a CenterCrop"),
        (plain(spec("Resize", size=[64, 64], interpolation="bicubic")), "has a Resize .*bicubic"),
        (plain(spec("Resize", size=[64, 64], antialias=False)), "has a Resize .*antialias"),
        (plain(RESIZE, spec("Grayscale", num_output_channels=3)), "has a Grayscale .* does not repeat"),
        (plain(RESIZE, spec("Normalize", mean=[0.5], std=[0.5])), "has a Normalize that cannot be read"),
        (plain(RESIZE, spec("Normalize", mean=MEAN, std=[1, 1, 0])), "standard deviation .* not possible"),
        (plain(spec("Resize")), "has a Resize that cannot be read"),
        ({"anomalib_pre_processor_config": {}}, "hyper_parameters are not those of anomalib's Uflow"),
        ({"hyper_parameters": {**UFLOW, "flow_steps": None}}, "hyper_parameters are not those of anomalib's Uflow"),
        ({"hyper_parameters": {**UFLOW, "backbone": "vit"}}, "unknown backbone 'vit'"),
        ({"hyper_parameters": {**UFLOW, "backbone": "mcait"}}, "weights missing for mcait"),
    ],
)
def test_what_cannot_be_exported_is_named(saved, content: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BadInput, match=rf"anomalib\.ckpt: .*{complaint}"):
        load_checkpoint(saved(content))


def test_pickled_preprocessings_that_cannot_be_exported(saved, pickled) -> None:
    bicubic = Resize((64, 64), interpolation=InterpolationMode.BICUBIC)
    for transform, complaint in ((bicubic, "has a Resize"), (RandomHorizontalFlip(), "has a RandomHorizontalFlip")):
        with pytest.raises(BadInput, match=complaint):
            load_checkpoint(saved(pickled(transform)))
    with pytest.raises(BadInput, match="to 64 x 96 pixels"):
        load_checkpoint(saved(pickled(Resize((64, 96)))))


def test_non_square_weights(saved) -> None:
    def stretch(state: dict[str, Tensor]) -> None:
        state["model.feature_extractor.feature_normalizations.0.weight"] = torch.ones(64, 16, 32)

    with pytest.raises(BadInput, match="weights are for 64 x 128"):
        load_checkpoint(saved(plain(RESIZE), stretch))


def test_what_a_framework_pickles_is_read_as_data(fake_class, tmp_path: Path) -> None:
    """Calls, attributes and dicts of classes that do not exist here."""
    point = fake_class("torchmetrics.fake", "Point")
    made = point()
    made.x = torch.ones(2)
    attributes = fake_class("lightning.fabric.utilities.data", "AttributeDict", dict)(lr=0.1)
    path = tmp_path / "a.ckpt"
    torch.save({"p": made, "h": attributes, "folder": tmp_path, "mode": InterpolationMode.BILINEAR}, path)
    content = load_tensors(path, "a test", inert=True)
    assert content["p"].original == "torchmetrics.fake.Point"
    assert torch.equal(content["p"].state["x"], torch.ones(2))
    assert content["h"] == {"lr": 0.1}
    assert content["folder"].arguments[-1] == tmp_path.name
    assert content["mode"].arguments == ("bilinear",)
    with pytest.raises(BadInput, match="is never run"):
        load_tensors(path, "a test")


def test_functions_in_place_of_classes_are_not_called(fake_class, saved, tmp_path: Path) -> None:
    """Names from a framework's package pass, but what they would do does not happen."""
    trace = tmp_path / "trace"
    touch = fake_class("anomalib.utils", "touch", __new__=lambda cls, path: path.touch())
    cheat = fake_class("anomalib.utils", "Cheat", __reduce__=lambda self: (touch, (trace,)))
    content = plain(RESIZE, NORMALIZE)
    checkpoint = load_checkpoint(saved({**content, "callbacks": cheat()}))
    assert checkpoint.origin == "anomalib"
    assert not trace.exists()


@pytest.mark.parametrize("function", [os.system, eval, exec, __import__, os.unlink], ids=lambda f: f.__name__)
def test_code_beside_anomalibs_objects_is_refused(fake_class, saved, pickled, tmp_path: Path, function) -> None:
    trace = tmp_path / "trace"
    argument = f"touch {trace}" if function is os.system else f"open({str(trace)!r}, 'w')"
    evil = fake_class("anomalib.utils", "Evil", __reduce__=lambda self: (function, (argument,)))
    content = pickled(Resize((64, 64)))
    content["hyper_parameters"]["task"] = evil()
    with pytest.raises(BadInput, match=rf"holds code, which is never run \(it names \w+\.{function.__name__}\)"):
        load_checkpoint(saved(content))
    assert not trace.exists()


def test_attributes_of_stand_ins_are_out_of_reach(fake_class, saved, tmp_path: Path) -> None:
    """A path is read as data; a method of one cannot be had, let alone called."""
    trace = tmp_path / "trace"
    evil = fake_class("anomalib.utils", "Evil", __reduce__=lambda self: (Path.touch, (trace,)))
    with pytest.raises(BadInput, match=r"is never run \(it names builtins\.getattr\)"):
        load_checkpoint(saved({**plain(RESIZE), "callbacks": evil()}))
    assert not trace.exists()


def test_truncated(saved) -> None:
    path = saved(plain(RESIZE))
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(BadInput, match=r"anomalib\.ckpt: cannot be read as a checkpoint"):
        load_checkpoint(path)

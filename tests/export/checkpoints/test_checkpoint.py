"""Checkpoints in: what is read, and what is refused in one clear sentence."""

import hashlib
import os
import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import FrEIA.framework as ff
import FrEIA.modules as fm
import pytest
import torch
from torch import nn

from uflow_edge.export.checkpoints.checkpoint import load_checkpoint
from uflow_edge.export.network.architecture import Architecture, Coupling
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images.files import read_image
from uflow_edge.runtime.images.layouts import good_images
from uflow_edge.runtime.resize.cpu import model_input
from uflow_edge.training.dataset import hold_out
from uflow_edge.training.options import HOLD_OUT


@pytest.fixture
def changed(trained: Path, tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], object]], Path]:
    """Write a copy of the trained checkpoint with something changed."""

    def write(change: Callable[[dict[str, Any]], object]) -> Path:
        content = torch.load(trained, weights_only=True)
        change(content)
        path = tmp_path / "changed.ckpt"
        torch.save(content, path)
        return path

    return write


def test_ours_comes_back(trained: Path) -> None:
    checkpoint = load_checkpoint(trained)
    default = Architecture.default("efficientnet_lite0", 64, 2)
    assert replace(checkpoint.architecture, whitening=False) == default
    state = checkpoint.network().state_dict()
    assert all(torch.equal(state[name], value) for name, value in checkpoint.weights.items())


def test_ours_loads_strictly_into_freias_blocks(trained: Path) -> None:
    """A flow put together here from FrEIA's parts alone, as the paper describes it, takes our weights as they are."""
    architecture = load_checkpoint(trained).architecture

    def subnet(kernel: int):
        def build(c_in: int, c_out: int) -> nn.Sequential:
            first = nn.Conv2d(c_in, c_in, kernel, padding="same")
            return nn.Sequential(first, nn.ReLU(), nn.Conv2d(c_in, c_out, kernel, padding="same"))

        return build

    def block(node, step: int):
        kernel = 1 if step % 2 else 3
        options = {"subnet_constructor": subnet(kernel), "affine_clamping": 2.0, "global_affine_type": "SOFTPLUS"}
        return ff.Node(node, fm.AllInOneBlock, options)

    inputs = [ff.InputNode(s.channels, s.side, s.side) for s in architecture.features]
    nodes = list(inputs)
    node = inputs[-1]
    for finer in (0, None):
        for step in range(architecture.flow_steps):
            nodes.append(node := block(node, step))
        if finer is None:
            nodes.append(ff.OutputNode(node))
            break
        channels = node.output_dims[0][0]
        split = ff.Node(node, fm.Split, {"section_sizes": (channels // 8 * 4, channels - channels // 8 * 4), "dim": 0})
        up = ff.Node(split.out0, fm.IRevNetUpsampling, {})
        node = ff.Node([inputs[finer].out0, up.out0], fm.Concat, {"dim": 0})
        nodes += [split, ff.OutputNode(split.out1), up, node]
    flow = ff.GraphINN(nodes)
    stored = torch.load(trained, weights_only=True)["state_dict"]
    prefix = "model.flow."
    flow.load_state_dict({k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}, strict=True)


def test_layout_is_upstreams(trained: Path, reference: Path) -> None:
    """The same keys as the authors' trainer writes, but for the extractor, its whitening, and the depth of the flow."""
    ours, theirs = (torch.load(p, weights_only=True) for p in (trained, reference / "resnet18_256_s4.ckpt"))
    assert {"epoch", "global_step", "pytorch-lightning_version", "state_dict"} <= ours.keys() & theirs.keys()

    def kinds(state: dict[str, Any]) -> set[str]:
        own = ("model.feature_extractor.extractor.", "model.feature_extractor.feature_whitenings.")
        return {re.sub(r"\d+", "#", key) for key in state if not key.startswith(own)}

    assert kinds(ours["state_dict"]) == kinds(theirs["state_dict"])


def test_ours_carries_pictures_that_were_not_fitted(trained: Path, texture_folder: Path, changed) -> None:
    held = hold_out(good_images(texture_folder), HOLD_OUT, 0)[1]
    seen = {model_input(read_image(path), 64).tobytes() for path in held}
    assert {picture.tobytes() for picture in load_checkpoint(trained).pictures} == seen
    assert len(seen) == 2
    assert load_checkpoint(changed(lambda c: c.pop("pictures"))).pictures == ()


def test_ours_knows_the_pictures_it_was_trained_on(trained: Path, texture_folder: Path) -> None:
    fitted, held = hold_out(good_images(texture_folder), HOLD_OUT, 0)
    expected = [[hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in paths] for paths in (fitted, held)]
    content = torch.load(trained, weights_only=True)
    assert content["trained_on"] == dict(zip(("fitted", "held_out"), expected, strict=True))


@pytest.mark.parametrize("stored", [[], {"fitted": []}, {"fitted": ["no hash"], "held_out": []}])
def test_what_it_was_trained_on_must_be_hashes(changed, stored: object) -> None:
    with pytest.raises(BadInput, match="its trained_on are not two lists of hashes"):
        load_checkpoint(changed(lambda content: content.update(trained_on=stored)))


def test_metric_states_are_ignored(changed) -> None:
    path = changed(lambda c: c["state_dict"].update({"image_f1.tp": torch.zeros(3), "log_loss_weights": torch.ones(1)}))
    load_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda c: c["state_dict"].pop("model.flow.module_list.0.subnet.0.bias"),
            r"1 weights missing .*list\.0\.subnet\.0\.bias",
        ),
        (
            lambda c: c["state_dict"].update({"model.head.weight": torch.ones(1)}),
            r"1 weights unexpected .*head\.weight",
        ),
        (lambda c: c["state_dict"].update({"extra": torch.ones(1)}), "1 weights unexpected"),
        (
            lambda c: c["state_dict"].update({"model.flow.module_list.0.subnet.0.bias": torch.ones(3)}),
            r"of another shape .*subnet\.0\.bias",
        ),
        (
            lambda c: c["state_dict"]["model.flow.module_list.0.subnet.0.bias"].fill_(float("nan")),
            r"not finite .*subnet\.0\.bias",
        ),
        (
            lambda c: c["state_dict"].update({"model.flow.module_list.0.w_perm": torch.arange(112)}),
            "partly matrices and partly index vectors",
        ),
        (lambda c: c["hyper_parameters"].pop("flow_steps"), "do not describe a U-Flow"),
        (lambda c: c["hyper_parameters"].update(extractor="vgg"), "unknown extractor 'vgg'"),
        (lambda c: c.pop("state_dict"), "no state_dict of tensors"),
        (lambda c: c["state_dict"].clear(), "holds no flow"),
        (lambda c: c.update(state_dict={"a": 1}), "no state_dict of tensors"),
        (lambda c: c.update(pictures=torch.zeros(1, 32, 32, 3).byte()), r"pictures are not \(N, 64, 64, 3\) bytes"),
        (lambda c: c.update(pictures=torch.zeros(1, 64, 64, 3)), "pictures are not"),
        (lambda c: c.update(pictures="a.png"), "pictures are not"),
        (lambda c: c.pop("hyper_parameters"), "no hyper_parameters"),  # pooling cannot be read off shapes
    ],
)
def test_what_does_not_add_up_is_named(changed, change: Callable[[dict[str, Any]], object], complaint: str) -> None:
    path = changed(change)
    with pytest.raises(BadInput, match=rf"changed\.ckpt: .*{complaint}"):
        load_checkpoint(path)


class Payload:
    """Pickled code that would leave a trace if it ever ran."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for write in (torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))):
        path = tmp_path / "evil.ckpt"
        write({"state_dict": {"model.flow.x": torch.ones(1)}, "callbacks": Payload(trace)}, path)
        with pytest.raises(BadInput, match=r"evil\.ckpt: cannot be read .* holds code, which is never run"):
            load_checkpoint(path)
    assert not trace.exists()


class Command:
    """Pickled code that names no framework's module."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


def test_code_is_named(tmp_path: Path) -> None:
    path = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {"model.flow.x": torch.ones(1)}, "callbacks": Command(tmp_path / "trace")}, path)
    with pytest.raises(BadInput, match=rf"evil\.ckpt: .* is never run \(it names {os.system.__module__}\.system\)"):
        load_checkpoint(path)
    assert not (tmp_path / "trace").exists()


def test_forced_extractor(trained: Path) -> None:
    assert load_checkpoint(trained, "efficientnet_lite0").architecture.extractor == "efficientnet_lite0"
    with pytest.raises(BadInput, match=r"gravel\.ckpt: its extractor is efficientnet_lite0, not resnet18 as asked"):
        load_checkpoint(trained, "resnet18")


def test_what_else_a_checkpoint_says(trained: Path, reference: Path) -> None:
    ours, theirs = load_checkpoint(trained), load_checkpoint(reference / "resnet18_256_s4.ckpt")
    assert (ours.origin, ours.fit, ours.normalization.mean) == ("uflow-edge", None, (0.5, 0.5, 0.5))
    assert (theirs.origin, theirs.fit, theirs.normalization.std) == ("U-Flow authors'", None, (0.229, 0.224, 0.225))
    assert ours.architecture.coupling == theirs.architecture.coupling == Coupling()


def test_networks_do_not_share_weights(trained: Path) -> None:
    checkpoint = load_checkpoint(trained)
    one, other = checkpoint.network(), checkpoint.network()
    next(one.flow.parameters()).data.zero_()
    state = other.state_dict()
    assert all(torch.equal(state[name], value) for name, value in checkpoint.weights.items())
    assert not any(value.is_meta for value in (*other.parameters(), *other.buffers()))


def test_files_that_are_no_checkpoints(trained: Path, tmp_path: Path) -> None:
    whole = trained.read_bytes()
    contents = {
        "truncated.ckpt": whole[: len(whole) // 2],
        "empty.ckpt": b"",
        "text.ckpt": b"hello, I am a checkpoint",
        "flipped.ckpt": whole[:200] + bytes(200) + whole[400:],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInput, match=f"{name}: cannot be read as a checkpoint"):
            load_checkpoint(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(BadInput, match="no state_dict"):
        load_checkpoint(tmp_path / "list.ckpt")
    with pytest.raises(BadInput, match="no such file; expected a checkpoint"):
        load_checkpoint(tmp_path / "absent.ckpt")
    shutil.copy(trained, tmp_path / "whole.ckpt")
    load_checkpoint(tmp_path / "whole.ckpt")


def test_the_depth_of_its_pictures_goes_into_the_bundle(changed) -> None:
    def deepen(content: dict[str, Any]) -> None:
        content["bits"] = 12

    def spoil(content: dict[str, Any]) -> None:
        content["bits"] = 40

    assert load_checkpoint(changed(deepen)).bits == 12
    with pytest.raises(BadInput, match="its bits are 40, expected a number from 8 to 16"):
        load_checkpoint(changed(spoil))

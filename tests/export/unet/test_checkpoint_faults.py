"""UNets as programs save them, wherever their parts lie, and files made to take all memory or time."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from uflow_edge.export.unet.checkpoint import load_unet
from uflow_edge.export.unet.flags import read_flags
from uflow_edge.runtime.errors import BadInput

WEIGHTS = "diffusion_pytorch_model"
SCHEDULER = {"_class_name": "DDPMScheduler", "num_train_timesteps": 1000, "beta_schedule": "linear"}


@pytest.fixture(scope="module")
def saved_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network as diffusers writes it. Read only."""
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("network")
    UNet2DModel(
        sample_size=32,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def weights(saved_network: Path) -> dict[str, Tensor]:
    return load_file(saved_network / f"{WEIGHTS}.safetensors")


@pytest.fixture
def write(saved_network: Path, tmp_path: Path) -> Callable[..., Path]:
    """A folder with the network's configuration, changed, and no weights."""

    def make(folder: Path = tmp_path, **changes: Any) -> Path:
        folder.mkdir(exist_ok=True)
        config = json.loads((saved_network / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
        return folder

    return make


def write_scheduler(folder: Path, **changes: Any) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "scheduler_config.json").write_text(json.dumps({**SCHEDULER, **changes}))


@pytest.mark.parametrize(
    "name", [f"{WEIGHTS}.fp16.safetensors", f"{WEIGHTS}.bf16.safetensors", f"{WEIGHTS}.mine.safetensors"]
)
def test_a_variant_alone_is_taken(write, weights, name: str) -> None:
    folder = write()
    save_file({key: value.half() for key, value in weights.items()}, folder / name)
    assert load_unet(folder).path.name == name


def test_full_precision_goes_before_a_variant_and_two_of_a_kind_are_refused(write, weights) -> None:
    folder = write()
    for name in ("a", "b"):
        save_file(weights, folder / f"{WEIGHTS}.{name}.safetensors")
    with pytest.raises(BadInput, match=f"holds {WEIGHTS}.a.safetensors, {WEIGHTS}.b.safetensors; leave one"):
        load_unet(folder)
    torch.save(weights, folder / f"{WEIGHTS}.fp16.bin")
    assert load_unet(folder).path.name == f"{WEIGHTS}.fp16.bin"
    torch.save(weights, folder / f"{WEIGHTS}.bin")
    assert load_unet(folder).path.name == f"{WEIGHTS}.bin"


def test_shards_are_put_together(write, weights) -> None:
    folder = write()
    names = sorted(weights)
    placed = {name: f"{WEIGHTS}-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(placed.values()):
        save_file({name: weights[name] for name in names if placed[name] == file}, folder / file)
    index = folder / f"{WEIGHTS}.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": placed}))
    found = load_unet(folder)
    assert all(torch.equal(value, weights[name]) for name, value in found.model.state_dict().items())
    index.write_text(json.dumps({"weight_map": {**placed, "x": "../outside.safetensors"}}))
    with pytest.raises(BadInput, match="weight_map is .*expected tensors and the files"):
        load_unet(folder)
    (folder / placed[names[0]]).unlink()
    index.write_text(json.dumps({"weight_map": placed}))
    with pytest.raises(BadInput, match="00001-of-00002.safetensors: no such file"):
        load_unet(folder)


def test_the_averaged_network_of_a_training_run_is_taken(write, weights, tmp_path) -> None:
    write(tmp_path / "unet")
    save_file({name: value + 1 for name, value in weights.items()}, tmp_path / "unet" / f"{WEIGHTS}.safetensors")
    averaged = write(tmp_path / "unet_ema", decay=0.9999, power=0.75, optimization_step=5)
    save_file(weights, averaged / f"{WEIGHTS}.safetensors")
    assert load_unet(tmp_path).path == averaged / f"{WEIGHTS}.safetensors"


def test_sizes_that_the_configuration_leaves_open(write, weights, tmp_path) -> None:
    save_file(weights, tmp_path / f"{WEIGHTS}.safetensors")
    (tmp_path / "a.yaml").write_text("image_size: 64")
    assert load_unet(write(sample_size=None), tmp_path / "a.yaml").image_size == 64
    assert load_unet(write(sample_size=[32, 32])).image_size == 32
    with pytest.raises(BadInput, match="sample_size is None; state image_size"):
        load_unet(write(sample_size=None))


@pytest.mark.parametrize("place", [".", "scheduler", "../scheduler"])
def test_the_scheduler_is_read_wherever_it_lies(write, weights, tmp_path, place: str) -> None:
    folder = write(tmp_path / "network")
    save_file(weights, folder / f"{WEIGHTS}.safetensors")
    write_scheduler(folder / place, beta_schedule="squaredcos_cap_v2", num_train_timesteps=4000)
    assert (load_unet(folder).schedule, load_unet(folder).steps) == ("cosine", 4000)
    for faulty in ({"prediction_type": "v_prediction"}, {"prediction_type": "sample"}, {"trained_betas": [0.1]}):
        write_scheduler(folder / place, **faulty)
        with pytest.raises(BadInput, match=f"scheduler_config.json: {next(iter(faulty))} is "):
            load_unet(folder)


@pytest.mark.parametrize("name", ["DDIM", "PNDM", "EulerDiscrete", "DPMSolverMultistep", "UniPCMultistep"])
def test_every_scheduler_that_means_the_same_is_read(write, weights, name: str) -> None:
    import diffusers

    folder = write()
    save_file(weights, folder / f"{WEIGHTS}.safetensors")
    kind = getattr(diffusers, f"{name}Scheduler")
    kind(beta_start=1e-4, beta_end=0.02).save_pretrained(folder)
    assert (load_unet(folder).schedule, load_unet(folder).steps) == ("linear", 1000)
    kind(beta_start=1e-4, beta_end=0.02, prediction_type="v_prediction").save_pretrained(folder)
    with pytest.raises(BadInput, match="prediction_type is 'v_prediction'"):
        load_unet(folder)


def test_a_scheduler_that_means_something_else_is_refused(write, weights) -> None:
    folder = write()
    save_file(weights, folder / f"{WEIGHTS}.safetensors")
    for name in ("FlowMatchEulerDiscreteScheduler", "EDMEulerScheduler", ["DDPMScheduler"]):
        write_scheduler(folder, _class_name=name)
        with pytest.raises(BadInput, match="_class_name is "):
            load_unet(folder)


def test_a_network_of_latents_is_refused(write, weights, tmp_path) -> None:
    folder = write(tmp_path / "unet")
    save_file(weights, folder / f"{WEIGHTS}.safetensors")
    (tmp_path / "model_index.json").write_text(json.dumps({"vqvae": ["diffusers", "VQModel"]}))
    with pytest.raises(BadInput, match="has a vqvae, so its network works on latents"):
        load_unet(tmp_path)


@pytest.fixture(scope="module")
def state(diffcf_reference: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = torch.load(diffcf_reference / "unet.pt", weights_only=True)
    return found


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: prefixed(s, "_orig_mod."),
        lambda s: prefixed(s, "module._orig_mod."),
        lambda s: {"state_dict": prefixed(s, "unet._orig_mod."), "callbacks": {"best": np.float64(0.5)}},
        lambda s: {"net": prefixed(s, "model.diffusion_model."), "opt": {"lr": 0.1}},
        lambda s: {
            "state_dict": {**prefixed(s, "model.ema_model."), **prefixed(s, "model.online."), "betas": s["out.0.bias"]}
        },
        lambda s: {"unet": {n: v + 1 for n, v in s.items()}, "unet_ema": s},
        lambda s: {"model": {n: v + 1 for n, v in s.items()}, "ema": {"decay": 0.99, "module": s}},
        lambda s: {"ema_0.9999": s, "model": s},
    ],
)
def test_whatever_is_put_around_a_state_dict(state, diffcf_reference, tmp_path, wrap) -> None:
    torch.save(wrap(state), tmp_path / "a.pt")
    found = load_unet(tmp_path / "a.pt", diffcf_reference / "parameters.yaml").model.state_dict()
    assert torch.equal(found["conv_in.weight"], state["input_blocks.0.0.weight"])


def laughs(depth: int = 40) -> str:
    lines = ["image_size: &a0 [1, 1]"] + [f"x{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, depth)]
    return "\n".join(lines) + f"\nchannel_mult: *a{depth - 1}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (laughs(), "is not YAML .*alias"),
        ("image_size: " + "[" * 30_000, "is not YAML"),
        ("image_size: " + "9" * 5000, "is not YAML|image_size cannot be"),
        ("image_size: 2001-99-99", "is not YAML"),
        ("channel_mult: 1,inf", "channel_mult cannot be '1,inf'"),
        ("channel_mult: " + "1," * 1000, "channel_mult cannot be"),
        ("a: " + "x" * 70_000, "has more than 64 KiB"),
    ],
    ids=["laughs", "deep", "digits", "a date", "infinity", "levels", "long"],
)
def test_flags_that_would_cost_more_than_their_length(tmp_path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(BadInput, match=f"a.yaml: {message}"):
        read_flags(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("config.json", "[" * 100_000, "is not JSON"),
        ("config.json", '{"a": ' + "9" * 5000 + "}", "is not JSON"),
        ("config.json", " " * (5 << 20), "has more than 4 MiB"),
        ("scheduler_config.json", json.dumps({"num_train_timesteps": 10**400}), "num_train_timesteps is "),
        ("scheduler_config.json", "[" * 100_000, "is not JSON"),
    ],
    ids=["deep", "digits", "long", "steps", "a deep scheduler"],
)
def test_configurations_that_would_cost_more_than_their_length(write, file: str, text: str, message: str) -> None:
    folder = write()
    (folder / file).write_text(text)
    with pytest.raises(BadInput, match=f"{file}: {message}"):
        load_unet(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"layers_per_block": 1000},
        {"down_block_types": ["DownBlock2D"] * 1000},
        {"block_out_channels": [10**9, 10**9]},
        {"in_channels": 10**400},
        {"sample_size": 1 << 16},
        {"block_out_channels": "wide"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_networks_without_end_are_refused(write, changes: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"config.json: {next(iter(changes))} is "):
        load_unet(write(**changes))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("input_blocks." + "9" * 5000 + ".x", torch.zeros(1), "tensors unexpected"),
        ("out.0.bias", torch.zeros(1).expand(10**6, 10**6), "repeats far too often"),
        ("out.0.bias", torch.zeros(32).to_sparse(), r"out.0.bias \(sparse\)"),
        ("out.0.bias", torch.zeros(32).bool(), r"not floating-point .*out.0.bias \(torch.bool\)"),
        ("out.0.bias", torch.zeros(32, device="meta"), r"out.0.bias \(meta"),
    ],
    ids=["an index", "without end", "sparse", "yes and no", "no data"],
)
def test_tensors_of_every_kind(state, diffcf_reference, tmp_path, name: str, value: Tensor, message: str) -> None:
    torch.save({**state, name: value}, tmp_path / "a.pt")
    with pytest.raises(BadInput, match=f"a.pt: .*{message}"):
        load_unet(tmp_path / "a.pt", diffcf_reference / "parameters.yaml")

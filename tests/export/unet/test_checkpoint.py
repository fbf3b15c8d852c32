"""Diffusion UNets are read whole or refused with a reason, and nothing in them is run."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from uflow_edge.export.unet.checkpoint import UNetCheckpoint, load_unet
from uflow_edge.runtime.errors import BadInput

Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def parameters(diffcf_reference: Path) -> Path:
    return diffcf_reference / "parameters.yaml"


@pytest.fixture(scope="module")
def checkpoint(diffcf_reference: Path, parameters: Path) -> UNetCheckpoint:
    """The authors' layout. Read only."""
    return load_unet(diffcf_reference / "unet.pt", parameters)


@pytest.fixture
def state(diffcf_reference: Path) -> dict[str, Tensor]:
    return torch.load(diffcf_reference / "unet.pt", weights_only=True)


@pytest.fixture(scope="module")
def saved_pipeline(checkpoint: UNetCheckpoint, tmp_path_factory) -> Path:
    """As diffusers itself writes it. Read only."""
    from diffusers import DDPMPipeline, DDPMScheduler

    folder = tmp_path_factory.mktemp("pipeline") / "pipeline"
    scheduler = DDPMScheduler(1000, variance_type="learned_range")
    DDPMPipeline(checkpoint.model, scheduler).save_pretrained(folder)
    return folder


@pytest.fixture
def pipeline(saved_pipeline: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(saved_pipeline, tmp_path / "pipeline"))


def assert_same(found: UNetCheckpoint, expected: UNetCheckpoint) -> None:
    weights = expected.model.state_dict()
    assert found.model.state_dict().keys() == weights.keys()
    for name, value in found.model.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=0)
    for name in ("image_size", "channels", "learned_variance", "schedule", "steps"):
        assert getattr(found, name) == getattr(expected, name)


def edit(file: str, **changes: object) -> Change:
    """Change entries of a JSON file in a folder."""

    def change(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def test_what_a_state_dict_says(checkpoint, diffcf_reference) -> None:
    assert checkpoint.path == diffcf_reference / "unet.pt"
    assert (checkpoint.image_size, checkpoint.channels, checkpoint.learned_variance) == (64, 3, True)
    assert (checkpoint.schedule, checkpoint.steps, checkpoint.origin) == ("linear", 1000, "guided-diffusion's")
    assert not checkpoint.model.training


def test_safetensors_are_the_same(checkpoint, state, parameters, tmp_path) -> None:
    save_file(state, tmp_path / "a.safetensors")
    assert_same(load_unet(tmp_path / "a.safetensors", parameters), checkpoint)


@pytest.mark.parametrize("wrapper", ["ema", "ema_state_dict", "state_dict", "model"])
def test_what_training_programs_put_around_it(checkpoint, state, parameters, tmp_path, wrapper: str) -> None:
    parallel = {f"module.{name}": value for name, value in state.items()}
    torch.save({wrapper: parallel, "step": 5}, tmp_path / "a.pt")
    assert_same(load_unet(tmp_path / "a.pt", parameters), checkpoint)


def test_the_averaged_weights_are_taken(checkpoint, state, parameters, tmp_path) -> None:
    raw = {name: value + 1 for name, value in state.items()}
    torch.save({"state_dict": raw, "ema": state}, tmp_path / "a.pt")
    assert_same(load_unet(tmp_path / "a.pt", parameters), checkpoint)


def test_a_pipeline_folder_and_its_unet(checkpoint, saved_pipeline) -> None:
    for folder in (saved_pipeline, saved_pipeline / "unet"):
        found = load_unet(folder)
        assert_same(found, checkpoint)
        assert found.path == saved_pipeline / "unet" / "diffusion_pytorch_model.safetensors"
        assert found.origin == "diffusers'"


def test_a_folder_computes_what_the_authors_do(saved_pipeline, diffcf_reference) -> None:
    expected = np.load(diffcf_reference / "unet_eval.npz")
    with torch.inference_mode():
        found = load_unet(saved_pipeline).model(torch.from_numpy(expected["x"]), torch.from_numpy(expected["t"])).sample
    error = np.abs(found.numpy() - np.concatenate([expected["eps"], expected["variance_channels"]], 1)).max()
    assert error <= 1e-4 * np.abs(expected["eps"]).max()


def test_old_names_of_attention_and_half_precision(checkpoint, pipeline) -> None:
    path = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    weights = {}
    for name, value in load_file(path).items():
        for new, before in old.items():
            name = name.replace(new, before)
        weights[name] = value.half()
    path.unlink()
    torch.save(weights, path.with_suffix(".bin"))
    found = load_unet(pipeline)
    assert found.path == path.with_suffix(".bin")
    for name, value in found.model.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, checkpoint.model.state_dict()[name].half().float(), rtol=0, atol=0)


def test_the_schedulers_schedule_is_taken(pipeline) -> None:
    edit("scheduler/scheduler_config.json", beta_schedule="squaredcos_cap_v2", num_train_timesteps=4000)(pipeline)
    found = load_unet(pipeline)
    assert (found.schedule, found.steps) == ("cosine", 4000)


def test_a_linear_schedule_of_other_steps_scales(pipeline) -> None:
    scheduler = "scheduler/scheduler_config.json"
    edit(scheduler, num_train_timesteps=500, beta_start=2e-4, beta_end=0.04)(pipeline)
    assert load_unet(pipeline).steps == 500


def test_a_stated_schedule_where_there_is_none_and_where_there_is_another(saved_pipeline, tmp_path) -> None:
    (tmp_path / "a.yaml").write_text("noise_schedule: cosine\ndiffusion_steps: 4000")
    found = load_unet(saved_pipeline / "unet", tmp_path / "a.yaml")
    assert (found.schedule, found.steps) == ("cosine", 4000)
    with pytest.raises(BadInput, match="noise_schedule is stated as cosine, but .*scheduler_config.json says linear"):
        load_unet(saved_pipeline, tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("image_size: 128")
    with pytest.raises(BadInput, match="image_size is stated as 128, but .*config.json says 64"):
        load_unet(saved_pipeline, tmp_path / "a.yaml")


FOLDER_FAULTS: dict[str, tuple[Change, str]] = {
    "another class": (edit("unet/config.json", _class_name="UNet2DConditionModel"), "is of UNet2DConditionModel; only"),
    "an unknown argument": (edit("unet/config.json", colour="red"), "knows no colour"),
    "classes": (edit("unet/config.json", num_class_embeds=10), "num_class_embeds is 10; .*not conditioned on classes"),
    "class embeddings": (edit("unet/config.json", class_embed_type="timestep"), "class_embed_type is 'timestep'"),
    "no size": (edit("unet/config.json", sample_size=None), "sample_size is None"),
    "two sizes": (edit("unet/config.json", sample_size=[64, 32]), r"sample_size is \[64, 32\]"),
    "more read than written": (edit("unet/config.json", in_channels=4), "out_channels is 6"),
    "other times": (edit("unet/config.json", time_embedding_type="fourier"), "time_embedding_type is 'fourier'"),
    "no end of layers": (edit("unet/config.json", layers_per_block=10**9), "layers_per_block is 1000000000"),
    "an unknown block": (
        edit("unet/config.json", down_block_types=["exec"] * 4),
        "diffusers cannot make a network of it .*exec",
    ),
    "another width": (
        edit("unet/config.json", attention_head_dim=8, layers_per_block=2),
        "tensors missing: down_blocks",
    ),
    "not JSON": (lambda f: (f / "unet" / "config.json").write_text("{"), "config.json: is not JSON"),
    "no object": (lambda f: (f / "unet" / "config.json").write_text("[]"), "expected a JSON object, found list"),
    "no configuration": (
        lambda f: (f / "unet" / "config.json").unlink(),
        "config.json: no such file; expected a model",
    ),
    "no weights": (
        lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").unlink(),
        "unet: holds none of diffusion_pytorch_model.safetensors, .*several files are not supported",
    ),
    "weights cut short": (
        lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"0" * 100),
        "is not a safetensors file",
    ),
    "velocity": (edit("scheduler/scheduler_config.json", prediction_type="v_prediction"), "prediction_type is 'v_pred"),
    "another schedule": (
        edit("scheduler/scheduler_config.json", beta_schedule="sigmoid"),
        "beta_schedule is 'sigmoid'",
    ),
    "a schedule that is no name": (
        edit("scheduler/scheduler_config.json", beta_schedule=[1]),
        r"beta_schedule is \[1\]",
    ),
    "no such step": (edit("scheduler/scheduler_config.json", noisiest_step=1000), "noisiest_step is 1000; .*1 to 999"),
    "other ends": (edit("scheduler/scheduler_config.json", beta_end=0.012), "beta_end is 0.012; .*0.0001 to 0.02"),
    "own noise": (edit("scheduler/scheduler_config.json", trained_betas=[0.1]), r"trained_betas is \[0.1\]"),
    "no noise left": (
        edit("scheduler/scheduler_config.json", rescale_betas_zero_snr=True),
        "rescale_betas_zero_snr is",
    ),
    "a fixed variance": (
        edit("scheduler/scheduler_config.json", variance_type="fixed_small"),
        "variance_type is 'fixed",
    ),
    "no number of steps": (
        edit("scheduler/scheduler_config.json", num_train_timesteps="many"),
        "num_train_timesteps is",
    ),
}


@pytest.mark.parametrize("case", FOLDER_FAULTS)
def test_a_faulty_folder_is_refused(pipeline, case: str) -> None:
    damage, message = FOLDER_FAULTS[case]
    damage(pipeline)
    with pytest.raises(BadInput, match=message) as caught:
        load_unet(pipeline)
    assert str(caught.value).startswith(str(pipeline))


def test_an_empty_folder_is_refused(tmp_path) -> None:
    with pytest.raises(BadInput, match="config.json: no such file; expected a model folder of diffusers"):
        load_unet(tmp_path)


class Attack:
    """Touches a file when it is unpickled the careless way."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("writer", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o))], ids=["torch", "pickle"])
def test_code_is_never_run(state, tmp_path, writer) -> None:
    trap = tmp_path / "touched"
    writer({**state, "x": Attack(trap)}, tmp_path / "a.pt")
    with pytest.raises(BadInput, match="a.pt: cannot be read as a state dict .* holds code, which is never run"):
        load_unet(tmp_path / "a.pt")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"conv_in.weight": torch.zeros(1)}, "is of diffusers; give the folder that holds it"),
        ({"flow.weight": torch.zeros(1)}, "has no input_blocks, so it is not a state dict of guided-diffusion"),
        ({}, "holds no state dict"),
        ([torch.zeros(1)], "holds no state dict"),
        ({"input_blocks.0.0.weight": torch.zeros(1), "epoch": 5}, "holds no state dict"),
        ({"input_blocks.0.0.weight": torch.zeros(1)}, "has no output_blocks, so it is a classifier"),
    ],
    ids=["of diffusers", "of U-Flow", "empty", "a list", "more than tensors", "one tensor"],
)
def test_files_of_other_things_are_refused(tmp_path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(BadInput, match=f"a.pt: {message}"):
        load_unet(tmp_path / "a.pt")


def test_no_file(tmp_path) -> None:
    with pytest.raises(BadInput, match="no.pt: no such file; expected a state dict"):
        load_unet(tmp_path / "no.pt")


def test_a_file_cut_short(diffcf_reference, tmp_path) -> None:
    (tmp_path / "a.pt").write_bytes((diffcf_reference / "unet.pt").read_bytes()[:-1000])
    with pytest.raises(BadInput, match="a.pt: cannot be read as a state dict .* truncated"):
        load_unet(tmp_path / "a.pt")

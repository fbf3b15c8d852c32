"""Training a small diffusion UNet: it learns to see noise, repeats itself, and survives interruption."""

import json
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from uflow_edge.export.unet.bundle import UNetExportOptions, export_unet_bundle
from uflow_edge.runtime.diffusion.options import PurifyOptions
from uflow_edge.runtime.diffusion.purifier import Purifier
from uflow_edge.runtime.engines.selection import open_engine
from uflow_edge.runtime.errors import BadInput, UsageError
from uflow_edge.training.diffusion import DiffusionFit, train_unet
from uflow_edge.training.diffusion_command import main
from uflow_edge.training.diffusion_network import alphas_cumprod, noised
from uflow_edge.training.diffusion_options import DiffusionOptions
from uflow_edge.training.diffusion_patches import Patches, read_images
from uflow_edge.training.progress import Progress

pytestmark = pytest.mark.long

SMALL = DiffusionOptions(image_size=16, channels=(8, 16), steps=24, batch_size=8, report_every=8, seed=5)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks as small as these only wait for each other's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four parts of a photograph."""
    from skimage import data

    folder = tmp_path_factory.mktemp("photographs")
    coffee = data.coffee()
    for i in range(4):
        Image.fromarray(coffee[150:250, 100 * i : 100 * i + 100]).save(folder / f"{i}.png")
    return folder


def trained(data: Path, out: Path, options: DiffusionOptions = SMALL, **arguments) -> DiffusionFit:
    return train_unet(data, options, out, **arguments)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module")
def undisturbed(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DiffusionFit]:
    out = tmp_path_factory.mktemp("undisturbed") / "unet"
    return out, trained(photographs, out)


def test_a_tiny_network_learns(photographs: Path, tmp_path: Path) -> None:
    options = DiffusionOptions(image_size=16, channels=(16, 16), steps=120, batch_size=8, report_every=60, seed=5)
    fit = trained(photographs, tmp_path / "unet", options)
    assert len(fit.held_out) == 2
    assert fit.held_out[-1] < fit.held_out[0] < 1  # predicting no noise costs 1
    assert fit.denoising.step == 40
    assert fit.denoising.network > fit.denoising.noisy + 3


def test_diffusers_reads_what_was_written(undisturbed) -> None:
    from diffusers import DDPMScheduler, UNet2DModel

    out, fit = undisturbed
    assert fit.steps == 24 and len(fit.held_out) == 3
    model = UNet2DModel.from_pretrained(out / "unet")
    assert model.config.sample_size == 16 and model.config.out_channels == 3
    assert same(model.state_dict(), weights(out))
    scheduler = DDPMScheduler.from_pretrained(out / "scheduler")
    assert scheduler.config.beta_schedule == "linear" and scheduler.config.variance_type == "fixed_small"
    assert json.loads((out / "scheduler" / "scheduler_config.json").read_text())["num_train_timesteps"] == 1000
    assert not out.with_name("unet.resume").exists()


def test_how_far_it_has_learned_goes_with_it_to_the_purifier(undisturbed, tmp_path: Path) -> None:
    folder, *_ = undisturbed
    bundle = export_unet_bundle(folder, tmp_path / "a.uflow", options=UNetExportOptions(precisions=("fp32",))).bundle
    assert bundle.manifest.noisiest_step == SMALL.noisiest_step
    with (
        closing(open_engine(bundle, "onnxruntime")) as engine,
        pytest.raises(UsageError, match=f"learned steps 1 to {SMALL.noisiest_step}"),
    ):
        Purifier.of(engine.run, bundle.manifest, PurifyOptions(steps=SMALL.noisiest_step + 1))


def test_same_seed_same_weights_other_seed_others(undisturbed, photographs: Path, tmp_path: Path) -> None:
    trained(photographs, tmp_path / "again")
    assert same(weights(tmp_path / "again"), weights(undisturbed[0]))
    other = DiffusionOptions(image_size=16, channels=(8, 16), steps=24, batch_size=8, report_every=8, seed=6)
    trained(photographs, tmp_path / "other", other)
    assert not same(weights(tmp_path / "other"), weights(undisturbed[0]))


@pytest.mark.parametrize("stop_after", [1, 8])
def test_an_interrupted_run_ends_with_the_same_weights(
    undisturbed, photographs: Path, tmp_path: Path, stop_after: int
) -> None:
    out = tmp_path / "unet"

    def interrupt(progress: Progress) -> None:
        if progress.step == stop_after:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trained(photographs, out, on_step=interrupt)
    assert not out.exists()
    seen: list[int] = []
    fit = trained(photographs, out, on_step=lambda progress: seen.append(progress.step))
    assert seen[0] == stop_after + 1
    assert same(weights(out), weights(undisturbed[0]))
    assert fit == undisturbed[1]


def test_a_killed_run_goes_on_from_the_last_look(undisturbed, photographs: Path, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(progress: Progress) -> None:
        if progress.step == 13:
            raise Killed

    with pytest.raises(Killed):
        trained(photographs, tmp_path / "unet", on_step=kill)
    seen: list[int] = []
    trained(photographs, tmp_path / "unet", on_step=lambda progress: seen.append(progress.step))
    assert seen[0] == 9
    assert same(weights(tmp_path / "unet"), weights(undisturbed[0]))


def test_the_state_of_another_run_is_refused_or_forgotten(photographs: Path, tmp_path: Path) -> None:
    resume_file = tmp_path / "unet.resume"

    def interrupt(progress: Progress) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trained(photographs, tmp_path / "unet", on_step=interrupt)
    other = DiffusionOptions(image_size=16, channels=(8, 16), steps=24, batch_size=4, report_every=8, seed=5)
    with pytest.raises(BadInput, match=r"differs: batch size 8 there, 4 here\. .* --restart"):
        trained(photographs, tmp_path / "unet", other)
    content = torch.load(resume_file, weights_only=True)
    torch.save({name: value for name, value in content.items() if name != "average"}, resume_file)
    with pytest.raises(BadInput, match=r"cannot be read as the state of .* --restart"):
        trained(photographs, tmp_path / "unet")
    resume_file.write_bytes(b"damaged")
    with pytest.raises(BadInput, match=r"cannot be read as the state of .* --restart"):
        trained(photographs, tmp_path / "unet")
    assert trained(photographs, tmp_path / "unet", restart=True).steps == 24


def test_a_diverging_run_says_so(photographs: Path, tmp_path: Path) -> None:
    options = DiffusionOptions(image_size=16, channels=(8, 16), steps=60, batch_size=4, learning_rate=1e30)
    with pytest.raises(BadInput, match="no longer finite .* lower the learning rate"):
        trained(photographs, tmp_path / "unet", options)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"learning_rate": 0.0},
        {"channels": ()},
        {"channels": (12, 16)},
        {"image_size": 18},
        {"noisiest_step": 1000},
        {"average": 1.0},
    ],
    ids=str,
)
def test_options_that_cannot_be_meant(wrong: dict) -> None:
    with pytest.raises(UsageError, match="expected"):
        DiffusionOptions(**wrong)


def test_noised_patches_have_the_variance_of_their_step() -> None:
    random = np.random.default_rng(0)
    steps = torch.tensor([0, 40, 999])
    noisy, noise = noised(torch.zeros(3, 3, 64, 64), steps, random)
    expected = np.sqrt(1 - np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))[[0, 40, 999]]
    assert noisy.std(dim=(1, 2, 3)).numpy() == pytest.approx(expected, rel=0.02)
    assert noise.std(dim=(1, 2, 3)).numpy() == pytest.approx(1, rel=0.02)
    assert alphas_cumprod()[[0, 40, 999]] == pytest.approx(1 - expected**2, rel=1e-3)


def test_patches_are_parts_of_the_images_and_follow_the_generator(photographs: Path) -> None:
    paths = sorted(photographs.iterdir())
    patches = Patches(read_images(paths, 16), 16)
    drawn = patches.draw(6, np.random.default_rng(1))
    assert drawn.shape == (6, 3, 16, 16) and drawn.dtype == np.float32
    assert np.array_equal(drawn, patches.draw(6, np.random.default_rng(1)))
    image = np.asarray(Image.open(paths[0]), np.int64)
    for patch in Patches(read_images(paths[:1], 16), 16).draw(6, np.random.default_rng(2)):
        pixels = np.rint((patch.transpose(1, 2, 0) + 1) * 127.5).astype(np.int64)
        turned = [np.rot90(mirrored, turns) for mirrored in (pixels, pixels[:, ::-1]) for turns in range(4)]
        windows = np.lib.stride_tricks.sliding_window_view(image, (16, 16), axis=(0, 1)).transpose(0, 1, 3, 4, 2)
        assert any((windows == candidate).all(axis=(2, 3, 4)).any() for candidate in turned)


def test_command(photographs: Path, tmp_path: Path, exit_code, capsys) -> None:
    out = tmp_path / "unet"
    arguments = ["--data", photographs, "--out", out, "--image-size", 16, "--steps", 4, "--batch", 2]
    assert exit_code(main, *arguments, "--channels", 8, 16) == 0
    printed = capsys.readouterr().out
    assert "3 images to fit, 1 held out" in printed
    assert "dB with the best Gaussian filter" in printed
    assert f"next: uflow-export --unet {out}" in printed
    for code, extra, message in (
        (3, ["--data", tmp_path / "absent"], "no such folder"),
        (2, ["--channels", 12], "multiple of 8"),
        (2, ["--learning-rate", 0], "argument --learning-rate: expected a number above 0, got 0"),
        (2, ["--steps", 0], "1 or more"),
        (3, ["--image-size", 128], "3.png: 100 x 100 pixels; expected at least the size of a patch"),
        (3, [], "exists already; choose another --out, or replace it with --overwrite"),
    ):
        overwrite = ["--overwrite"] if extra else []
        assert exit_code(main, *arguments, *overwrite, *extra) == code, extra
        assert message in capsys.readouterr().err

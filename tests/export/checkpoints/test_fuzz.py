"""Thousands of seeded mutations of checkpoints: each is read, or refused in one line."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from uflow_edge.export.checkpoints.checkpoint import load_checkpoint
from uflow_edge.export.checkpoints.tensors import load_tensors
from uflow_edge.export.unet.checkpoint import load_unet
from uflow_edge.runtime.errors import BadInput

ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**30, float("nan"), float("inf"), "", "x" * 10_000, b"\0", "\x1b[31m\n"),
    *([], {}, (), [[]], {"a": {}}, {1: 2}, [1] * 1000, ["resnet18"], np.float64(1), np.zeros(3), Path("a")),
    *(torch.zeros(0), torch.ones(3, 3), torch.zeros(1).expand(1000, 1000), torch.zeros(2, dtype=torch.complex64)),
)
COUNTS = [pytest.param(1, id="few"), pytest.param(20, id="many", marks=pytest.mark.slow)]


def is_refused(load: Callable[[], object]) -> bool:
    """Whether a file is refused, in one short line that steers no terminal."""
    try:
        load()
    except BadInput as error:
        assert str(error).isprintable()
        assert len(str(error)) < 2000
        return True
    return False


def mutated(value: Any, random: Random) -> Any:
    """The same value with one thing in it exchanged, taken away or added, somewhere."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = random.choice(list(value))
        kind = random.random()
        if kind < 0.7:
            return {**value, key: mutated(value[key], random)}
        if kind < 0.8:
            return {name: inner for name, inner in value.items() if name != key}
        return {**value, random.choice([f"{key}x", f"module.{key}", 5, (1,), ""]): random.choice(ODD)}
    if isinstance(value, list) and value and random.random() < 0.7:
        at = random.randrange(len(value))
        return [*value[:at], mutated(value[at], random), *value[at + 1 :]]
    return random.choice(ODD)


def with_other_bytes(data: bytes, random: Random) -> bytes:
    found = bytearray(data)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(found))
        kind = random.random()
        if kind < 0.5:
            found[at] = random.randrange(256)
        elif kind < 0.75:
            del found[at : at + random.randint(1, 9)]
        else:
            found[at:at] = random.randbytes(random.randint(1, 9))
    return bytes(found) or b"\0"


@pytest.mark.parametrize("times", COUNTS)
@pytest.mark.parametrize("new", [True, False], ids=["zip", "old format"])
def test_bytes_of_pickles(tmp_path: Path, times: int, new: bool) -> None:
    content = {
        "state_dict": {"flow.a": torch.ones(3), "b": torch.zeros(2, 2).half()},
        "n": np.float64(1),
        "p": Path("a"),
    }
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=new)
    random, path, refused = Random(0), tmp_path / "a.ckpt", 0
    for _ in range(400 * times):
        if new:
            with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w") as archive:
                for name in old.namelist():
                    data = old.read(name)
                    archive.writestr(name, with_other_bytes(data, random) if name.endswith("data.pkl") else data)
        else:
            path.write_bytes(with_other_bytes(buffer.getvalue(), random))
        refused += is_refused(lambda: load_tensors(path, "a test", inert=True))
    assert refused > 100 * times


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("times", COUNTS)
def test_values_in_a_checkpoint(trained: Path, tmp_path: Path, times: int) -> None:
    content = torch.load(trained, weights_only=True)
    random, refused = Random(1), 0
    for _ in range(15 * times):
        torch.save(mutated(content, random), tmp_path / "a.ckpt")
        refused += is_refused(lambda: load_checkpoint(tmp_path / "a.ckpt"))
    assert refused > 3 * times


@pytest.mark.parametrize("times", COUNTS)
def test_values_in_a_folder_of_diffusers(tmp_path: Path, times: int) -> None:
    from diffusers import DDPMScheduler, UNet2DModel

    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    network = UNet2DModel(sample_size=32, block_out_channels=(32, 32), layers_per_block=1, **blocks)
    network.save_pretrained(tmp_path)
    DDPMScheduler().save_pretrained(tmp_path)
    random, refused = Random(2), 0
    for name in ("config.json", "scheduler_config.json"):
        whole = (tmp_path / name).read_text()
        for _ in range(15 * times):
            changed = json.dumps(mutated(json.loads(whole), random), default=str, skipkeys=True)
            (tmp_path / name).write_text(
                changed if random.random() < 0.8 else changed[: random.randrange(len(changed))]
            )
            refused += is_refused(lambda: load_unet(tmp_path))
        (tmp_path / name).write_text(whole)
    assert refused > 10 * times

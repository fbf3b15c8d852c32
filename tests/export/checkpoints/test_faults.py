"""Files that were made or damaged to take all memory, all time, or to pass for something else: one line each."""

import argparse
import datetime
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from uflow_edge.export.checkpoints.checkpoint import Checkpoint, load_checkpoint
from uflow_edge.export.checkpoints.tensors import load_tensors
from uflow_edge.runtime.errors import BadInput

pytestmark = pytest.mark.long

Content = dict[str, Any]
BIAS = "model.flow.module_list.0.subnet.0.bias"
PERMUTATION = "model.flow.module_list.0.w_perm"


@pytest.fixture(scope="module")
def whole(trained: Path) -> Checkpoint:
    return load_checkpoint(trained)


@pytest.fixture
def content(trained: Path) -> Content:
    found: Content = torch.load(trained, weights_only=True)
    return found


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    def write(content: Any, **options: Any) -> Path:
        torch.save(content, tmp_path / "a.ckpt", **options)
        return tmp_path / "a.ckpt"

    return write


def assert_same(found: Checkpoint, expected: Checkpoint) -> None:
    assert found.architecture == expected.architecture
    assert found.weights.keys() == expected.weights.keys()
    assert all(torch.equal(found.weights[name], value) for name, value in expected.weights.items())


def repeated(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(1, dtype=dtype).expand(shape)


def laughs(depth: int = 60) -> list[Any]:
    """Lists that hold one another twice: 2^60 in all."""
    found: list[Any] = ["ha"]
    for _ in range(depth):
        found = [found, found]
    return found


def weight(name: str, value: Any) -> Callable[[Content], object]:
    return lambda content: content["state_dict"].update({name: value})


def stated(**values: Any) -> Callable[[Content], object]:
    return lambda content: content["hyper_parameters"].update(values)


def bias_as(dtype: torch.dtype) -> Callable[[Content], object]:
    return lambda content: content["state_dict"].update({BIAS: content["state_dict"][BIAS].to(dtype)})


def sparse(content: Content) -> None:
    content["state_dict"][BIAS] = content["state_dict"][BIAS].to_sparse()


def quantised(content: Content) -> None:
    content["state_dict"][BIAS] = torch.quantize_per_tensor(content["state_dict"][BIAS], 0.1, 0, torch.qint8)


ATTACKS: dict[str, tuple[Callable[[Content], object], str]] = {
    "a permutation without end": (weight(PERMUTATION, repeated((10**9,), torch.int64)), "repeats far too often"),
    "a permutation of another size": (weight(PERMUTATION, torch.arange(200_000)), "neither a permutation nor a rot"),
    "a matrix without end": (weight(PERMUTATION, repeated((60_000, 60_000))), "repeats far too often"),
    "a weight without end": (weight(BIAS, repeated((10**6, 10**6))), "repeats far too often"),
    "a large weight of another shape": (weight(BIAS, repeated((10**8,))), r"of another shape .*\(100000000,\)"),
    "one of another name": (weight("model.flow.x", repeated((10**6, 10**6))), "repeats far too often"),
    "pictures without end": (
        lambda c: c.update(pictures=repeated((10**9, 64, 64, 3), torch.uint8)),
        "repeats far too often",
    ),
    "too many pictures": (lambda c: c.update(pictures=repeated((300, 64, 64, 3), torch.uint8)), "carries 300 pictures"),
    "laughs": (stated(taps=laughs()), "do not describe a U-Flow"),
    "laughs for a name": (stated(extractor=laughs()), "unknown extractor"),
    "laughs for a formula": (stated(coupling={"formula": laughs()}), "coupling formula"),
    "a name without end": (stated(extractor="x" * 5_000_000), "unknown extractor 'xxx"),
    "flow steps without end": (stated(flow_steps=10**6), "flow steps 1000000: expected .* at most 64"),
    "a window without end": (stated(pooling=999_999_999), "pooling 999999999: expected at most 16"),
    "an infinite size": (stated(input_size=float("inf")), "do not describe a U-Flow: OverflowError"),
    "an endless size": (stated(input_size=16 * 10**400), "a.ckpt: "),
    "taps without end": (stated(taps=[2] * 100_000), "taps .*: expected consecutive"),
    "names that are no text": (lambda c: c["state_dict"].update({5: torch.zeros(1)}), "no state_dict of tensors"),
    "hyper-parameters that are a tensor": (lambda c: c.update(hyper_parameters=torch.ones(3)), "not a dictionary"),
    "an upsampling without a number": (
        lambda c: (c.pop("hyper_parameters"), weight("model.flow.module_list.x.downsample_kernel", torch.ones(1))(c)),
        "its extractor is none of those",
    ),
    "yes and no": (bias_as(torch.bool), r"not floating-point numbers .*bias \(torch.bool\)"),
    "bytes": (bias_as(torch.int8), r"not floating-point .*bias \(torch.int8\)"),
    "complex numbers": (bias_as(torch.complex64), r"not floating-point .*bias \(torch.complex64\)"),
    "eight bits": (bias_as(torch.float8_e4m3fn), r"not floating-point .*bias \(torch.float8_e4m3fn\)"),
    "sparse": (sparse, r"no plain arrays of numbers: .*bias \(sparse\)"),
    "quantised": (quantised, r"no plain arrays of numbers: .*bias \(quantised\)"),
    "no data": (weight(BIAS, torch.zeros(3, device="meta")), r"no plain arrays of numbers: .*bias \(meta"),
    "too large for float32": (weight(BIAS, torch.full((112,), 1e300, dtype=torch.float64)), "not finite|another shape"),
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("case", ATTACKS)
def test_an_attack_is_refused_before_it_costs_anything(content, saved, case: str) -> None:
    change, message = ATTACKS[case]
    change(content)
    path = saved(content)
    tracemalloc.start()
    try:
        with pytest.raises(BadInput, match=message) as caught:
            load_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 3 * path.stat().st_size + (20 << 20)
    finally:
        tracemalloc.stop()
    text = str(caught.value)
    assert text.startswith(str(path))
    assert len(text) < 1500
    assert "\n" not in text


def rewritten(path: Path, change: Callable[[zipfile.ZipInfo, bytes], bytes], method: int = zipfile.ZIP_STORED) -> Path:
    """The same zip file with other bytes in its parts."""
    new = path.with_name("new.ckpt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(new, "w") as archive:
        for member in old.infolist():
            archive.writestr(member.filename, change(member, old.read(member)), method)
    return new


def test_compressed_parts_are_refused(content, saved) -> None:
    path = rewritten(saved(content), lambda member, data: data, zipfile.ZIP_DEFLATED)
    with pytest.raises(BadInput, match="new.ckpt: .*parts of it are compressed"):
        load_checkpoint(path)


def test_one_flipped_byte_of_a_weight_is_noticed(trained: Path, tmp_path: Path) -> None:
    data = bytearray(trained.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "a.ckpt").write_bytes(data)
    with pytest.raises(BadInput, match="a.ckpt: cannot be read .*CRC"):
        load_checkpoint(tmp_path / "a.ckpt")


def test_storages_are_as_large_as_they_claim(content, saved) -> None:
    cut = rewritten(saved(content), lambda member, data: data[:-4] if "/data/" in member.filename else data)
    with pytest.raises(BadInput, match=r"its storage '\d+' claims \d+ bytes and has"):
        load_checkpoint(cut)


class Storage:
    """A pickled reference to a storage of 10^12 numbers."""


def test_a_file_of_the_old_format_claims_no_more_than_it_has(tmp_path: Path) -> None:
    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", 10**12, None) if isinstance(value, Storage) else None

    with (tmp_path / "a.ckpt").open("wb") as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(part, file, 2)
        Pickler(file, 2).dump({"state_dict": Storage()})
        pickle.dump(["0"], file, 2)
        file.write(struct.pack("<q", 10**12))
    with pytest.raises(BadInput, match="claims 4000000000000 bytes, more than the file has"):
        load_tensors(tmp_path / "a.ckpt", "a test")


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.", "not a PyTorch file"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.", "cannot be read"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "not a PyTorch file"),
        (b"\x80\x02" + b"]" * 1_600_000, "more than 1500000 steps"),
        (b"\x80\x02}((K\x01tK\x01s.", "cannot be read"),
        (b"\x80\x02})K\x01s.", "has a tuple for a key"),
        (b"\x80\x02}\x8a\x09" + bytes(8) + b"\x01K\x01s.", "more than 60 bits for a key"),
        (b"", "cannot be read"),
    ],
    ids=["bytes made by a call", "bytes announced", "a far memo", "steps", "no mark", "a tuple", "a number", "nothing"],
)
def test_pickles_that_cost_more_than_their_length(tmp_path: Path, steps: bytes, message: str) -> None:
    (tmp_path / "a.ckpt").write_bytes(steps)
    with pytest.raises(BadInput, match=message):
        load_tensors(tmp_path / "a.ckpt", "a test", inert=True)


HARMLESS: dict[str, Any] = {
    "numbers": {"best": np.float64(0.5), "step": np.int64(3), "ok": np.bool_(True), "f": np.float32(1)},
    "arrays": {
        "history": np.zeros(3),
        "names": np.array(["a"]),
        "none": np.zeros((0, 2)),
        "when": np.datetime64("now"),
    },
    "times": {"started": datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc), "took": datetime.timedelta(1)},
    "places": {"root": Path("/data"), "all": OrderedDict(a=Path("b"))},
    "dictionaries": {"counts": defaultdict(int, a=1), "sets": {1, 2}, "frozen": frozenset({3})},
    "options": {"args": argparse.Namespace(lr=0.1), "more": SimpleNamespace(a=1), "type": np.dtype("f4")},
    "types": {"dtype": torch.float16, "size": torch.Size([1]), "device": torch.device("cpu"), "kind": int},
}


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("case", HARMLESS)
def test_what_lies_beside_the_weights_does_no_harm(content, saved, whole, case: str, protocol: int) -> None:
    content["callbacks"] = HARMLESS[case]
    content["hyper_parameters"].update(HARMLESS[case])
    assert_same(load_checkpoint(saved(content, pickle_protocol=protocol)), whole)


def test_hyper_parameters_may_be_numpy_numbers_in_a_namespace(content, saved, whole) -> None:
    values = content["hyper_parameters"]
    content["hyper_parameters"] = argparse.Namespace(
        **{**values, "flow_steps": np.int64(values["flow_steps"]), "input_size": np.float32(64)}
    )
    assert_same(load_checkpoint(saved(content)), whole)


def test_the_old_format_is_the_same(content, saved, whole) -> None:
    assert_same(load_checkpoint(saved(content, _use_new_zipfile_serialization=False)), whole)


def renamed(content: Content, old: str, new: str) -> dict[str, torch.Tensor]:
    return {name.replace(old, new, 1): value for name, value in content["state_dict"].items()}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("model.", "_orig_mod.model."),
        ("model.", "module.model._orig_mod."),
        ("model.flow.", "model.flow._orig_mod."),
        ("model.", "net."),
        ("model.", ""),
    ],
)
def test_prefixes_of_compiled_and_parallel_training(content, saved, whole, old: str, new: str) -> None:
    content["state_dict"] = renamed(content, old, new)
    assert_same(load_checkpoint(saved(content)), whole)


def test_the_averaged_copy_is_taken(content, saved, whole) -> None:
    averaged = renamed(content, "model.", "ema_model.module.")
    raw = {name: value + 1 if value.is_floating_point() else value for name, value in content["state_dict"].items()}
    content["state_dict"] = {**raw, **averaged}
    assert_same(load_checkpoint(saved(content)), whole)


def test_two_networks_are_one_too_many(content, saved) -> None:
    content["state_dict"] |= {name.replace("model.", "teacher."): v for name, v in content["state_dict"].items()}
    content["state_dict"] = renamed(content, "model.", "student.")
    with pytest.raises(BadInput, match=r"holds several networks: .*state_dict\.teacher"):
        load_checkpoint(saved(content))

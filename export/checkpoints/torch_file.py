"""Reads both formats of ``torch.save`` without ``torch.load``.

``torch.load`` trusts the sizes that a file states, unpacks compressed parts and checks no checksum. Here all storages
together have at most as many bytes as the file, and all tensors at most `_MOST_REPEATED` more.
"""

import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from uflow_edge.export.checkpoints.inert import Inert
from uflow_edge.export.checkpoints.pickles import NotData, as_dict, read_pickle
from uflow_edge.export.wording import brief

_LARGEST_PICKLE = 64 << 20  # bytes; those of networks are below one million
_MOST_AXES = 16
_MOST_REPEATED = 2 << 30  # bytes of tensors beyond those of their file: expanded ones repeat a few numbers
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the format before 2020
_KINDS = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Byte": torch.uint8,
    "Char": torch.int8,
    "Short": torch.int16,
    "Int": torch.int32,
    "Long": torch.int64,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "Untyped": torch.uint8,
}
_DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
_SCALARS = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"})
_REBUILD = "torch._utils._rebuild_"


def read_torch_file(path: Path, allowed: Callable[[str], bool]) -> Any:
    """Read the content of a file with its tensors.

    Tensors that are not plain arrays of numbers are returned as `Inert`.

    Args:
        allowed: whether the file may contain a name of a class or function.

    Raises:
        NotData: the file is of another kind, claims more than it has, or holds something that is not allowed.
        Exception: of any type, if the file is damaged.
    """
    with path.open("rb") as file:
        return _read_zip(file, allowed) if zipfile.is_zipfile(file) else _read_legacy(file, allowed)


@dataclass(frozen=True, slots=True, eq=False)
class _Storage:
    """A sequence of numbers; tensors are views of it."""

    dtype: torch.dtype
    numbers: int
    data: torch.UntypedStorage


@dataclass(slots=True)
class _Contents:
    """Storages and tensors of one file; together, storages may not claim more bytes than the file has.

    Attributes:
        left: bytes of the file that no storage has claimed.
        left_to_claim: bytes that tensors may still have, counting shared numbers each time.
        allowed: whether the pickle may contain a name.
        fill: writes a storage's bytes into an array, given its key.
        made: storages by their keys.
    """

    left: int
    left_to_claim: int
    allowed: Callable[[str], bool]
    fill: Callable[[str, np.ndarray], None] = lambda key, data: None
    made: dict[str, _Storage | Inert] = field(default_factory=dict)

    def read(self, pickle: BinaryIO) -> Any:
        return read_pickle(pickle, self.construct, self.persistent, self.allowed)

    def persistent(self, identity: Any) -> Any:
        """The storage that a pickle refers to by ('storage', kind, key, device, numbers)."""
        if isinstance(identity, tuple) and identity[:1] == ("module",) and len(identity) > 1:
            return identity[1]  # a class with its source, before 2020
        _, kind, key, _, numbers, *view = identity
        if not (isinstance(kind, Inert) and isinstance(key, str) and type(numbers) is int) or view not in ([], [None]):
            raise NotData(f"its storage {brief(identity)} is none of PyTorch's")
        if key not in self.made:
            self.made[key] = self._make(kind.original, key, numbers)
        return self.made[key]

    def _make(self, kind: str, key: str, numbers: int) -> "_Storage | Inert":
        dtype = _KINDS.get(kind.rpartition(".")[2].removesuffix("Storage"))
        if dtype is None:
            return Inert(kind)
        size = numbers * dtype.itemsize
        self.left -= size
        if numbers < 0 or self.left < 0:
            raise NotData(f"its storage {brief(key)} claims {size} bytes, more than the file has")
        data = torch.UntypedStorage(size)
        if size:
            self.fill(key, _array(data))
        return _Storage(dtype, numbers, data)

    def construct(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """The value that replaces a call in a pickle."""
        if name.startswith("torch._utils._rebuild_parameter"):
            return arguments[0]
        if name == "torch._tensor._rebuild_from_type_v2":  # a tensor of another class, or with attributes
            function, _, arguments, _ = arguments
            return self.construct(function.original, arguments)
        if name in (f"{_REBUILD}tensor", f"{_REBUILD}tensor_v2", f"{_REBUILD}tensor_v3"):
            storage, offset, size, stride, *rest = arguments
            # The third version is for types that have no kind of storage of their own.
            return self.tensor(storage, offset, size, stride, _DTYPES[rest[2].original] if name.endswith("3") else None)
        if name in ("collections.OrderedDict", "collections.Counter") or name.endswith(".AttributeDict"):
            return as_dict(arguments[0]) if arguments else {}
        if name == "collections.defaultdict":
            return {}
        if name == "_codecs.encode":  # of bytes, in pickles that Python 2 can read
            return arguments[0].encode("latin1")
        if name == "torch.Size":
            return tuple(arguments[0])
        if name.startswith("numpy.") and name.endswith(".multiarray.scalar"):
            return _number(*arguments)
        return Inert(name, arguments)

    def tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None = None
    ) -> "Tensor | Inert":
        if not isinstance(storage, _Storage):
            return Inert(f"{_REBUILD}qtensor" if isinstance(storage, Inert) else f"{_REBUILD}tensor")
        if not all(type(value) is int and value >= 0 for value in (offset, *size, *stride)) or len(size) > _MOST_AXES:
            raise NotData(f"its tensor of shape {brief(size)} and strides {brief(stride)} cannot be")
        dtype = dtype or storage.dtype
        self.left_to_claim -= math.prod(size) * dtype.itemsize
        if self.left_to_claim < 0:
            raise NotData(f"its tensor of shape {brief(size)} repeats far too often the numbers that the file holds")
        tensor: Tensor = torch.empty(0, dtype=dtype)
        return tensor.set_(storage.data, offset, size, stride)


def _array(data: torch.UntypedStorage) -> np.ndarray:
    return torch.empty(0, dtype=torch.uint8).set_(data).numpy()


def _read_zip(file: BinaryIO, allowed: Callable[[str], bool]) -> Any:
    size = file.seek(0, 2)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise NotData("parts of it are compressed, as PyTorch never does")
        if sum(member.file_size for member in members) > size or len({m.filename for m in members}) < len(members):
            raise NotData("its parts overlap, or are larger than the file")
        roots = [m.filename.removesuffix("data.pkl") for m in members if m.filename.endswith("/data.pkl")]
        if len(roots) != 1:
            raise NotData("it is a zip file, but not of PyTorch: it has no data.pkl")
        (root,) = roots
        if f"{root}constants.pkl" in archive.namelist():
            raise NotData("it is a TorchScript program, not a file of weights")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise NotData("its numbers are big-endian")
        if archive.getinfo(f"{root}data.pkl").file_size > _LARGEST_PICKLE:
            raise NotData(f"its data.pkl has more than {_LARGEST_PICKLE >> 20} MiB, which no network needs")

        def fill(key: str, data: np.ndarray) -> None:
            stored = archive.getinfo(f"{root}data/{key}")
            if stored.file_size != len(data):
                raise NotData(f"its storage {brief(key)} claims {len(data)} bytes and has {stored.file_size}")
            with archive.open(stored) as source:  # which holds it against its checksum
                _fill(source, data)

        return _Contents(size, size + _MOST_REPEATED, allowed, fill).read(BytesIO(archive.read(f"{root}data.pkl")))


def _read_legacy(file: BinaryIO, allowed: Callable[[str], bool]) -> Any:
    """Five pickles (magic number, version, machine, content, keys of the storages), then the storages."""
    size = file.seek(0, 2)
    file.seek(0)
    contents = _Contents(size, size + _MOST_REPEATED, allowed)
    if contents.read(file) != _MAGIC or contents.read(file) != _PROTOCOL or not contents.read(file)["little_endian"]:
        raise NotData("it is not a PyTorch file, or holds code, which is never run")
    content = contents.read(file)
    for key in contents.read(file):
        storage = contents.made[key]
        numbers = int.from_bytes(file.read(8), "little")
        if isinstance(storage, Inert) or numbers != storage.numbers:
            raise NotData(f"its storage {brief(key)} has {numbers} numbers, not as many as it claims")
        _fill(file, _array(storage.data))
    return content


def _fill(source: Any, data: np.ndarray) -> None:
    left = memoryview(data)  # type: ignore[arg-type]
    while left:
        count = source.readinto(left)
        if not count:
            raise NotData("it is truncated")
        left = left[count:]


def _number(dtype: Any, data: Any = b"") -> Any:
    """A NumPy scalar as a plain number, if it is one."""
    kind = dtype.arguments[0] if isinstance(dtype, Inert) and dtype.arguments else None
    if isinstance(data, bytes) and isinstance(kind, str) and kind in _SCALARS and len(data) == int(kind[1]):
        order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "<"
        return np.frombuffer(data, (">" if order == ">" else "<") + kind)[0].item()
    return Inert("numpy.scalar", (dtype, data))

"""What every bundle's ``manifest.json`` says, whatever kind of network it holds.

The two kinds are in uflow_manifest.py and unet_manifest.py; docs/bundle.md specifies the file.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from uflow_edge.runtime.errors import UsageError
from uflow_edge.runtime.storage.strict_json import Digest, Text, to_json

SCHEMA = 5
"""Of the manifests that are written. All from 1 on are read: older ones lack only fields that have a default."""
ENGINES = "engines"
DEFAULT_OPSET = 18
OPSETS = range(18, 25)
"""Versions of the ONNX standard operators that torch's exporter writes whole networks in."""

Precision: TypeAlias = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
EXPORTED_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
"""Those that need nothing but a checkpoint; int8 takes images of the line, see docs/int8.md."""
PlanLibrary: TypeAlias = Literal["tensorrt", "tensorrt_rtx"]
Count: TypeAlias = Annotated[int, Meta(ge=1, le=65536)]
Side: TypeAlias = Annotated[int, Meta(ge=1, le=8192)]
"""Pixels of a side of the network's input."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a graph; its shape is that of one sample, without the batch that comes first."""

    name: str
    shape: tuple[int, ...]
    dtype: Literal["uint8", "float32"] = "float32"

    def zeros(self, batch: int = 1) -> NDArray[Any]:
        """An array that fits."""
        return np.zeros((batch, *self.shape), self.dtype)


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs of a graph, in their order; the same in all variants of a bundle."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return tuple(output.name for output in self.outputs)


@dataclass(frozen=True, slots=True)
class CheckpointSource:
    """The checkpoint a bundle was made from: its file name, its SHA-256, and who wrote it."""

    name: Text
    sha256: Digest
    origin: Text = ""


@dataclass(frozen=True, slots=True)
class Variant:
    """One graph of the model.

    Attributes:
        file: its name in the bundle.
        precision: of weights and arithmetic; inputs and outputs are the same in all.
        opset: of the ONNX standard operators.
        batch: samples a run, where the graph is fixed to that; None takes any number.
        error_bound: how far from torch the export let it be (parity.json has how far it is).
        data: a second file with the weights, for graphs too large for one.
        reference: a file of pictures and what FP32 makes of them, that engines are held against when they are opened;
            None in older bundles, and for a graph that was written although it missed its bound.
    """

    file: Text
    precision: Precision
    opset: Annotated[int, Meta(ge=1, le=100)]
    batch: Count | None = None
    error_bound: Annotated[float, Meta(gt=0)] = 1e-3
    data: Text | None = None
    reference: Text | None = None


@dataclass(frozen=True, slots=True)
class BatchRange:
    """How many samples a run an engine is built for: at least, most often, at most.

    Raises:
        UsageError: on construction, unless 1 <= minimum <= optimum <= maximum.
    """

    minimum: Count = 1
    optimum: Count = 1
    maximum: Count = 4

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.optimum <= self.maximum:
            raise UsageError(f"batch {self}: expected 1 <= minimum <= optimum <= maximum")

    @classmethod
    def parse(cls, text: str) -> "BatchRange":
        """Read ``4`` (that many, always) or ``1:4:8`` (minimum, optimum, maximum).

        Raises:
            UsageError: neither of the two.
        """
        try:
            sizes = [int(part) for part in text.split(":")]
        except ValueError as error:
            raise UsageError(f"batch {text!r}: expected a number, or minimum:optimum:maximum") from error
        if len(sizes) == 1:
            return cls(*sizes * 3)
        if len(sizes) == 3:
            return cls(*sizes)
        raise UsageError(f"batch {text!r}: expected a number, or minimum:optimum:maximum")

    @property
    def fixed(self) -> int | None:
        """The batch when there is only one; None for a range."""
        return self.maximum if self.minimum == self.maximum else None

    def __str__(self) -> str:
        return str(self.maximum) if self.fixed else f"{self.minimum}:{self.optimum}:{self.maximum}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A TensorRT engine in the bundle, and everything that decides whether it can be used as it is.

    Attributes:
        file: in the bundle, as a relative POSIX path.
        graph: file of the variant it was built from.
        graph_sha256: of that file, and of its weights where they lie apart, when it was built.
        library: what runs it: TensorRT, or TensorRT-RTX.
        version: of that library.
        cuda: newest version of CUDA that the driver it was built with supports; for TensorRT-RTX, which asks no driver
            to build, the one in the name of its package.
        compute_capabilities: of the GPUs it runs on, such as ``8.7``.
        batch: samples a run.
        options: everything else that was asked of the builder, as one line of text.
    """

    file: Text
    graph: Text
    graph_sha256: Digest
    library: PlanLibrary
    version: Text
    cuda: Text
    compute_capabilities: tuple[Text, ...]
    batch: BatchRange
    options: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest(ABC):
    """What the manifests of all kinds have in common.

    Attributes:
        source: the checkpoint.
        variants: graphs, the reference one first.
        plans: engines built from them.
        files: SHA-256 of every file in the bundle but the manifest, by name.
        tools: version of every tool that made it, by name.
    """

    kind: ClassVar[str]
    noun: ClassVar[str]
    """What it is of, for people."""
    option: ClassVar[str]
    """Of uflow-export, which makes one."""

    source: CheckpointSource
    variants: tuple[Variant, ...]
    files: Mapping[Text, Digest]
    tools: Mapping[Text, Text]
    plans: tuple[Plan, ...] = ()

    @property
    @abstractmethod
    def signature(self) -> Signature:
        """Inputs and outputs of every graph."""

    @abstractmethod
    def plausible(self, outputs: Sequence[NDArray[np.float32]]) -> bool:
        """Whether outputs of the right shapes, all finite, can be what the network computes."""

    def check(self) -> None:
        """What types and ranges of single fields cannot say; holds of every manifest that is read.

        Raises:
            ValueError: fields contradict each other.
        """
        named = [variant.file for variant in self.variants] + [plan.file for plan in self.plans]
        named += [name for one in self.variants for name in (one.data, one.reference) if name is not None]
        if not self.variants:
            raise ValueError("variants: expected at least one")
        for name in self.files:
            if not _stays_inside(name):
                raise ValueError(f"files: {name!r} does not stay inside the bundle")
        for name in named:
            if name not in self.files:
                raise ValueError(f"files: {name!r} has no checksum")

    def to_json(self) -> str:
        """As written to ``manifest.json``."""
        return to_json({"schema": SCHEMA, "kind": self.kind, **asdict(self)}, indent=2) + "\n"

    def graph_sha256(self, variant: Variant) -> str:
        """Of a graph or, where its weights lie in a second file, of the two digests in a row."""
        if variant.data is None:
            return self.files[variant.file]
        return sha256((self.files[variant.file] + self.files[variant.data]).encode()).hexdigest()


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return path.parts in ((path.name,), (ENGINES, path.name)) and path.name not in ("", "..") and "\\" not in name

"""The part of ``manifest.json`` that all kinds of bundles share.

The two kinds are in uflow.py and unet.py; docs/bundle.md specifies the file.
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

SCHEMA = 6
"""Of the manifests that are written. All from 1 on are read: older ones lack only fields that have a default."""
ENGINES = "engines"
DEFAULT_OPSET = 18
OPSETS = range(18, 25)
"""Versions of the ONNX standard operators in which torch's exporter can write whole networks."""

Precision: TypeAlias = Literal["fp32", "fp16", "int8", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
"""Of graphs; bf16 is another way to compute the FP32 graph."""
RUN_PRECISIONS = (*PRECISIONS, "bf16")
EXPORTED_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
"""Precisions that need only a checkpoint; int8 needs images of the line, see docs/int8.md."""
PlanLibrary: TypeAlias = Literal["tensorrt", "tensorrt_rtx"]
Count: TypeAlias = Annotated[int, Meta(ge=1, le=65536)]
Side: TypeAlias = Annotated[int, Meta(ge=1, le=8192)]
"""Pixels along a side of the network's input."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a graph; its shape is that of one sample, without the batch axis, which comes first."""

    name: str
    shape: tuple[int, ...]
    dtype: Literal["uint8", "float32"] = "float32"

    def zeros(self, batch: int = 1) -> NDArray[Any]:
        """An array of this type and shape."""
        return np.zeros((batch, *self.shape), self.dtype)


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs of a graph, in their order; the same in all variants of a bundle."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in the order in which engines return them."""
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
        batch: samples per run that the graph is fixed to; None: any number.
        error_bound: largest allowed difference from torch; parity.json has the difference.
        data: a second file with the weights, for graphs too large for one file.
        reference: a file of pictures and their FP32 outputs that engines are checked against when they are opened;
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
    """The samples per run that an engine is built for: fewest, most frequent, most.

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
        """Read ``4`` (always four) or ``1:4:8`` (minimum, optimum, maximum).

        Raises:
            UsageError: the text is neither.
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
        """The only batch; None for a range."""
        return self.maximum if self.minimum == self.maximum else None

    def __str__(self) -> str:
        return str(self.maximum) if self.fixed else f"{self.minimum}:{self.optimum}:{self.maximum}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A TensorRT engine in the bundle, and everything that decides whether it can be used.

    Attributes:
        file: in the bundle, as a relative POSIX path.
        graph: file of the variant it was built from.
        graph_sha256: of that file and its weights when it was built; see `Manifest.graph_sha256`.
        library: that runs it: TensorRT or TensorRT-RTX.
        cuda: newest version of CUDA that the driver supported at the build; for TensorRT-RTX, which needs no driver to
            build, the version in the name of its package.
        compute_capabilities: of the GPUs it runs on, such as ``8.7``.
        batch: samples per run.
        options: all other options of the build, as one line of text.
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
    """The part that the manifests of all kinds share.

    Attributes:
        variants: graphs, the reference one first.
        files: SHA-256 of every file in the bundle except the manifest, by name.
        tools: versions of the tools that made it, by name.
    """

    kind: ClassVar[str]
    noun: ClassVar[str]
    """What the bundle holds, in messages."""
    option: ClassVar[str]
    """Option of uflow-export that makes such a bundle."""

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
        """Whether finite outputs of the right shapes can come from this network."""

    def check(self) -> None:
        """Check what the types and ranges of single fields cannot express.

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
        """The text of ``manifest.json``."""
        return to_json({"schema": SCHEMA, "kind": self.kind, **asdict(self)}, indent=2) + "\n"

    def graph_sha256(self, variant: Variant) -> str:
        """Digest of a graph; if its weights are in a second file, the digest of both digests."""
        if variant.data is None:
            return self.files[variant.file]
        return sha256((self.files[variant.file] + self.files[variant.data]).encode()).hexdigest()


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return path.parts in ((path.name,), (ENGINES, path.name)) and path.name not in ("", "..") and "\\" not in name

"""The bundle: a folder with graphs, a manifest and its own evidence; the whole of what a line needs.

    bottle.uflow/
      manifest.json      what the files are, and the SHA-256 of each
      model.fp32.onnx    image uint8 [N, S, S, 3] RGB -> energy_i, exceedance_i float32 [N, H_i, W_i], finest first
      model.fp16.onnx    the same with half-precision weights and arithmetic where that is safe
      parity.json        every graph against the network it was traced from
      engines/           TensorRT plans, named after what they run on, each with a log of its layers beside it

docs/bundle.md specifies the manifest.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

from uflow_edge.runtime.errors import BadInput, UsageError
from uflow_edge.runtime.files import replacing, sha256
from uflow_edge.runtime.nfa.tree import DEFAULT_RULE, RULES, Rule
from uflow_edge.runtime.operating_point import LOG_NFA_0, OperatingPoint

SCHEMA = 2
_READABLE_SCHEMAS = (1, SCHEMA)  # 1 lacks only fields that have a default
SUFFIX = ".uflow"
MANIFEST = "manifest.json"
ENGINES = "engines"
INPUT_NAME = "image"
DEFAULT_OPSET = 18

Fit: TypeAlias = Literal["squash", "crop"]
Precision: TypeAlias = Literal["fp32", "fp16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
PlanLibrary: TypeAlias = Literal["tensorrt", "tensorrt_rtx"]


@dataclass(frozen=True, slots=True)
class Source:
    """The checkpoint a bundle was made from: its file name, its SHA-256, and who wrote it."""

    name: str
    sha256: str
    origin: str = ""


@dataclass(frozen=True, slots=True)
class LatentScale:
    """One scale of latents: C channels on H x W pixels, each ``stride`` input pixels wide."""

    stride: int
    height: int
    width: int
    channels: int


@dataclass(frozen=True, slots=True)
class Variant:
    """One graph of the model.

    Attributes:
        file: its name in the bundle.
        precision: of weights and arithmetic; inputs and outputs are the same in all.
        opset: of the ONNX standard operators.
        batch: images a run, where the graph is fixed to that; None takes any number.
        energy_bound: relative error of energies against torch that the export had to keep (parity.json has the error).
        data: a second file with the weights, for graphs too large for one.
    """

    file: str
    precision: Precision
    opset: int
    batch: int | None = None
    energy_bound: float = 1e-3
    data: str | None = None


@dataclass(frozen=True, slots=True)
class BatchRange:
    """How many images a run an engine is built for: at least, most often, at most.

    Raises:
        UsageError: on construction, unless 1 <= minimum <= optimum <= maximum.
    """

    minimum: int = 1
    optimum: int = 1
    maximum: int = 4

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
        batch: images a run.
        options: everything else that was asked of the builder, as one line of text.
    """

    file: str
    graph: str
    graph_sha256: str
    library: PlanLibrary
    version: str
    cuda: str
    compute_capabilities: tuple[str, ...]
    batch: BatchRange
    options: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What ``manifest.json`` says.

    Attributes:
        source: the checkpoint.
        extractor: name of the frozen backbone.
        input_size: S, side of the square input in pixels.
        mean, std: of RGB in [0, 1], as the extractor is given it; the graph does this itself.
        fit: how a frame that is not square becomes one: ``squash`` it, or ``crop`` its centre.
        scales: of the latents, finest first.
        exceedance_probability: p at which exceedances are counted.
        rule: how the tree NFA weighs regions.
        operating_point: threshold on the image score.
        variants: graphs, the reference one first.
        plans: engines built from them.
        files: SHA-256 of every file in the bundle but the manifest, by name.
        tools: version of every tool that made it, by name.
    """

    source: Source
    extractor: str
    input_size: int
    fit: Fit
    scales: tuple[LatentScale, ...]
    exceedance_probability: float
    variants: tuple[Variant, ...]
    files: Mapping[str, str]
    tools: Mapping[str, str]
    rule: Rule = DEFAULT_RULE
    operating_point: OperatingPoint = LOG_NFA_0
    plans: tuple[Plan, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def channels(self) -> tuple[int, ...]:
        """C_i of every scale, finest first."""
        return tuple(scale.channels for scale in self.scales)

    @property
    def energy_names(self) -> tuple[str, ...]:
        """Names of the graph's energy outputs, finest first."""
        return tuple(f"energy_{i}" for i in range(len(self.scales)))

    @property
    def exceedance_names(self) -> tuple[str, ...]:
        """Names of the graph's exceedance outputs, finest first."""
        return tuple(f"exceedance_{i}" for i in range(len(self.scales)))

    def to_json(self) -> str:
        """As written to ``manifest.json``."""
        return json.dumps({"schema": SCHEMA, "kind": "uflow", **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Parse what `to_json` wrote.

        Raises:
            BadInput: not JSON, another schema or kind, or fields missing, unknown or of the wrong type.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise BadInput(f"not JSON ({error})") from error
        if not isinstance(values, dict) or values.pop("kind", None) != "uflow":
            raise BadInput("expected a manifest of kind 'uflow'")
        schema = values.pop("schema", None)
        if schema not in _READABLE_SCHEMAS:
            known = " and ".join(map(str, _READABLE_SCHEMAS))
            raise BadInput(f"schema {schema!r}; this version reads schemas {known}: export the checkpoint again")
        try:
            manifest = _manifest(values)
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"fields are missing, unknown or of the wrong type ({error})") from error
        return manifest


def _manifest(values: dict[str, Any]) -> Manifest:
    """Build the typed manifest; dataclasses refuse missing and unknown fields themselves."""
    manifest = Manifest(
        **{
            **values,
            "source": Source(**values["source"]),
            "scales": tuple(LatentScale(**scale) for scale in values["scales"]),
            "variants": tuple(Variant(**variant) for variant in values["variants"]),
            "operating_point": OperatingPoint(**values["operating_point"]),
            "plans": tuple(_plan(plan) for plan in values.get("plans", ())),
            "mean": tuple(values.get("mean", ())),
            "std": tuple(values.get("std", ())),
        }
    )
    sizes = [manifest.input_size, *(n for s in manifest.scales for n in (s.height, s.width, s.channels))]
    if not all(isinstance(n, int) and n > 0 for n in sizes) or not manifest.scales:
        raise ValueError(f"sizes must be positive integers: {sizes}")
    if manifest.fit not in ("squash", "crop") or manifest.rule not in RULES:
        raise ValueError(f"fit {manifest.fit!r} or rule {manifest.rule!r}")
    if not isinstance(manifest.operating_point.threshold, (int, float)):
        raise ValueError(f"threshold {manifest.operating_point.threshold!r}")
    named = [v.file for v in manifest.variants] + [v.data for v in manifest.variants if v.data]
    if not manifest.variants or any(file not in manifest.files for file in [*named, *(p.file for p in manifest.plans)]):
        raise ValueError("the file of every variant and plan needs a checksum")
    if any(not _stays_inside(name) for name in manifest.files):
        raise ValueError("file names must stay inside the bundle")
    return manifest


def _plan(values: dict[str, Any]) -> Plan:
    return Plan(
        **{
            **values,
            "batch": BatchRange(**values["batch"]),
            "compute_capabilities": tuple(values["compute_capabilities"]),
        }
    )


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return path.parts in ((path.name,), (ENGINES, path.name)) and path.name not in ("", "..") and "\\" not in name


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle on disk whose files are what its manifest says."""

    folder: Path
    manifest: Manifest

    @classmethod
    def load(cls, folder: str | Path) -> "Bundle":
        """Read and verify a bundle.

        Raises:
            BadInput: no bundle there, a manifest that cannot be read, or a file that is missing or differs from
                what was exported; the message names the file.
        """
        folder = Path(folder)
        manifest = _read_manifest(folder / MANIFEST)
        for name, expected in manifest.files.items():
            file = folder / name
            if not file.is_file():
                raise BadInput(f"{file}: missing from the bundle; export the checkpoint again")
            if sha256(file) != expected:
                raise BadInput(
                    f"{file}: differs from what was exported (SHA-256); copy the bundle again or re-export it"
                )
        return cls(folder, manifest)

    def path(self, variant: Variant) -> Path:
        """Where a variant's graph is."""
        return self.folder / variant.file

    def save_operating_point(self, point: OperatingPoint) -> "Bundle":
        """Write another threshold into the manifest on disk, whatever else has changed there meanwhile.

        Raises:
            BadInput: the manifest cannot be read any more.
            OSError: it cannot be written; the old one is still there.
        """
        path = self.folder / MANIFEST
        manifest = replace(_read_manifest(path), operating_point=point)
        with replacing(path) as temporary:
            temporary.write_text(manifest.to_json(), encoding="utf-8")
        return Bundle(self.folder, manifest)


def _read_manifest(path: Path) -> Manifest:
    try:
        return Manifest.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInput(
            f"{path.parent}: no bundle here (no {MANIFEST}); make one with: uflow-export --ckpt …"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error})") from error
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error


def find_bundle(folder: Path) -> Path:
    """The one bundle in a folder.

    Raises:
        UsageError: there is none, or more than one; the message lists them.
    """
    found = sorted(path for path in folder.glob(f"*{SUFFIX}") if (path / MANIFEST).is_file())
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(
            f"no *{SUFFIX} bundle in {folder.resolve()}; name one with --bundle, or make one with uflow-export"
        )
    listed = ", ".join(path.name for path in found)
    raise UsageError(f"{len(found)} bundles in {folder.resolve()}: {listed}; name one with --bundle")

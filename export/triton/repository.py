"""A model repository for Triton Inference Server, from a bundle.

    repository/
      bottle_network/    the graph or a TensorRT plan: pictures in, energies out, batched over all clients
      bottle/            a Python backend model: energies in, verdicts out, by uflow_edge.runtime
      bottle_inspect/    the ensemble of both: pictures in, verdicts out

docs/triton.md says how to serve it.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from uflow_edge.export.triton.config import INSPECT, NETWORK, Message, Platform, RepositoryModels, text_format
from uflow_edge.runtime.bundle.folder import MANIFEST, SUFFIX, Bundle
from uflow_edge.runtime.bundle.manifest import BatchRange, Plan, Precision
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.errors import BadInput, UsageError
from uflow_edge.runtime.storage.files import replacing_folder

CONFIG = "config.pbtxt"
VERSION = "1"
DEFAULT_BATCH = BatchRange(1, 4, 8)
ONLY_PLAN = "*"  # no file has this name

_MODEL = Path(__file__).with_name("model.py")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """Choices of a repository.

    Attributes:
        precision: of the graph; None: that of the bundle's first graph.
        plan: file of a TensorRT plan in the bundle, served instead of a graph; `ONLY_PLAN`: the only one it has;
            None: a graph.
        batch: pictures per run of a graph; Triton prefers its optimum and its maximum. A plan has its own.

    Raises:
        UsageError: on construction, if Triton does not support it.
    """

    precision: Precision | None = None
    plan: str | None = None
    batch: BatchRange | None = None

    def __post_init__(self) -> None:
        if self.batch is not None and self.batch.minimum > 1 and not self.batch.fixed:
            raise UsageError(f"batch {self.batch}: Triton sends single pictures too; expected MAX or 1:PREFERRED:MAX")
        if self.plan is not None and (self.precision is not None or self.batch is not None):
            raise UsageError("a plan has its precision and batch already; choose one or the other")


@dataclass(frozen=True, slots=True)
class _Network:
    """The file that Triton runs as the network, its name in the repository, and a file that must be beside it."""

    platform: Platform
    file: str
    target: str
    sha256: str
    batch: BatchRange
    beside: str | None = None


def write_repository(
    bundle: Bundle[UFlowManifest],
    repository: Path,
    options: TritonOptions = TritonOptions(),
    *,
    overwrite: bool = False,
) -> str:
    """Write the repository, completely or not at all.

    Args:
        bundle: as loaded; the models are named after its folder, without the suffix.
        overwrite: replace a repository that this function wrote.

    Returns:
        Name of the ensemble.

    Raises:
        BadInput: something else is in the way, or the bundle has no such graph or plan, or none that Triton can batch.
        UsageError: the bundle's name is not a valid model name.
        OSError: it cannot be written; an earlier repository is still there.
    """
    name = _model_name(bundle.folder)
    network = _plan(bundle.manifest, options) if options.plan is not None else _graph(bundle.manifest, options)
    _refuse_to_replace(repository, overwrite)
    models = RepositoryModels(name, bundle.manifest, network.platform, network.sha256, network.batch)
    with replacing_folder(repository, overwrite=overwrite) as folder:
        _write_network(bundle, network, _model_folder(folder, models.network()))
        _write_judge(bundle, _model_folder(folder, models.judge()))
        ensemble = _model_folder(folder, models.ensemble())
        (ensemble / ".keep").touch()  # Triton wants the folder; git and object stores lose one that is empty
    return name + INSPECT


def _model_name(bundle: Path) -> str:
    name = bundle.resolve().name.removesuffix(SUFFIX)
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{bundle}: its name becomes the models', and {name!r} is not made of letters, digits and _.- alone; "
            "rename the bundle's folder"
        )
    return name


def _graph(manifest: UFlowManifest, options: TritonOptions) -> _Network:
    variants = [v for v in manifest.variants if options.precision in (None, v.precision)]
    if not variants:
        there = ", ".join(variant.precision for variant in manifest.variants)
        raise BadInput(f"the bundle has no {options.precision} graph, only: {there}")
    variant = variants[0]
    if variant.batch is not None:
        raise BadInput(
            f"{variant.file} is fixed to batch {variant.batch}, and Triton batches as requests come; "
            "export it without --batch"
        )
    digest = manifest.graph_sha256(variant)
    batch = options.batch or DEFAULT_BATCH
    return _Network("onnxruntime_onnx", variant.file, "model.onnx", digest, batch, variant.data)


def _plan(manifest: UFlowManifest, options: TritonOptions) -> _Network:
    served = [plan for plan in manifest.plans if plan.library == "tensorrt"]  # Triton does not run TensorRT-RTX
    named = [plan for plan in served if options.plan in (ONLY_PLAN, plan.file, Path(plan.file).name)]
    if len(named) != 1:
        there = ", ".join(plan.file for plan in served) or "none; build one with: uflow-export --bundle … --trt"
        only = options.plan == ONLY_PLAN
        asked = f"{len(served)} TensorRT plans, expected one" if only else f"no TensorRT plan {options.plan!r}"
        raise BadInput(f"{asked} in the bundle; there: {there}")
    (plan,) = named
    _refuse_unbatchable(manifest, plan)
    return _Network("tensorrt_plan", plan.file, "model.plan", manifest.files[plan.file], plan.batch)


def _refuse_unbatchable(manifest: UFlowManifest, plan: Plan) -> None:
    fixed = any(variant.file == plan.graph and variant.batch is not None for variant in manifest.variants)
    if fixed or plan.batch.minimum != 1:
        raise BadInput(
            f"{plan.file} takes {plan.batch} pictures a run, and Triton must be able to send it one; "
            f"build it from a graph of any batch with --batch 1:{plan.batch.optimum}:{plan.batch.maximum}"
        )


def _refuse_to_replace(repository: Path, overwrite: bool) -> None:
    if not repository.exists():
        return
    if not overwrite:
        raise BadInput(f"{repository}: exists already; choose another folder, or replace it with --overwrite")
    found = {path.name for path in repository.iterdir()} if repository.is_dir() else {repository.name}
    name = min(found, key=len, default="")
    if found - {name, name + NETWORK, name + INSPECT} or not (repository / name / VERSION / MANIFEST).is_file():
        raise BadInput(f"{repository}: is not a repository of one bundle, so it will not be replaced; choose another")


def _model_folder(repository: Path, config: Message) -> Path:
    """Write the configuration of a model, and make the folder of its only version."""
    version = repository / str(config["name"]) / VERSION
    version.mkdir(parents=True)
    (version.parent / CONFIG).write_text(text_format(config), encoding="utf-8")
    return version


def _write_network(bundle: Bundle[UFlowManifest], network: _Network, folder: Path) -> None:
    if network.beside is not None:
        shutil.copyfile(bundle.folder / network.beside, folder / network.beside)
    shutil.copyfile(bundle.folder / network.file, folder / network.target)


def _write_judge(bundle: Bundle[UFlowManifest], folder: Path) -> None:
    null_model = bundle.manifest.null_model
    if null_model is not None:
        path = Path(null_model)
        if path.suffix != ".npz" or path.name != null_model:  # Python imports what lies beside model.py
            raise BadInput(
                f"{bundle.folder}: its null model is called {null_model}, expected an .npz beside the manifest"
            )
        shutil.copyfile(bundle.folder / null_model, folder / null_model)
    shutil.copyfile(bundle.folder / MANIFEST, folder / MANIFEST)
    shutil.copyfile(_MODEL, folder / "model.py")

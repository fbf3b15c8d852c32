"""Builds the TensorRT plans of a bundle, and keeps those that still fit.

A bundle holds at most one plan for each library, version (10.3, say), set of GPUs and precision; its file is named
after these. A build with another batch or other options, from another graph, or by another patch release replaces the
plan; if nothing differs, it is kept.
"""

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from uflow_edge.export.engines.plan_options import PlanOptions
from uflow_edge.export.engines.tensorrt import DYNAMIC, Layers, TensorSpec, build_engine
from uflow_edge.export.engines.toolchain import Toolchain, find_toolchain
from uflow_edge.runtime.bundle.edit import editing
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.manifest import ENGINES, Manifest, Plan, Precision, Variant
from uflow_edge.runtime.errors import UsageError
from uflow_edge.runtime.storage.strict_json import finite, read_json, to_json

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=Manifest)

_TYPES = {"uint8": "uint8", "float32": "fp32"}
_SHORT = {"tensorrt": "trt", "tensorrt_rtx": "rtx"}
_TIMING = ".timing"  # not in the manifest: TensorRT changes it with every build, and ignores it if it does not fit


@dataclass(frozen=True, slots=True)
class PlanResult:
    """The result for one variant.

    Attributes:
        reused: the plan existed already and still fits.
        seconds: duration of the build; 0 if reused.
        layers: number of computing layers of the parsed network, by type: ``{"fp16": 280, "fp32": 12, …}``.
    """

    plan: Plan
    reused: bool
    seconds: float
    size_bytes: int
    layers: Mapping[str, int]


def build_plans(
    bundle: Bundle[M], precisions: Sequence[Precision], options: PlanOptions = PlanOptions()
) -> tuple[Bundle[M], tuple[PlanResult, ...]]:
    """Build an engine for each variant of a bundle in these precisions; engines that still fit are kept.

    Args:
        bundle: as loaded; each plan is added to it with a log of its layers.

    Returns:
        The new bundle, and one result per variant.

    Raises:
        UsageError: the bundle has no variant in one of these precisions, or the options are not supported.
        MissingDependency: the library or the GPU for this target is missing.
        BadInput: the library cannot parse a graph, or a graph is not what the manifest says.
        BuildFailed: the library built no engine.
    """
    variants = _variants(bundle.manifest, precisions)
    toolchain = find_toolchain(options)
    results = []
    for variant in variants:
        bundle, result = _build_or_keep(bundle, variant, options, toolchain)
        results.append(result)
    return bundle, tuple(results)


def carry_over(old: Bundle[M], new_folder: Path, new_manifest: M) -> M:
    """Keep the plans of a bundle that is exported again, if their graphs have not changed.

    Args:
        old: the bundle that will be replaced.
        new_folder: of the new bundle; plans, their logs and the timing caches are copied there.

    Returns:
        The new manifest, with the plans that are kept.
    """
    kept = _still_valid(old.manifest.plans, new_manifest)
    names = [name for plan in kept for name in (plan.file, layers_file(plan)) if name in old.manifest.files]
    engines = old.folder / ENGINES
    unlisted = [f"{ENGINES}/{path.name}" for path in sorted(engines.glob(f"*{_TIMING}"))]
    if names or unlisted:
        (new_folder / ENGINES).mkdir(exist_ok=True)
    for name in [*names, *unlisted]:
        shutil.copyfile(old.folder / name, new_folder / name)
    files = {**new_manifest.files, **{name: old.manifest.files[name] for name in names}}
    return replace(new_manifest, plans=kept, files=files)


def plan_for(manifest: Manifest, variant: Variant, options: PlanOptions, toolchain: Toolchain) -> Plan:
    """The plan that a build would give; if it equals one in the manifest, that one can be kept."""
    return Plan(
        file=plan_file(variant.precision, toolchain),
        graph=variant.file,
        graph_sha256=manifest.graph_sha256(variant),
        library=toolchain.library,
        version=toolchain.version,
        cuda=toolchain.cuda,
        compute_capabilities=toolchain.compute_capabilities,
        batch=options.batch_for(variant),
        options=str(options),
    )


def plan_file(precision: Precision, toolchain: Toolchain) -> str:
    """The file of the plan for this precision, relative to the bundle."""
    release = ".".join(toolchain.version.split(".")[:2])
    gpus = "+".join(capability.replace(".", "") for capability in toolchain.compute_capabilities)
    return f"{ENGINES}/sm{gpus}-{_SHORT[toolchain.library]}{release}-{precision}.plan"


def layers_file(plan: Plan) -> str:
    """The file with the log of a plan's layers, relative to the bundle."""
    return plan.file.removesuffix(".plan") + ".layers.json"


def _variants(manifest: Manifest, precisions: Sequence[Precision]) -> list[Variant]:
    found = [variant for variant in manifest.variants if variant.precision in precisions]
    for precision in precisions:
        if not any(variant.precision == precision for variant in found):
            known = ", ".join(variant.precision for variant in manifest.variants)
            raise UsageError(f"the bundle has no {precision} graph to build an engine from, only: {known}")
    return found


def _build_or_keep(
    bundle: Bundle[M], variant: Variant, options: PlanOptions, toolchain: Toolchain
) -> tuple[Bundle[M], PlanResult]:
    manifest = bundle.manifest
    plan = plan_for(manifest, variant, options, toolchain)
    path = bundle.folder / plan.file
    if plan in manifest.plans and layers_file(plan) in manifest.files:
        logger.info(f"{plan.file} is up to date")
        log = read_json(bundle.folder / layers_file(plan))
        return bundle, PlanResult(plan, True, 0.0, path.stat().st_size, log["layers_by_type"])
    why = "".join(f"; {_difference(old, plan)}" for old in manifest.plans if old.file == plan.file)
    logger.info(f"building {plan.file} from {variant.file}{why} …")
    started = time.perf_counter()
    engine, layers = build_engine(
        toolchain, bundle.path(variant), *_signature(manifest, variant), options, plan.batch, _timing_cache(path)
    )
    seconds = time.perf_counter() - started
    bundle = _store(bundle, plan, engine, layers, seconds)
    return bundle, PlanResult(plan, False, seconds, path.stat().st_size, layers.by_type)


def _difference(old: Plan, new: Plan) -> str:
    names = [field.name for field in fields(Plan) if getattr(old, field.name) != getattr(new, field.name)]
    return "the one there differs in " + ", ".join(
        name if name == "graph_sha256" else f"{name}: {getattr(old, name)} instead of {getattr(new, name)}"
        for name in names
    )


def _signature(manifest: Manifest, variant: Variant) -> tuple[list[TensorSpec], list[TensorSpec]]:
    batch = variant.batch or DYNAMIC
    inputs, outputs = (
        [TensorSpec(tensor.name, _TYPES[tensor.dtype], (batch, *tensor.shape)) for tensor in tensors]
        for tensors in (manifest.signature.inputs, manifest.signature.outputs)
    )
    return inputs, outputs


def _timing_cache(plan: Path) -> Path:
    """One file per library and GPU, with the kernels of all precisions."""
    return plan.with_name(plan.stem.rpartition("-")[0] + _TIMING)


def _store(bundle: Bundle[M], plan: Plan, engine: Any, layers: Layers, seconds: float) -> Bundle[M]:
    with editing(bundle) as edit:
        old = edit.manifest
        valid = [p for p in _still_valid(old.plans, old) if p.file != plan.file]
        edit.drop(*(name for p in old.plans if p not in valid for name in (p.file, layers_file(p))))
        edit.add(plan.file, engine)
        edit.add(layers_file(plan), _log(plan, layers, seconds).encode())
        edit.manifest = replace(old, plans=(*valid, plan))
    return edit.bundle


def _still_valid(plans: Sequence[Plan], manifest: Manifest) -> tuple[Plan, ...]:
    graphs = {variant.file: manifest.graph_sha256(variant) for variant in manifest.variants}
    return tuple(plan for plan in plans if graphs.get(plan.graph) == plan.graph_sha256)


def _log(plan: Plan, layers: Layers, seconds: float) -> str:
    meaning = {
        "engine": "as they run, after fusion, by TensorRT's inspector",
        "network": "as parsed, before fusion: loading the engine needs its GPU, which was not there",
    }
    log = {
        "plan": asdict(plan),
        "build_seconds": round(seconds, 1),
        "warnings": layers.warnings,
        "layers_by_type": layers.by_type,
        "layers_are": f"{layers.described}: {meaning[layers.described]}",
        "layers": layers.details,
    }
    return to_json(finite(log), indent=1) + "\n"

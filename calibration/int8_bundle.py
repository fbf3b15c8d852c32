"""An INT8 graph proven against the FP32 one and listed in its bundle, in place of the one before.

At every moment the bundle can be loaded: the old graph is struck from the manifest before its file goes, and the new
one is listed only once it has been proven.
"""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace

import onnx_ir as ir

from uflow_edge.export.onnx_files import write_onnx
from uflow_edge.export.parity import PARITY, Parity, Reference, engines_here
from uflow_edge.export.plans import layers_file
from uflow_edge.runtime.bundle import Bundle, write_manifest
from uflow_edge.runtime.deviation import BOUNDED
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.errors import UflowEdgeError
from uflow_edge.runtime.files import replacing, sha256
from uflow_edge.runtime.manifest import Variant
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.scoring import Scorer
from uflow_edge.runtime.uflow_manifest import UFlowManifest


class Int8Failed(UflowEdgeError):
    """No layer can be computed in INT8 within the bound, or the finished graph misses it on other pictures."""


def store_int8(
    bundle: Bundle[UFlowManifest], variant: Variant, model: ir.Model, pictures: Sequence[Image]
) -> tuple[Bundle[UFlowManifest], tuple[Parity, ...]]:
    """Write, prove and list the graph.

    Args:
        bundle: as loaded, with an FP32 graph first.
        variant: as the graph is to be listed, but for the file of its weights, if it gets one.
        model: the graph.
        pictures: (S, S, 3) uint8 RGB each, to prove it on.

    Returns:
        The bundle as it is now, and how near the graph is to the FP32 one, in each engine that is here.

    Raises:
        Int8Failed: it is too far from it, and the bundle has no INT8 graph any more.
    """
    bundle = _without_int8(bundle)
    folder, manifest = bundle.folder, bundle.manifest
    path = folder / variant.file
    try:
        files = write_onnx(model, path)
        data = next((file.name for file in files if file != path), None)
        variant = replace(variant, data=data)
        parities = _parities(bundle, variant, pictures)
        worst = next((parity for parity in parities if not parity.holds), None)
        if worst is not None:
            raise Int8Failed(f"{path}: not kept, it is too far from {manifest.variants[0].file}. {worst}")
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    digests = {file.name: sha256(file) for file in files}
    report = folder / PARITY
    entries = json.loads(report.read_text(encoding="utf-8")) if report.is_file() else {}
    entries[variant.file] = [{**asdict(parity), "holds": parity.holds} for parity in parities]
    with replacing(report) as temporary:
        temporary.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    manifest = replace(
        manifest,
        variants=(*manifest.variants, variant),
        files={**manifest.files, **digests, PARITY: sha256(report)},
    )
    return write_manifest(folder, manifest), parities


def _without_int8(bundle: Bundle[UFlowManifest]) -> Bundle[UFlowManifest]:
    """The bundle without its INT8 graph, that graph's plans, and a digest of the parity report."""
    manifest = bundle.manifest
    old = [variant for variant in manifest.variants if variant.precision == "int8"]
    plans = [plan for plan in manifest.plans if plan.graph in {variant.file for variant in old}]
    retired = {variant.file for variant in old} | {variant.data for variant in old if variant.data}
    retired |= {name for plan in plans for name in (plan.file, layers_file(plan))}
    gone = retired | {PARITY}
    manifest = replace(
        manifest,
        variants=tuple(variant for variant in manifest.variants if variant not in old),
        plans=tuple(plan for plan in manifest.plans if plan not in plans),
        files={name: digest for name, digest in manifest.files.items() if name not in gone},
    )
    bundle = write_manifest(bundle.folder, manifest)
    for name in retired:
        (bundle.folder / name).unlink(missing_ok=True)
    return bundle


def _parities(bundle: Bundle[UFlowManifest], variant: Variant, pictures: Sequence[Image]) -> tuple[Parity, ...]:
    manifest = bundle.manifest
    exact = manifest.variants[0]
    with closing(OnnxRuntimeEngine(bundle.path(exact), manifest, exact)) as engine:
        name = f"{exact.file} in {engine.name}"
        reference = Reference.of(name, engine.run, pictures, Scorer.load(bundle.folder, manifest))
    found = []
    for make in engines_here(bundle.path(variant), manifest, variant):
        with closing(make()) as engine:
            found.append(reference.compare(engine, variant.error_bound, BOUNDED[variant.precision]))
    return tuple(found)

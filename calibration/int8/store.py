"""Proves an INT8 graph against the FP32 graph and adds it to its bundle, in place of an earlier one.

The proof takes place in a folder of its own, so a graph that fails it leaves the bundle as it was.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from uflow_edge.export.engines.plans import layers_file
from uflow_edge.export.graphs.files import write_onnx
from uflow_edge.export.graphs.parity import PARITY, Parity, Reference, engines_here, parity_json, read_parities
from uflow_edge.runtime.bundle.edit import BundleEdit, editing
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.manifest import Variant
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.engines.deviation import BOUNDED
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.engines.proof import likely_cause
from uflow_edge.runtime.engines.reference import INT8_REFERENCE
from uflow_edge.runtime.errors import UflowEdgeError
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.scoring import Scorer
from uflow_edge.runtime.storage.files import scratch_folder


class Int8Failed(UflowEdgeError):
    """No layer can be computed in INT8 within the bound, or the finished graph misses it on other pictures."""


def store_int8(
    bundle: Bundle[UFlowManifest], variant: Variant, model: ir.Model, pictures: Sequence[Image]
) -> tuple[Bundle[UFlowManifest], tuple[Parity, ...]]:
    """Write, prove and list the graph.

    Args:
        bundle: as loaded, with an FP32 graph first.
        variant: how the graph is to be listed; the file of its weights, if it gets one, is added.
        pictures: (S, S, 3) uint8 RGB each, to prove it on.

    Returns:
        The bundle as it is now, and how close the graph is to the FP32 one, in each engine of this machine.

    Raises:
        Int8Failed: it is too far from the FP32 graph in every engine; the bundle is unchanged.
    """
    folder = bundle.folder
    with scratch_folder(folder) as temporary:
        files = write_onnx(model, temporary / variant.file)
        data = next((file.name for file in files if file.name != variant.file), None)
        variant = replace(variant, data=data, reference=INT8_REFERENCE)
        reference = _reference(bundle, pictures)
        parities = _parities(files[0], bundle.manifest, variant, reference)
        if not any(parity.holds for parity in parities):
            how_far = "; ".join(map(str, parities)) + likely_cause("int8")
            raise Int8Failed(f"{folder}: no INT8 graph is written, it is too far from FP32. {how_far}")
        stored = temporary / INT8_REFERENCE
        reference.stored().save(stored, bundle.manifest)
        with editing(bundle) as edit:
            _drop_int8(edit)
            for file in (*files, stored):
                edit.add(file.name, file)
            edit.add(PARITY, parity_json({variant.file: parities}, read_parities(folder / PARITY)).encode())
            edit.manifest = replace(
                edit.manifest, variants=(*edit.manifest.variants, variant), bits=bundle.manifest.bits
            )
    return edit.bundle, parities


def _drop_int8(edit: BundleEdit[UFlowManifest]) -> None:
    """Remove the INT8 graph, if there is one, and the engines that were built from it."""
    manifest = edit.manifest
    old = [variant for variant in manifest.variants if variant.precision == "int8"]
    plans = [plan for plan in manifest.plans if plan.graph in {variant.file for variant in old}]
    edit.drop(*(name for one in old for name in (one.file, one.data, one.reference) if name is not None))
    edit.drop(*(name for plan in plans for name in (plan.file, layers_file(plan))))
    edit.manifest = replace(
        manifest,
        variants=tuple(variant for variant in manifest.variants if variant not in old),
        plans=tuple(plan for plan in manifest.plans if plan not in plans),
    )


def _reference(bundle: Bundle[UFlowManifest], pictures: Sequence[Image]) -> Reference:
    manifest = bundle.manifest
    exact = manifest.variants[0]
    with closing(OnnxRuntimeEngine.from_bundle(bundle, exact)) as engine:
        name = f"{exact.file} in {engine.name}"
        return Reference.of(name, engine.run, pictures, Scorer.load(bundle.folder, manifest))


def _parities(graph: Path, manifest: UFlowManifest, variant: Variant, reference: Reference) -> tuple[Parity, ...]:
    found = []
    for make in engines_here(graph, manifest, variant):
        with closing(make()) as engine:
            found.append(reference.compare(engine, variant.error_bound, BOUNDED[variant.precision]))
    return tuple(found)

"""Checks an engine on the machine that runs it, before it is used.

The U-Flow's energies of a few pictures are compared with those of FP32, by the measure and the bound of the export. A
graph that kept its bound where it was exported may miss it on another processor or in another library: INT8 products
saturate on an x86 without VNNI, and good parts come out as anomalies.
"""

import platform
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.manifest import Manifest, Precision, Variant
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.engines import Engine, EngineFailed, Outputs
from uflow_edge.runtime.engines.deviation import BOUNDED
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.engines.openvino import OpenVinoEngine
from uflow_edge.runtime.engines.reference import STORED_PICTURES, StoredReference, noise_images

SEVEN_BIT_LARGEST = 64
"""The largest weight for an x86 processor without VNNI. It adds two products of a byte, up to 255, and a weight in 16
bits: 2 · 255 · 64 = 32,640 fits; with 127 the sum saturates."""


class EngineDeviates(EngineFailed):
    """An engine runs, but its outputs differ from those of FP32."""


def prove(engine: Engine, bundle: Bundle[Manifest], variant: Variant) -> None:
    """Run an engine, and refuse it if its outputs are wrong.

    Raises:
        EngineFailed: it fails, or its outputs have wrong shapes or impossible values.
        EngineDeviates: its energies miss the variant's bound, or its INT8 products may saturate on this processor.
        BadInput: the bundle's reference cannot be read.
    """
    manifest = bundle.manifest
    if variant.precision == "int8" and _may_saturate(engine):
        raise EngineDeviates(f"{engine.name}: its weights have 8 bits{likely_cause('int8')}{_remedy(variant)}")
    if isinstance(manifest, UFlowManifest):
        reference = _reference(engine, bundle.folder, manifest, variant)
        if reference is not None:
            _compare(engine, manifest, variant, reference)
            return
    _run(engine, manifest, [tensor.zeros() for tensor in manifest.signature.inputs])


def has_vnni() -> bool:
    """Whether this processor multiplies 8-bit integers without saturating; True if that is unknown."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    try:
        return "vnni" in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return True


def _may_saturate(engine: Engine) -> bool:
    return isinstance(engine, OpenVinoEngine) and not has_vnni() and engine.largest_weight() > SEVEN_BIT_LARGEST


def likely_cause(precision: Precision) -> str:
    """Likely cause of a deviation, as the end of a sentence; empty if none is known."""
    if precision != "int8" or has_vnni():
        return ""
    return "; this processor has no VNNI, and without it sums of 8-bit products saturate (pmaddubsw)"


def _reference(engine: Engine, folder: Path, manifest: UFlowManifest, variant: Variant) -> StoredReference | None:
    """The reference of the bundle. Older bundles have none: onnxruntime, which checked their export, computes it."""
    if variant.reference is not None:
        return StoredReference.load(folder / variant.reference, manifest)
    if isinstance(engine, OnnxRuntimeEngine):
        return None
    pictures = noise_images(manifest.input_size)[:STORED_PICTURES]
    with closing(OnnxRuntimeEngine(folder / variant.file, manifest, variant)) as proven:
        return StoredReference.of(proven.run, pictures, len(manifest.scales))


def _compare(engine: Engine, manifest: UFlowManifest, variant: Variant, reference: StoredReference) -> None:
    found = [_run(engine, manifest, [picture[np.newaxis]]) for picture in reference.pictures]
    deviation = reference.deviation(found, manifest.channels)
    bounded = BOUNDED[variant.precision]
    if not deviation.within(variant.error_bound, bounded):
        off = max((deviation.error(bounded), *deviation.exceedance_error))
        raise EngineDeviates(
            f"{engine.name} computes something else than FP32: energies are off by {off:.1e}, where "
            f"{variant.error_bound:.0e} is allowed{likely_cause(variant.precision)}{_remedy(variant)}"
        )


def _run(engine: Engine, manifest: Manifest, inputs: Sequence[np.ndarray]) -> Outputs:
    """Run one sample, and check the shapes and the plausibility of the outputs."""
    found = engine.run(*inputs)
    shapes = [(1, *tensor.shape) for tensor in manifest.signature.outputs]
    if [output.shape for output in found] != shapes:
        raise EngineFailed(
            f"{engine.name}: expected outputs of shapes {shapes}, got {[output.shape for output in found]}"
        )
    if not all(np.isfinite(output).all() for output in found) or not manifest.plausible(found):
        raise EngineFailed(f"{engine.name}: some outputs are not finite, or impossible for this network")
    return found


def _remedy(variant: Variant) -> str:
    remedies = {"int8": ". Make the graph on this machine: uflow-calibrate --int8", "bf16": ". Use --precision fp32"}
    return remedies.get(variant.precision, "")

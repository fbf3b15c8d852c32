"""Compares TensorRT engines with the FP32 graph of their bundle, on the GPU they were built for; needs no torch."""

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeAlias, TypeVar

from uflow_edge.export.graphs.parity import PARITY, AnyParity, Reference, parity_json, read_parities
from uflow_edge.export.graphs.sample_pictures import parity_images
from uflow_edge.export.unet.parity import UNET_BOUNDS, UNetReference, parity_samples
from uflow_edge.runtime.bundle.edit import editing
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.manifest import Manifest, Plan, Variant
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.bundle.unet import UNetManifest
from uflow_edge.runtime.diffusion.schedule import NoiseSchedule
from uflow_edge.runtime.engines import Engine
from uflow_edge.runtime.engines.deviation import BOUNDED
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.engines.tensorrt import TensorRtEngine
from uflow_edge.runtime.scoring import Scorer

Comparison: TypeAlias = Callable[[Engine, Variant], AnyParity]

M = TypeVar("M", bound=Manifest)


def check_plans(
    bundle: Bundle[M], plans: Sequence[Plan], images: Sequence[Path] = ()
) -> tuple[Bundle[M], tuple[AnyParity, ...]]:
    """Run engines and note in ``parity.json`` how far they are from the first graph in onnxruntime.

    The export has compared that graph with torch.

    Args:
        bundle: as loaded; its parity report is replaced.
        plans: engines in it, for the GPU of this machine.
        images: files and folders; default: seeded noise and the images beside the bundle.

    Returns:
        The new bundle, and one result per plan.

    Raises:
        MissingDependency: pycuda or TensorRT is missing.
        EngineFailed: an engine cannot be run.
    """
    manifest = bundle.manifest
    graph = manifest.variants[0]
    with closing(OnnxRuntimeEngine.from_bundle(bundle, graph)) as exact:
        compare = _comparison(bundle, exact, f"{graph.file} in {exact.name}", images)
    found = []
    for plan in plans:
        variant = next(variant for variant in manifest.variants if variant.file == plan.graph)
        with closing(TensorRtEngine(bundle, plan)) as engine:
            found.append(compare(engine, variant))
    with editing(bundle) as edit:
        entries = {plan.file: [parity] for plan, parity in zip(plans, found, strict=True)}
        edit.add(PARITY, parity_json(entries, read_parities(bundle.folder / PARITY)).encode())
    return edit.bundle, tuple(found)


def _comparison(bundle: Bundle[Manifest], exact: Engine, name: str, images: Sequence[Path]) -> Comparison:
    """Run the exact engine once, so that others can be compared with it."""
    manifest = bundle.manifest
    if isinstance(manifest, UNetManifest):
        pictures = parity_images(bundle.folder, images, manifest.image_size, "crop") if images else ()
        left = NoiseSchedule.make(manifest.schedule, manifest.steps).alphas_cumprod
        samples, steps = parity_samples(left, manifest.image_size, manifest.channels, pictures)
        predictions = UNetReference.of(name, exact.run, samples, steps)
        return lambda engine, variant: predictions.compare(engine, UNET_BOUNDS[variant.precision])
    assert isinstance(manifest, UFlowManifest)
    pictures = parity_images(bundle.folder, images, manifest.input_size, manifest.fit)
    reference = Reference.of(name, exact.run, pictures, Scorer.load(bundle.folder, manifest))
    return lambda engine, variant: reference.compare(engine, variant.error_bound, BOUNDED[variant.precision])

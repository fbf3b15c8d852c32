"""A TensorRT engine on the GPU it was built for, against the FP32 graph beside it; needs no torch."""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

from uflow_edge.export.parity import PARITY, Parity, Reference
from uflow_edge.export.parity_images import parity_images
from uflow_edge.runtime.bundle import MANIFEST, Bundle, Plan
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.engines.tensorrt import TensorRtEngine
from uflow_edge.runtime.files import replacing, sha256


def check_plans(
    bundle: Bundle, plans: Sequence[Plan], images: Sequence[Path] = ()
) -> tuple[Bundle, tuple[Parity, ...]]:
    """Run engines and note in ``parity.json`` how far they are from the first graph in onnxruntime.

    That graph has been held against torch when it was exported.

    Args:
        bundle: as loaded; its parity report is written again.
        plans: engines in it, for this machine's GPU.
        images: files and folders; default, seeded noise and the images beside the bundle.

    Returns:
        The bundle as it is now, and one result a plan.

    Raises:
        MissingDependency: pycuda or TensorRT is absent.
        EngineFailed: an engine cannot be run.
    """
    manifest = bundle.manifest
    graph = manifest.variants[0]
    pictures = parity_images(bundle.folder, images, manifest.input_size, manifest.fit)
    with closing(OnnxRuntimeEngine(bundle.path(graph), manifest, graph)) as exact:
        name = f"{graph.file} in {exact.name}"
        reference = Reference.of(name, exact.run, pictures, manifest.channels, manifest.rule)
    found = []
    for plan in plans:
        bound = next(variant.energy_bound for variant in manifest.variants if variant.file == plan.graph)
        with closing(TensorRtEngine(bundle, plan)) as engine:
            found.append(reference.compare(engine, bound))
    return _noted(bundle, plans, found), tuple(found)


def _noted(bundle: Bundle, plans: Sequence[Plan], found: Sequence[Parity]) -> Bundle:
    path = bundle.folder / PARITY
    entries = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for plan, parity in zip(plans, found, strict=True):
        entries[plan.file] = [{**asdict(parity), "holds": parity.holds}]
    manifest = bundle.manifest
    without = replace(manifest, files={name: digest for name, digest in manifest.files.items() if name != PARITY})
    _write(bundle.folder / MANIFEST, without.to_json())  # between two renames the old digest would be wrong
    _write(path, json.dumps(entries, indent=2) + "\n")
    manifest = replace(manifest, files={**manifest.files, PARITY: sha256(path)})
    _write(bundle.folder / MANIFEST, manifest.to_json())
    return Bundle(bundle.folder, manifest)


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

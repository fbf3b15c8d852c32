"""``--backend``: the engine that was asked for, or the best that truly runs.

What a library says of itself is not believed: before an engine is used, it must compute what FP32 computes on a few
pictures (proof.py). A backend that is asked for by name is used or is an error; only ``auto`` goes on to the next.
"""

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.manifest import Manifest, Precision, Variant
from uflow_edge.runtime.engines import Engine
from uflow_edge.runtime.engines.proof import prove
from uflow_edge.runtime.errors import UflowEdgeError, UsageError, require

if TYPE_CHECKING:
    from uflow_edge.runtime.engines.onnx_runtime_gpu import Provider
    from uflow_edge.runtime.engines.stopwatch import Stopwatch

logger = logging.getLogger(__name__)

NamedBackend: TypeAlias = Literal["tensorrt", "onnxruntime-tensorrt", "onnxruntime-cuda", "onnxruntime", "openvino"]
Backend: TypeAlias = Literal["auto"] | NamedBackend
BACKENDS: tuple[NamedBackend, ...] = get_args(NamedBackend)
"""The best first: the order in which ``auto`` tries them."""

# What is taken unasked. Never int8: it decides otherwise on some images, so it has to be asked for.
_PRECISIONS: dict[NamedBackend, tuple[Precision, ...]] = {
    "tensorrt": ("fp16", "fp32"),
    "onnxruntime-tensorrt": ("fp32",),
    "onnxruntime-cuda": ("fp16", "fp32"),
    "onnxruntime": ("fp32", "fp16"),  # a CPU is slower in half precision
    "openvino": ("fp32", "fp16"),
}
_FOR_INT8 = tuple(sorted(BACKENDS, key="onnxruntime".__eq__))  # last: on a CPU it computes such graphs in FP32
_PROVIDERS: dict[NamedBackend, "Provider"] = {
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
    "onnxruntime-cuda": "CUDAExecutionProvider",
}


def open_engine(
    bundle: Bundle[Manifest],
    backend: Backend = "auto",
    precision: Precision | None = None,
    threads: int | None = None,
    stopwatch: "Stopwatch | None" = None,
) -> Engine:
    """An engine that has proved itself on this machine. The caller closes it.

    Args:
        bundle: as loaded.
        backend: what runs the model. ``auto`` takes the first of `BACKENDS` that works, and logs which;
            in int8, onnxruntime on the CPU only after all others.
        precision: of the graph or plan; None takes what is faster, fp16 on a GPU, fp32 on a CPU, but never int8.
        threads: of the CPU; default: one per core.
        stopwatch: records the transfers of each run, for engines that compute outside the host's memory.

    Raises:
        UsageError: the bundle has no graph in this precision, or the backend does not take it.
        MissingDependency: the backend cannot run here; the message says what to install or to build.
        EngineFailed: it was loaded, but fails, or computes something else than FP32.
        BadInput: a graph or plan that cannot be loaded.
    """
    if precision is not None:
        _variant(bundle.manifest, [precision])
    if backend != "auto":
        return _open_and_try(bundle, backend, precision, threads, stopwatch)
    failures: dict[NamedBackend, Exception] = {}
    for candidate in _FOR_INT8 if precision == "int8" else BACKENDS:
        if not _may_be_here(candidate, bundle):
            continue
        try:
            return _open_and_try(bundle, candidate, precision, threads, stopwatch)
        except Exception as error:  # whatever a third party's library raises, the line goes on with the next
            failures[candidate] = error
            logger.warning(
                "warning: %(backend)s is skipped: %(error)s", {"backend": candidate, "error": _in_one_line(error)}
            )
    raise failures["onnxruntime"]  # never absent, so its is the error to mend first


def _may_be_here(backend: NamedBackend, bundle: Bundle[Manifest]) -> bool:
    """Whether a backend is worth trying; found out at no cost."""
    if backend == "tensorrt":
        return bool(bundle.manifest.plans)
    if backend == "openvino":
        return find_spec("openvino") is not None
    return backend not in _PROVIDERS or _PROVIDERS[backend] in require("onnxruntime").get_available_providers()


def _open_and_try(
    bundle: Bundle[Manifest],
    backend: NamedBackend,
    precision: Precision | None,
    threads: int | None,
    stopwatch: "Stopwatch | None",
) -> Engine:
    logger.debug("trying %(backend)s", {"backend": backend})
    engine, variant = _open(bundle, backend, precision, threads, stopwatch)
    try:
        prove(engine, bundle, variant)
    except BaseException:
        engine.close()
        raise
    logger.info("engine: %(engine)s", {"engine": engine.name})
    return engine


def _open(
    bundle: Bundle[Manifest],
    backend: NamedBackend,
    precision: Precision | None,
    threads: int | None,
    stopwatch: "Stopwatch | None",
) -> tuple[Engine, Variant]:
    """What runs a graph of the bundle, and that graph."""
    precisions = _PRECISIONS[backend] if precision is None else (precision,)
    # Imported here: a machine needs one of them only.
    if backend == "tensorrt":
        from uflow_edge.runtime.engines.cuda import primary_context
        from uflow_edge.runtime.engines.plans import find_plan
        from uflow_edge.runtime.engines.tensorrt import TensorRtEngine

        plan = find_plan(bundle, precisions, primary_context().compute_capability)
        built_from = next(variant for variant in bundle.manifest.variants if variant.file == plan.graph)
        return TensorRtEngine(bundle, plan, stopwatch), built_from
    variant = _variant(bundle.manifest, precisions)
    graph = bundle.path(variant)
    if backend == "onnxruntime":
        from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(graph, bundle.manifest, variant, threads), variant
    if backend == "openvino":
        from uflow_edge.runtime.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(graph, bundle.manifest, variant, threads), variant
    from uflow_edge.runtime.engines.onnx_runtime_gpu import OnnxRuntimeGpuEngine

    return OnnxRuntimeGpuEngine(graph, bundle.manifest, variant, _PROVIDERS[backend], threads, stopwatch), variant


def _variant(manifest: Manifest, precisions: Sequence[Precision]) -> Variant:
    for precision in precisions:
        for variant in manifest.variants:
            if variant.precision == precision:
                return variant
    known = ", ".join(variant.precision for variant in manifest.variants)
    raise UsageError(f"the bundle has no {' or '.join(precisions)} graph, only: {known}")


def _in_one_line(error: Exception) -> str:
    told = " ".join(str(error).split())
    return told if isinstance(error, UflowEdgeError) else f"{type(error).__name__}: {told}"

"""``--backend``: opens the requested engine, or the best one that runs.

Before an engine is used, it must compute the FP32 outputs of a few pictures (proof.py). A backend that is requested by
name is used or is an error; only ``auto`` tries the next one.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.manifest import Manifest, Precision, Variant
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.engines import Engine
from uflow_edge.runtime.engines.deviation import BF16_BOUND
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

# Default precisions, the preferred one first. Never int8: its verdicts differ on some images, so it must be requested.
_PRECISIONS: dict[NamedBackend, tuple[Precision, ...]] = {
    "tensorrt": ("fp16", "fp32"),
    "onnxruntime-tensorrt": ("fp32",),
    "onnxruntime-cuda": ("fp16", "fp32"),
    "onnxruntime": ("fp32", "fp16"),  # a CPU is slower in half precision
    "openvino": ("fp32", "fp16"),
}
_FOR_INT8 = tuple(
    sorted(BACKENDS, key="onnxruntime".__eq__)
)  # onnxruntime last: it computes INT8 graphs in FP32 on a CPU
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
    """Open an engine and check its outputs on this machine. The caller closes it.

    Args:
        backend: library that runs the model. ``auto`` takes the first of `BACKENDS` that works, and logs its name; in
            int8, it tries onnxruntime on the CPU last.
        precision: of the computation; None takes fp16 on a GPU and fp32 on a CPU, which are faster there. ``auto``
            takes bf16 first if the bundle was calibrated in it.
        threads: CPU threads; None: one per core.
        stopwatch: records the transfers of each run, for engines that compute outside the host's memory.

    Raises:
        UsageError: the bundle has no graph for this precision, or the backend does not support it.
        MissingDependency: the backend cannot run here; the message says what to install or to build.
        EngineFailed: the engine was loaded, but fails, or its outputs differ from those of FP32.
        BadInput: a graph or plan cannot be loaded.
    """
    if precision is not None:
        graph_for(bundle.manifest, [precision])
    if precision == "bf16":
        if backend not in ("auto", "openvino"):
            raise UsageError(f"{backend} does not compute in bf16; use --backend openvino")
        backend = "openvino"
    if backend != "auto":
        return _open_and_check(bundle, backend, precision, threads, stopwatch)
    candidates = [(name, precision) for name in (_FOR_INT8 if precision == "int8" else BACKENDS)]
    if precision is None and _calibrated_in_bf16(bundle.manifest):
        candidates.insert(0, ("openvino", "bf16"))
    failures: dict[NamedBackend, Exception] = {}
    for candidate, its_precision in candidates:
        if not _may_be_available(candidate, bundle):
            continue
        try:
            return _open_and_check(bundle, candidate, its_precision, threads, stopwatch)
        except Exception as error:  # libraries raise errors of any type; the next backend is tried
            failures[candidate] = error
            logger.warning(
                "warning: %(backend)s is skipped: %(error)s", {"backend": candidate, "error": _in_one_line(error)}
            )
    raise failures["onnxruntime"]  # it is always installed, so its error is the most useful one


def graph_for(manifest: Manifest, precisions: Sequence[Precision]) -> Variant:
    """The graph to run for the first of these precisions that there is one for; bf16 runs the FP32 graph.

    Raises:
        UsageError: there is none.
    """
    for precision in precisions:
        for variant in manifest.variants:
            if variant.precision == precision:
                return variant
            if (variant.precision, precision) == ("fp32", "bf16") and isinstance(manifest, UFlowManifest):
                return replace(variant, precision=precision, error_bound=BF16_BOUND)
    known = ", ".join(variant.precision for variant in manifest.variants)
    raise UsageError(f"the bundle has no {' or '.join(precisions)} graph, only: {known}")


def _calibrated_in_bf16(manifest: Manifest) -> bool:
    record = manifest.calibration if isinstance(manifest, UFlowManifest) else None
    return record is not None and record.precision == "bf16"


def _may_be_available(backend: NamedBackend, bundle: Bundle[Manifest]) -> bool:
    """Whether a backend is worth trying, by a check that costs nothing."""
    if backend == "tensorrt":
        return bool(bundle.manifest.plans)
    if backend == "openvino":
        return find_spec("openvino") is not None
    return backend not in _PROVIDERS or _PROVIDERS[backend] in require("onnxruntime").get_available_providers()


def _open_and_check(
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
    """The engine, and the graph that it runs."""
    precisions = _PRECISIONS[backend] if precision is None else (precision,)
    # Imported here, because a machine needs only one of them.
    if backend == "tensorrt":
        from uflow_edge.runtime.engines.cuda import primary_context
        from uflow_edge.runtime.engines.plans import find_plan
        from uflow_edge.runtime.engines.tensorrt import TensorRtEngine

        plan = find_plan(bundle, precisions, primary_context().compute_capability)
        built_from = next(variant for variant in bundle.manifest.variants if variant.file == plan.graph)
        return TensorRtEngine(bundle, plan, stopwatch), built_from
    variant = graph_for(bundle.manifest, precisions)
    graph = bundle.path(variant)
    if backend == "onnxruntime":
        from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(graph, bundle.manifest, variant, threads), variant
    if backend == "openvino":
        from uflow_edge.runtime.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(graph, bundle.manifest, variant, threads), variant
    from uflow_edge.runtime.engines.onnx_runtime_gpu import OnnxRuntimeGpuEngine

    return OnnxRuntimeGpuEngine(graph, bundle.manifest, variant, _PROVIDERS[backend], threads, stopwatch), variant


def _in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, UflowEdgeError) else f"{type(error).__name__}: {text}"

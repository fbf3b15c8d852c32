"""The ONNX graph in onnxruntime on an NVIDIA GPU, by its CUDA or its TensorRT execution provider.

Inputs and outputs are bound to buffers on the device, which are made once per batch size. onnxruntime silently falls
back to the CPU if it cannot load a provider, so each new session is checked for the provider it really uses.

Source: onnxruntime's pages on I/O binding, on the CUDA and on the TensorRT execution provider.
"""

import os
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.bundle.manifest import BatchRange, Manifest, Signature, Variant
from uflow_edge.runtime.engines import EngineFailed, Outputs
from uflow_edge.runtime.engines.batches import batch_of, run_in_batches
from uflow_edge.runtime.engines.links import loadable_path
from uflow_edge.runtime.engines.onnx_runtime import refuse_clashing_packages, session_options
from uflow_edge.runtime.engines.stopwatch import Stopwatch, Transfers
from uflow_edge.runtime.errors import DISTRIBUTION, MissingDependency, UsageError, require
from uflow_edge.runtime.numeric import FloatMap

Provider: TypeAlias = Literal["CUDAExecutionProvider", "TensorrtExecutionProvider"]
_TITLES: dict[Provider, str] = {"CUDAExecutionProvider": "CUDA", "TensorrtExecutionProvider": "TensorRT"}
_HOW_TO_INSTALL = "pip uninstall -y onnxruntime && pip install onnxruntime-gpu (on a Jetson: see docs/engines.md)"


class OnnxRuntimeGpuEngine:
    """An onnxruntime session on the first NVIDIA GPU.

    Args:
        provider: execution provider; TensorRT builds an engine for minutes the first time, and caches it per user.
        threads: CPU threads for operators that do not run on the GPU.
        stopwatch: records the transfers of each run; None records nothing.

    Raises:
        MissingDependency: this onnxruntime lacks the provider, or cannot load it here.
        UsageError: the provider is TensorRT and the graph is not in fp32.
    """

    def __init__(
        self,
        graph: Path,
        manifest: Manifest,
        variant: Variant,
        provider: Provider,
        threads: int | None = None,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        refuse_clashing_packages()
        onnxruntime = require("onnxruntime")
        if provider not in onnxruntime.get_available_providers():
            raise MissingDependency(f"this onnxruntime has no {provider}. Install one that has: {_HOW_TO_INSTALL}")
        tensorrt = provider == "TensorrtExecutionProvider"
        self._batch = batch_of(variant) or (BatchRange() if tensorrt else None)
        options = _tensorrt_options(manifest, variant, self._batch) if tensorrt else {"use_tf32": "0"}
        # Operators that TensorRT does not support run on CUDA, and the rest on the CPU.
        providers: list[Any] = [(provider, options), *(["CUDAExecutionProvider"] if tensorrt else [])]
        with loadable_path(graph, variant) as path:
            self._session: Any = _session(onnxruntime, path, [*providers, "CPUExecutionProvider"], threads)
        if self._session.get_providers()[0] != provider:
            raise MissingDependency(
                f"onnxruntime lists {provider} but runs on {self._session.get_providers()[0]}: a library that it needs "
                "is missing or has another version; onnxruntime's message above names it"
            )
        self._signature = manifest.signature
        self._stopwatch = stopwatch
        self._bindings: dict[int, DeviceBinding] = {}
        self.precision = variant.precision
        self.name = f"onnxruntime {onnxruntime.__version__}, {_TITLES[provider]}, {variant.precision}"

    def run(self, *inputs: NDArray[Any]) -> Outputs:
        return run_in_batches(inputs, self._batch, self._run)

    def close(self) -> None:
        self._bindings.clear()
        self._session = None

    def _run(self, inputs: Sequence[NDArray[Any]]) -> list[FloatMap]:
        try:
            batch = len(inputs[0])
            if batch not in self._bindings:  # at most `MOST_AT_ONCE` sizes
                self._bindings[batch] = DeviceBinding(self._session, self._signature, batch, "cuda")
            return self._bindings[batch].run(inputs, self._stopwatch)
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            raise EngineFailed(f"{self.name}: the run failed ({' '.join(str(error).split())})") from error


class DeviceBinding:
    """Buffers on a device for one batch size, bound to a session's input and outputs.

    Args:
        batch: N.
        device: ``cuda``, or ``cpu`` in a test.
    """

    def __init__(self, session: Any, signature: Signature, batch: int, device: Literal["cuda", "cpu"]) -> None:
        empty = require("onnxruntime").OrtValue.ortvalue_from_shape_and_type
        self.batch = batch
        self._session = session
        self._inputs, self._outputs = (
            [empty([batch, *tensor.shape], np.dtype(tensor.dtype).type, device, 0) for tensor in tensors]
            for tensors in (signature.inputs, signature.outputs)
        )
        self._binding = session.io_binding()
        for tensor, value in zip(signature.inputs, self._inputs, strict=True):
            self._binding.bind_ortvalue_input(tensor.name, value)
        for tensor, value in zip(signature.outputs, self._outputs, strict=True):
            self._binding.bind_ortvalue_output(tensor.name, value)

    def run(self, inputs: Sequence[NDArray[Any]], stopwatch: Stopwatch | None = None) -> list[FloatMap]:
        """Run inputs, (N, …) each, to outputs, (N, …) float32 each, all on the host.

        Every step waits for the device, so that the host's clock can time it.
        """
        started = time.perf_counter()
        for value, values in zip(self._inputs, inputs, strict=True):
            value.update_inplace(np.ascontiguousarray(values))
        uploaded = time.perf_counter()
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
        computed = time.perf_counter()
        outputs = [np.array(value.numpy()) for value in self._outputs]  # copied: the next run writes the same buffer
        if stopwatch is not None:
            stopwatch.add(Transfers(1e3 * (uploaded - started), 1e3 * (time.perf_counter() - computed)))
        return outputs


def _session(onnxruntime: ModuleType, graph: Path, providers: list[Any], threads: int | None) -> Any:
    # onnxruntime prints messages to stdout, where verdicts may go.
    with redirect_stdout(sys.stderr):
        if hasattr(onnxruntime, "preload_dlls"):  # finds CUDA and cuDNN in pip's folders
            onnxruntime.preload_dlls()
        try:
            # No fallback: a failed run must raise an error, not be repeated on the CPU.
            return onnxruntime.InferenceSession(
                str(graph), session_options(threads), providers=providers, enable_fallback=0
            )
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            raise MissingDependency(f"onnxruntime cannot load {graph.name} ({' '.join(str(error).split())})") from error


def _tensorrt_options(manifest: Manifest, variant: Variant, batch: BatchRange | None) -> dict[str, str]:
    if variant.precision != "fp32":
        raise UsageError(
            "onnxruntime's TensorRT provider runs fp32 graphs only: it decides itself what runs in half precision, "
            "even where that overflows. Use --precision fp32, or build an engine: uflow-export --bundle … --trt"
        )
    options = _cache_options(manifest.files[variant.file])
    if batch is not None and batch.fixed is None:
        for key, size in (("min", batch.minimum), ("opt", batch.optimum), ("max", batch.maximum)):
            options[f"trt_profile_{key}_shapes"] = ",".join(
                f"{tensor.name}:{'x'.join(map(str, (size, *tensor.shape)))}" for tensor in manifest.signature.inputs
            )
    return options


def _cache_options(graph_sha256: str) -> dict[str, str]:
    """Cache engines in the user's cache folder, never in the bundle; without a writable folder, cache nothing."""
    from platformdirs import user_cache_path

    version = require("onnxruntime").__version__
    folder = user_cache_path(DISTRIBUTION, appauthor=False) / f"onnxruntime-{version}-{graph_sha256[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return {}
    if not os.access(folder, os.W_OK):
        return {}
    enabled = {"trt_engine_cache_enable": "1", "trt_timing_cache_enable": "1"}
    return enabled | {"trt_engine_cache_path": str(folder), "trt_timing_cache_path": str(folder)}

"""The ONNX graph in onnxruntime, on the CPU."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.manifest import Manifest, Variant
from uflow_edge.runtime.engines import EngineFailed, Outputs
from uflow_edge.runtime.engines.batches import batch_of, run_in_batches
from uflow_edge.runtime.engines.links import loadable_path
from uflow_edge.runtime.errors import BadInput, MissingDependency, require
from uflow_edge.runtime.numeric import FloatMap


class OnnxRuntimeEngine:
    """An onnxruntime session over one graph.

    Raises:
        MissingDependency: onnxruntime is not installed, or is installed twice.
        BadInput: the graph cannot be loaded.
    """

    def __init__(self, graph: Path, manifest: Manifest, variant: Variant, threads: int | None = None) -> None:
        refuse_clashing_packages()
        onnxruntime = require("onnxruntime")
        options = session_options(threads)
        if variant.precision == "int8":
            compute_as_written(options)
        try:
            with loadable_path(graph, variant) as path:
                self._session: Any = onnxruntime.InferenceSession(
                    str(path), options, providers=["CPUExecutionProvider"]
                )
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            raise BadInput(f"{graph}: onnxruntime cannot load this graph ({error})") from error
        self._signature = manifest.signature
        self._batch = batch_of(variant)
        self.precision = variant.precision
        self.name = f"onnxruntime {onnxruntime.__version__}, CPU, {variant.precision}"

    @classmethod
    def from_bundle(cls, bundle: Bundle[Manifest], variant: Variant, threads: int | None = None) -> "OnnxRuntimeEngine":
        """Open a graph of a bundle on the CPU. The caller closes it."""
        return cls(bundle.path(variant), bundle.manifest, variant, threads)

    def run(self, *inputs: NDArray[Any]) -> Outputs:
        return run_in_batches(inputs, self._batch, self._run)

    def close(self) -> None:
        self._session = None

    def _run(self, inputs: Sequence[NDArray[Any]]) -> list[FloatMap]:
        fed = {tensor.name: values for tensor, values in zip(self._signature.inputs, inputs, strict=True)}
        try:
            outputs = self._session.run(list(self._signature.output_names), fed)
        except Exception as error:  # see above
            raise EngineFailed(f"{self.name}: the run failed ({' '.join(str(error).split())})") from error
        return [np.asarray(output) for output in outputs]


def session_options(threads: int | None) -> Any:
    """Options of every session: CPU threads (default: one per core), and a log of errors only."""
    onnxruntime = require("onnxruntime")
    onnxruntime.disable_telemetry_events()  # no usage statistics leave the device
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    # Spinning workers starve the thresholding that runs beside them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def compute_as_written(options: Any) -> None:
    """Keep onnxruntime from fusing quantised graphs into its own integer kernels.

    Those quantise biases and, on x86, shift all activations to unsigned numbers. Our graphs keep the results of layers
    in floating point: the kernels would make them slower, and FP16 biases would overflow (onnxruntime 1.32).
    """
    options.add_session_config_entry("session.disable_quant_qdq", "1")


def refuse_clashing_packages() -> None:
    """Refuse onnxruntime beside onnxruntime-gpu: both write into the same folder, so which one runs is luck.

    Raises:
        MissingDependency: both are installed; the message says how to keep the GPU one.
    """
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            version(name)
        except PackageNotFoundError:
            return
    raise MissingDependency(
        "onnxruntime and onnxruntime-gpu are both installed and overwrite each other. Keep the GPU one with: "
        "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
    )

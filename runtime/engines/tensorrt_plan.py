"""Reads and checks a TensorRT plan of the bundle, and makes it ready to run.

Objects of the library are held in variables named after their class (``runtime``, ``engine``, ``context``), so that a
test can look up every attribute used here in the real bindings.

Sources: NVIDIA's documentation of the TensorRT Python API (10.3, 10.16, 11) and of TensorRT-RTX 1.7.
"""

import hashlib
from types import ModuleType
from typing import Any, Final

from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.manifest import Manifest, Plan, Signature
from uflow_edge.runtime.engines import EngineFailed
from uflow_edge.runtime.engines.plans import how_to_build
from uflow_edge.runtime.engines.tensorrt_library import TITLES, logger_of, recent_errors
from uflow_edge.runtime.errors import BadInput


class LoadedPlan:
    """A plan that TensorRT has loaded. Make, use and release it while the CUDA context is current.

    Attributes:
        context: ``IExecutionContext``; None once released.

    Raises:
        BadInput: the plan's file differs from the manifest, or is no engine of this bundle.
        EngineFailed: the library refuses the plan; the message says why.
    """

    def __init__(self, trt: ModuleType, bundle: Bundle[Manifest], chosen: Plan) -> None:
        content = (bundle.folder / chosen.file).read_bytes()
        # Hash the bytes that were read: the file may be replaced meanwhile.
        if hashlib.sha256(content).hexdigest() != bundle.manifest.files[chosen.file]:
            raise BadInput(
                f"{chosen.file}: the file is not the plan that was built (its SHA-256 differs). {how_to_build(bundle)}"
            )
        title = f"{TITLES[chosen.library]} {trt.__version__}"
        self._logger: Final = logger_of(trt)
        self._logger.errors.clear()
        self._runtime = runtime = trt.Runtime(self._logger)
        if "version-compatible" in chosen.options:
            runtime.engine_host_code_allowed = True  # such a plan contains code of the TensorRT that built it
        self._engine = engine = runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise EngineFailed(f"{chosen.file}: {title} refuses it ({self.recent_errors()}). {how_to_build(bundle)}")
        _check_tensors(trt, engine, bundle.manifest.signature, chosen.file)
        self.context: Any = _execution_context(trt, engine)
        if self.context is None:
            raise EngineFailed(f"{chosen.file}: {title} cannot run it ({self.recent_errors()})")

    def recent_errors(self) -> str:
        """The library's last error messages, on one line."""
        return recent_errors(self._logger)

    def release(self) -> None:
        """Release each object before the ones that it uses; afterwards the context's buffers may be freed."""
        self.context = None
        self._engine = None
        self._runtime = None


def records_graphs_itself(trt: ModuleType) -> bool:
    """Whether the library records CUDA graphs itself: TensorRT-RTX does, as it compiles kernels while it runs."""
    return hasattr(trt, "CudaGraphStrategy")


def _execution_context(trt: ModuleType, engine: Any) -> Any:
    if not records_graphs_itself(trt):
        return engine.create_execution_context()
    runtime_config = engine.create_runtime_config()
    runtime_config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    return engine.create_execution_context(runtime_config)


def _check_tensors(trt: ModuleType, engine: Any, signature: Signature, file: str) -> None:
    types = {trt.DataType.UINT8: "uint8", trt.DataType.FLOAT: "float32"}
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    found = {
        name: (tuple(engine.get_tensor_shape(name))[1:], types.get(engine.get_tensor_dtype(name))) for name in names
    }
    if found != {tensor.name: (tensor.shape, tensor.dtype) for tensor in (*signature.inputs, *signature.outputs)}:
        raise BadInput(
            f"{file}: its inputs and outputs ({', '.join(sorted(found))}) differ from the manifest in name, shape or "
            "type; build the plan again"
        )

"""The builder of TensorRT: from an ONNX graph to a plan, strongly typed.

One path for TensorRT 10.3 (JetPack 6) to 11 and for TensorRT-RTX. Precision is written in the graph, so it needs no
precision flags and no calibrator, which 11 no longer has. What only some versions have is looked for, never deduced
from a version number. Objects of the library are held in variables named after their class (``builder``, ``network``
and so on), so that a test can look up every attribute used here in the real bindings.

Sources: NVIDIA's documentation of the TensorRT Python API (10.3, 10.16, 11) and of TensorRT-RTX 1.7.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import ModuleType
from typing import Any, Literal

from tqdm import tqdm

from uflow_edge.export.engines.plan_options import PlanOptions
from uflow_edge.export.engines.toolchain import Toolchain, needed
from uflow_edge.runtime.bundle.manifest import BatchRange
from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.cli.interrupts import deferred_interrupts
from uflow_edge.runtime.engines.tensorrt_library import logger_of
from uflow_edge.runtime.errors import BadInput, UflowEdgeError, UsageError
from uflow_edge.runtime.storage.files import replacing
from uflow_edge.runtime.storage.strict_json import parse_json

DYNAMIC = -1  # as TensorRT writes the batch of a graph that takes any number of samples
_TYPES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16"}  # the others are called by their own name


class BuildFailed(UflowEdgeError):
    """TensorRT could read the graph, but could not build an engine from it."""


@dataclass(frozen=True, slots=True, order=True)
class TensorSpec:
    """An input or output of a graph: a type such as ``uint8`` or ``fp32``, and a shape with `DYNAMIC` for any batch."""

    name: str
    type: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.type} {list(self.shape)}"


@dataclass(frozen=True, slots=True)
class Layers:
    """The layers of an engine.

    Attributes:
        described: ``engine``: layers as they run, after fusion; ``network``: layers as parsed, where there was no GPU
            to load the engine on.
        details: one entry per layer.
        by_type: number of computing layers of the parsed network, by the type of their result.
    """

    described: Literal["engine", "network"]
    details: list[Any]
    by_type: Mapping[str, int]
    warnings: tuple[str, ...]


def build_engine(
    toolchain: Toolchain,
    graph: Path,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    options: PlanOptions,
    batch: BatchRange,
    timing_cache: Path,
) -> tuple[Any, Layers]:
    """Parse a graph, check it and build an engine; Ctrl-C stops the builder at its next step.

    Args:
        graph: an ONNX file; a second file beside it may hold its weights.
        inputs, outputs: that it must have.
        batch: images per run.
        timing_cache: file of measured kernel times; read and written if the target is the GPU of this machine.

    Returns:
        The plan, a buffer of bytes, and its layers.

    Raises:
        BadInput: the graph cannot be parsed, or has other inputs or outputs.
        UsageError: this version or machine does not support the options.
        BuildFailed: the builder failed; the message is its own.
    """
    trt = toolchain.module
    logger = logger_of(trt)
    logger.errors.clear()
    logger.warnings.clear()
    builder = trt.Builder(logger)
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # without it, networks always are
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)  # owns the weights until the engine is built
    if not parser.parse_from_file(str(graph)):
        raise BadInput(f"{graph}: {toolchain} cannot parse it: {_joined(_parser_errors(parser, logger))}")
    _check_signature(network, graph, inputs, outputs)
    layers, by_type = _network_layers(trt, network)
    config = _configured(toolchain, builder, network, options, batch)
    if toolchain.library == "tensorrt":  # ahead of time nothing is timed
        _load_timing_cache(config, timing_cache)
    config.progress_monitor = monitor = progress_monitor(trt)
    plan = _build(builder, network, config, monitor)
    if plan is None:
        raise BuildFailed(f"{graph}: {toolchain} built no engine ({options}): {_joined(logger.errors)}")
    warnings = tuple(dict.fromkeys(logger.warnings))
    if toolchain.library == "tensorrt":
        with replacing(timing_cache) as temporary:
            temporary.write_bytes(config.get_timing_cache().serialize())
        inspected = _engine_layers(trt, plan)
        if inspected is not None:
            return plan, Layers("engine", inspected, by_type, warnings)
    return plan, Layers("network", layers, by_type, warnings)


def progress_monitor(trt: Any) -> Any:
    """Progress bars of the builder's phases, one line each; setting ``interrupted`` stops the builder."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.interrupted = Event()
            self.bars: dict[str, tqdm[Any]] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.bars[phase_name] = progress((), phase_name, total=num_steps, unit="step")
            self.bars[phase_name].leave = False

        def step_complete(self, phase_name: str, step: int) -> bool:
            self.bars[phase_name].update()
            return not self.interrupted.is_set()

        def phase_finish(self, phase_name: str) -> None:
            self.bars.pop(phase_name).close()

    return Monitor()


def _parser_errors(parser: Any, logger: Any) -> list[str]:
    # The parser names the node; the first logged error names the cause, such as a missing file.
    return [*list(logger.errors)[:1], *(str(parser.get_error(i)) for i in range(parser.num_errors))]


def _build(builder: Any, network: Any, config: Any, monitor: Any) -> Any:
    # In its own thread: Python handles Ctrl-C in the main thread, and only while that is not inside the library.
    with deferred_interrupts(monitor.interrupted.set) as interrupted, ThreadPoolExecutor(1) as executor:
        plan = executor.submit(builder.build_serialized_network, network, config).result()
    if interrupted():
        raise KeyboardInterrupt
    return plan


def _configured(toolchain: Toolchain, builder: Any, network: Any, options: PlanOptions, batch: BatchRange) -> Any:
    trt = toolchain.module
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mebibytes << 20)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if hasattr(trt.BuilderFlag, "TF32"):  # on by default, but it would compute fp32 layers with less precision
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.version_compatible:
        config.set_flag(needed(toolchain, trt.BuilderFlag, "VERSION_COMPATIBLE"))
    if options.refittable:
        config.set_flag(needed(toolchain, trt.BuilderFlag, "REFIT"))
    if options.dla_core is not None:
        if options.dla_core >= builder.num_DLA_cores:
            raise UsageError(f"DLA core {options.dla_core}: {toolchain} finds {builder.num_DLA_cores} here")
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla_core
        config.set_flag(needed(toolchain, trt.BuilderFlag, "GPU_FALLBACK"))
    if toolchain.library == "tensorrt_rtx":
        config.num_compute_capabilities = len(toolchain.compute_capabilities)
        for i, capability in enumerate(toolchain.compute_capabilities):
            config.set_compute_capability(toolchain.compute_capability(capability), i)
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    if any(tensor.shape[0] == DYNAMIC for tensor in tensors):
        profile = builder.create_optimization_profile()
        for tensor in tensors:
            rest = tuple(tensor.shape)[1:]
            shapes = [(size, *rest) for size in (batch.minimum, batch.optimum, batch.maximum)]
            profile.set_shape(tensor.name, *shapes)
        config.add_optimization_profile(profile)
    return config


def _check_signature(network: Any, graph: Path, inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> None:
    found_inputs = [_spec(network.get_input(i)) for i in range(network.num_inputs)]
    found_outputs = [_spec(network.get_output(i)) for i in range(network.num_outputs)]
    for what, found, expected in (("inputs", found_inputs, inputs), ("outputs", found_outputs, outputs)):
        if sorted(found) != sorted(expected):
            has, wants = ("; ".join(map(str, sorted(tensors))) or "none" for tensors in (found, expected))
            raise BadInput(f"{graph}: its {what} are {has}, but the manifest asks for {wants}; export it again")


def _spec(tensor: Any) -> TensorSpec:
    return TensorSpec(tensor.name, _type(tensor), tuple(tensor.shape))


def _type(tensor: Any) -> str:
    name: str = tensor.dtype.name
    return _TYPES.get(name, name.lower())


def _network_layers(trt: ModuleType, network: Any) -> tuple[list[Any], Mapping[str, int]]:
    details, by_type = [], Counter[str]()
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        results = [_spec(layer.get_output(k)) for k in range(layer.num_outputs)]
        details.append({"name": layer.name, "type": layer.type.name, "results": [str(result) for result in results]})
        if layer.type != trt.LayerType.CONSTANT:  # weights do not compute
            by_type.update(result.type for result in results[:1])
    return details, dict(by_type)


def _engine_layers(trt: ModuleType, plan: Any) -> list[Any] | None:
    runtime = trt.Runtime(logger_of(trt))
    runtime.engine_host_code_allowed = True  # a version-compatible plan brings code; this one is a moment old and ours
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return None
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        found: list[Any] = parse_json(text)["Layers"]
    except (ValueError, KeyError):  # the engine is good even if its description cannot be read
        return None
    return found


def _load_timing_cache(config: Any, path: Path) -> None:
    kept = path.read_bytes() if path.is_file() else b""
    for content in (kept, b""):  # TensorRT refuses a cache of another version or GPU; then start with an empty one
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            return


def _joined(messages: Iterable[str]) -> str:
    unique = dict.fromkeys(" ".join(message.split()) for message in messages)
    return " | ".join(unique) or "it does not say why"

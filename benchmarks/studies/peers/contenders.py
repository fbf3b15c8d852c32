"""What contenders have in common, whomever they run against."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import cycle
from typing import TypeVar

from uflow_edge.benchmarks.studies.peers.models import Model
from uflow_edge.runtime.bundle.manifest import Precision
from uflow_edge.runtime.engines.selection import NamedBackend, open_engine
from uflow_edge.runtime.errors import UflowEdgeError
from uflow_edge.runtime.inspector import Inspector

T = TypeVar("T")

OURS: dict[str, tuple[NamedBackend, Precision]] = {
    "onnxruntime": ("onnxruntime", "fp32"),
    "OpenVINO": ("openvino", "fp32"),
    "OpenVINO in bf16": ("openvino", "bf16"),
    "OpenVINO in INT8": ("openvino", "int8"),
}
"""Engines of our runtime. Those in FP32 give the numbers of others; the rest are compared by their verdicts."""


def over(items: Sequence[T], call: Callable[[T], object]) -> Callable[[], object]:
    """A contender that takes one after the other, over and over."""
    following = cycle(items)
    return lambda: call(next(following))


def open_inspector(
    model: Model, backend: NamedBackend, threads: int, stack: ExitStack, precision: Precision = "fp32"
) -> Inspector:
    """Our runtime with a model, warmed up.

    Raises:
        UflowEdgeError: the backend is not installed, or does not compute the model well enough in this precision.
    """
    engine = open_engine(model.bundle, backend, precision, threads)
    stack.callback(engine.close)
    inspector = Inspector.from_bundle(model.bundle, engine)
    inspector.warm_up()
    return inspector


def open_inspectors(model: Model, threads: int, stack: ExitStack) -> tuple[dict[str, Inspector], list[str]]:
    """Our runtime in each way of `OURS` that works here, and a line on each that does not."""
    inspectors: dict[str, Inspector] = {}
    without: list[str] = []
    for name, (backend, precision) in OURS.items():
        try:
            inspectors[name] = open_inspector(model, backend, threads, stack, precision)
        except UflowEdgeError as error:
            without.append(f"{model.name}, without {name}: {error}")
    return inspectors, without

"""What contenders have in common, whomever they run against."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import cycle
from typing import TypeVar

from uflow_edge.benchmarks.studies.peers.models import Model
from uflow_edge.runtime.engines.selection import NamedBackend, open_engine
from uflow_edge.runtime.inspector import Inspector

T = TypeVar("T")


def over(items: Sequence[T], call: Callable[[T], object]) -> Callable[[], object]:
    """A contender that takes one after the other, over and over."""
    following = cycle(items)
    return lambda: call(next(following))


def open_inspector(model: Model, backend: NamedBackend, threads: int, stack: ExitStack) -> Inspector:
    """Our runtime with a model, FP32, warmed up.

    Raises:
        MissingDependency: the backend is not installed.
    """
    engine = open_engine(model.bundle, backend, "fp32", threads)
    stack.callback(engine.close)
    inspector = Inspector.from_bundle(model.bundle, engine)
    inspector.warm_up()
    return inspector

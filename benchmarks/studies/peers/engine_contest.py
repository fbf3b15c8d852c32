"""What our runtime adds to the engine it runs: bare ``session.run`` and OpenVINO's ``benchmark_app`` beside it.

Contenders take turns in bursts, for benchmark_app runs in a process of its own and can do no less.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np

from uflow_edge.benchmarks.studies.markdown import markdown_table
from uflow_edge.benchmarks.studies.peers.bare import BareSession
from uflow_edge.benchmarks.studies.peers.benchmark_app import benchmark_app_ms
from uflow_edge.benchmarks.studies.peers.contenders import open_inspector, over
from uflow_edge.benchmarks.studies.peers.models import Model, pictures
from uflow_edge.benchmarks.studies.peers.settings import Settings
from uflow_edge.benchmarks.studies.timing import Took, burst, interleaved_medians
from uflow_edge.runtime.bundle.uflow import INPUT_NAME
from uflow_edge.runtime.engines.selection import NamedBackend
from uflow_edge.runtime.errors import MissingDependency
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.numeric import Image

BARE, BARE_SPINNING = "bare session.run", "bare session.run, threads spinning"
APP, APP_FIXED = "benchmark_app", "benchmark_app, batch fixed to 1"
_BASES: dict[NamedBackend, str] = {"onnxruntime": BARE, "openvino": APP}


def engine_contest(models: Sequence[Model], settings: Settings) -> str:
    """A table in Markdown, a row a contender.

    Raises:
        AssertionError: our engine gives other numbers than bare ``session.run``.
    """
    rows = [row for model in models for row in _rows(model, settings)]
    return markdown_table(("network", "engine", "contender", "median", "to the bare engine"), rows)


def _rows(model: Model, settings: Settings) -> list[tuple[str, ...]]:
    frames = pictures(settings.pictures, (settings.picture_size, settings.picture_size))
    named: dict[tuple[NamedBackend, str], Callable[[], object]] = {}
    with ExitStack() as stack:
        for backend in _BASES:
            try:
                inspector = open_inspector(model, backend, settings.threads, stack)
            except MissingDependency:
                continue
            picture = inspector.prepare(frames[0]).pictures
            assert picture is not None  # the CPU resizes
            if backend == "onnxruntime":
                named[backend, BARE] = _bare(model, inspector, picture, settings, spinning=False)
                named[backend, BARE_SPINNING] = _bare(model, inspector, picture, settings, spinning=True)
            else:
                named[backend, APP] = partial(_app, model, settings, fixed=False)
                named[backend, APP_FIXED] = partial(_app, model, settings, fixed=True)
            named[backend, "our engine"] = burst(partial(inspector.engine.run, picture), settings.burst_length)
            named[backend, "inspect, picture to verdict"] = burst(
                over(frames, inspector.inspect), settings.burst_length
            )
        medians = interleaved_medians({" ".join(key): call for key, call in named.items()}, settings.bursts)
    return [
        (
            model.name,
            backend,
            name,
            f"{medians[f'{backend} {name}']:.2f} ms",
            f"{medians[f'{backend} {name}'] / medians[f'{backend} {_BASES[backend]}']:.2f}",
        )
        for backend, name in named
    ]


def _bare(
    model: Model, inspector: Inspector, picture: Image, settings: Settings, *, spinning: bool
) -> Callable[[], Took]:
    session = BareSession(model.graph, settings.threads, spinning=spinning)
    for ours, bare in zip(inspector.engine.run(picture), session.run(picture), strict=True):
        np.testing.assert_allclose(ours, bare, rtol=1e-4, atol=1e-4)
    return burst(partial(session.run, picture), settings.burst_length)


def _app(model: Model, settings: Settings, *, fixed: bool) -> Took:
    side = model.bundle.manifest.input_size
    shape = f"{INPUT_NAME}[1,{side},{side},3]"
    took = benchmark_app_ms(model.graph, shape, settings.threads, settings.burst_length, fixed=fixed)
    return Took(took / 1e3)

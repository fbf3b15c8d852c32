"""How long each graph of a bundle takes on this machine, for the report's table of costs."""

import statistics
import time
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.util import find_spec

import numpy as np

from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.engines import Engine
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.engines.openvino import OpenVinoEngine

_ROUNDS = 15


def latencies_ms(bundle: Bundle[UFlowManifest], threads: int | None = None) -> Mapping[tuple[str, str], float]:
    """Median milliseconds of one image, by graph file and engine name; engines take turns, so that all see the same.

    Args:
        bundle: all its graphs are run by onnxruntime, and by OpenVINO where it is installed.
        threads: of each engine; default, one a core.
    """
    with ExitStack() as stack:
        engines: dict[tuple[str, str], Engine] = {}
        for variant in bundle.manifest.variants:
            made: list[Engine] = [OnnxRuntimeEngine(bundle.path(variant), bundle.manifest, variant, threads)]
            if find_spec("openvino"):
                made.append(OpenVinoEngine(bundle.path(variant), bundle.manifest, variant, threads))
            for engine in made:
                stack.callback(engine.close)
                engines[variant.file, engine.name] = engine
        times: dict[tuple[str, str], list[float]] = {key: [] for key in engines}
        picture = np.full(bundle.manifest.signature.inputs[0].zeros(1).shape, 127, np.uint8)
        for round_ in range(_ROUNDS + 2):  # two to warm up
            for key, engine in engines.items():
                start = time.perf_counter()
                engine.run(picture)
                if round_ >= 2:
                    times[key].append((time.perf_counter() - start) * 1e3)
    return {key: statistics.median(found) for key, found in times.items()}

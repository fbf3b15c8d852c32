"""From nothing to the first verdict: ``python -m uflow_edge.benchmarks.studies.cold_start [--bundle FOLDER]``.

``uflow-infer`` as a new process, one frame of 640x480, the engine of the CPU: when its first JSON line appears, and how
much memory it took at most. Beside that the same start step by step, in processes that time each step.

The operating system has the files in its cache, as after any start but the first one since boot, and numba has
compiled its kernels before.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2

from uflow_edge.benchmarks.latency.starts import Start, start_infer
from uflow_edge.benchmarks.studies.gravel import gravel_bundle, gravel_frames
from uflow_edge.runtime.cli.command_line import table

RUNS = 9
LONGEST_S, MOST_MB = 2.0, 350.0

_STEPS = """
import sys, time
marks = [("start of Python", time.time())]
def done(step):
    marks.append((step, time.time()))
import numpy
done("import numpy")
import cv2
done("import cv2")
import numba
done("import numba")
import onnxruntime
done("import onnxruntime")
from uflow_edge.runtime.infer import arguments
from uflow_edge.runtime.bundle import folder as bundle
from uflow_edge.runtime.infer import command
from uflow_edge.runtime.infer import console
from uflow_edge.runtime.line import pipeline
from uflow_edge.runtime.infer import receivers
from uflow_edge.runtime.bundle import uflow as uflow_manifest
from uflow_edge.runtime import inspector
from uflow_edge.runtime.engines import onnx_runtime, selection
done("import our own modules")
loaded = bundle.Bundle.load(sys.argv[2], uflow_manifest.UFlowManifest)
done("bundle: read and verify")
variant = loaded.manifest.variants[0]
engine = onnx_runtime.OnnxRuntimeEngine.from_bundle(loaded, variant)
done("engine: open a session")
engine.run(*[tensor.zeros() for tensor in loaded.manifest.signature.inputs])
done("engine: first run")
inspecting = inspector.Inspector(loaded.manifest, engine)
inspecting.warm_up()
done("numba: kernels from its cache")
inspecting.inspect(cv2.imread(sys.argv[3]))
done("first frame")
before = float(sys.argv[1])
for step, after in marks:
    print(f"{step}\\t{after - before}")
    before = after
"""


def main() -> None:
    """Print medians, and whether the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="default: efficientnet_lite0 at 256, trained on gravel")
    arguments = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bundle = arguments.bundle or gravel_bundle(folder)
        picture = folder / "picture.png"
        cv2.imwrite(str(picture), next(gravel_frames(1, (480, 640))))
        first_ever = _to_first_verdict(bundle, picture, NUMBA_CACHE_DIR=str(folder / "numba"))
        _to_first_verdict(bundle, picture)  # numba compiles, if it never has
        starts, steps = [], []
        for _ in range(RUNS):
            starts.append(_to_first_verdict(bundle, picture))
            steps.append(_step_by_step(bundle, picture))
    _print_goals(starts)
    print(f"the first start after installing, when numba compiles: {first_ever.seconds:.1f} s")
    names = list(steps[0])
    medians = {name: statistics.median(run[name] for run in steps) for name in names}
    rows = [(name, f"{1e3 * seconds:.0f}") for name, seconds in medians.items()]
    print("\nstep by step, medians\n" + table(("", "ms"), [*rows, ("sum", f"{1e3 * sum(medians.values()):.0f}")], (0,)))


def _to_first_verdict(bundle: Path, picture: Path, **environment: str) -> Start:
    """Start ``uflow-infer``, with these variables in its environment too."""
    options = ["--bundle", str(bundle), "--images", str(picture), "--backend", "onnxruntime"]
    return start_infer(options, **environment)


def _step_by_step(bundle: Path, picture: Path) -> dict[str, float]:
    """Seconds of each step of a start."""
    command = [sys.executable, "-c", _STEPS, str(time.time()), str(bundle), str(picture)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {step: float(seconds) for step, seconds in (line.split("\t") for line in told.splitlines())}


def _print_goals(starts: Sequence[Start]) -> None:
    seconds = statistics.median(start.seconds for start in starts)
    megabytes = statistics.median(start.megabytes for start in starts)
    processor = statistics.median(start.processor_seconds for start in starts)
    rows = [
        ("to the first verdict", f"{seconds:.2f} s", f"{LONGEST_S:g} s", _met(seconds, LONGEST_S)),
        ("resident memory at most", f"{megabytes:.0f} MB", f"{MOST_MB:g} MB", _met(megabytes, MOST_MB)),
        ("processor time, to the end", f"{processor:.2f} s", "", ""),
    ]
    print(f"uflow-infer, a new process, median of {RUNS}")
    print(table(("", "measured", "goal: under", ""), rows, left=(0, 3)))


def _met(value: float, bound: float) -> str:
    return "met" if value < bound else "MISSED"


if __name__ == "__main__":
    main()

"""OpenVINO's own stopwatch, ``benchmark_app``: the same graph, one stream, one request after the other.

It comes with the package openvino. It fills the input with random numbers, waits for each result and leaves that where
it is: what it tells is what the engine alone takes.
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from uflow_edge.runtime.errors import BadInput, MissingDependency

_RUN = "from openvino.tools.benchmark.main import main; main()"
_REPORT = "benchmark_report.json"
_DEADLINE = 300.0  # seconds


def benchmark_app_ms(graph: Path, shape: str, threads: int, iterations: int, *, fixed: bool = False) -> float:
    """The median latency that benchmark_app reports, in milliseconds.

    Args:
        graph: ONNX file.
        shape: of its inputs, as benchmark_app writes it: ``image[1,256,256,3]``.
        threads: of the CPU.
        iterations: inferences to take the median of.
        fixed: compile the graph for this shape alone; otherwise it keeps a batch of any size, as our engine loads it.

    Raises:
        MissingDependency: openvino, or its benchmark_app, is not installed.
        BadInput: benchmark_app fails; the message ends with what it says.
    """
    with TemporaryDirectory() as folder:
        options = {
            "-m": str(graph),
            "-shape" if fixed else "-data_shape": shape,
            "-d": "CPU",
            "-api": "sync",
            "-hint": "none",
            "-nstreams": "1",
            "-nthreads": str(threads),
            "-niter": str(iterations),
            "-infer_precision": "f32",
            "-report_type": "no_counters",
            "-report_folder": folder,
        }
        arguments = [word for option in options.items() for word in option]
        done = subprocess.run(
            [sys.executable, "-c", _RUN, *arguments, "-json_stats"],
            capture_output=True,
            text=True,
            timeout=_DEADLINE,
            cwd=folder,
        )
        if "No module named 'openvino" in done.stderr:
            raise MissingDependency("benchmark_app is not there. Install it with: pip install openvino")
        report = Path(folder) / _REPORT
        if done.returncode != 0 or not report.is_file():
            said = (done.stdout + done.stderr).strip().splitlines()
            errors = [line.removeprefix("[ ERROR ] ") for line in said if line.startswith("[ ERROR ]")] or said[-1:]
            raise BadInput(f"{graph}: benchmark_app fails: {' '.join(errors)}")
        return read_report(json.loads(report.read_text(encoding="utf-8")))


def read_report(report: dict[str, dict[str, str]]) -> float:
    """The median latency in milliseconds out of the report that ``-json_stats`` writes.

    Raises:
        BadInput: it has none.
    """
    try:
        return float(report["execution_results"]["latency (ms)"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"benchmark_app's report has no median latency: {report!r:.300}") from error

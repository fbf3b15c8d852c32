"""The runtime is light: no torch, ever, and nothing heavy before it is used."""

import subprocess
import sys

import pytest

HEAVY = ["torch", "torchvision", "timm", "FrEIA", "numba", "cv2", "onnxruntime", "numpy", "PIL", "tqdm"]


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_importing_the_runtime_loads_nothing_heavy() -> None:
    assert loaded_by("import uflow_edge.runtime") == set()


@pytest.mark.parametrize(
    "module", ["inspector", "nfa", "command", "sinks", "sources", "engines.onnx_runtime", "overlay", "operating_point"]
)
def test_no_module_of_the_runtime_loads_torch(module: str) -> None:
    assert not loaded_by(f"import uflow_edge.runtime.{module}") & {"torch", "torchvision", "timm", "FrEIA"}


def test_inspecting_loads_no_torch(exported) -> None:
    statement = (
        "import numpy, uflow_edge.runtime as runtime\n"
        f"inspector = runtime.Inspector.load({str(exported)!r})\n"
        "inspector.inspect(numpy.zeros((50, 70, 3), numpy.uint8))"
    )
    loaded = loaded_by(statement)
    assert "onnxruntime" in loaded
    assert not loaded & {"torch", "torchvision", "timm", "FrEIA"}

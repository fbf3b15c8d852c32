"""The runtime is light: no torch, ever, and nothing heavy before it is used."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import uflow_edge.runtime

HEAVY = {"torch", "torchvision", "timm", "FrEIA", "numba", "cv2", "onnxruntime", "numpy", "PIL", "tqdm"}
FORBIDDEN = {"torch", "torchvision", "timm", "FrEIA", "onnx", "onnxscript", "sklearn"}
FORBIDDEN_TO_US = FORBIDDEN | {"scipy"}  # numba itself loads it where it is installed
OTHER_ROOMS = {f"uflow_edge.{room}" for room in ("export", "training", "benchmarks", "calibration")}

FOLDER = Path(uflow_edge.runtime.__file__).parent
FILES = sorted(FOLDER.rglob("*.py"))


def name_of(file: Path) -> str:
    parts = ["uflow_edge", "runtime", *file.relative_to(FOLDER).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = [name_of(file) for file in FILES]


def printed_by(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def loaded_by(statement: str) -> set[str]:
    return set(json.loads(printed_by(f"{statement}\nimport json, sys\nprint(json.dumps(list(sys.modules)))")))


def test_importing_the_runtime_loads_nothing_heavy() -> None:
    assert not loaded_by("import uflow_edge.runtime") & HEAVY


def test_a_command_line_is_read_without_numba() -> None:
    statement = "from uflow_edge.runtime.infer.command import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    code = f"{statement}\nimport sys\nprint('numba' in sys.modules)"
    assert printed_by(code).splitlines()[-1] == "False"


def test_the_modules_are_all_there() -> None:
    packages = {module.rpartition(".")[0].removeprefix("uflow_edge.") for module in MODULES}
    assert packages >= {"runtime", *(f"runtime.{room}" for room in ("engines", "nfa", "page", "sinks", "sources"))}
    assert {"uflow_edge.runtime.infer.command", "uflow_edge.runtime.page.server"} <= set(MODULES)


def test_no_module_of_the_runtime_loads_torch() -> None:
    """One interpreter imports them one after the other; whichever is the first to load something forbidden is named."""
    code = """
import importlib, json, sys
forbidden, modules = json.loads(sys.argv[1])
first = {}
for module in modules:
    importlib.import_module(module)
    for name in forbidden:
        if name in sys.modules:
            first.setdefault(name, module)
print(json.dumps([first, [module for module in modules if module in sys.modules]]))
"""
    forbidden = sorted(FORBIDDEN | OTHER_ROOMS)
    first, imported = json.loads(printed_by(code, json.dumps([forbidden, MODULES])))
    assert imported == MODULES
    assert first == {}


def imported_in(file: Path) -> Iterator[str]:
    """What a file imports anywhere, also inside functions and through `require`."""
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=str(module)):
                yield module
                yield from (f"{module}.{alias.name}" for alias in node.names)
            case ast.Call(func=ast.Name(id="require" | "import_module"), args=[ast.Constant(value=str(module)), *_]):
                yield module


def test_nor_does_any_function_of_the_runtime() -> None:
    offences = []
    for file, module in zip(FILES, MODULES, strict=True):
        for name in imported_in(file):
            first, _, rest = name.partition(".")
            if first in FORBIDDEN_TO_US or f"{first}.{rest.split('.')[0]}" in OTHER_ROOMS:
                offences.append((module, name))
    assert offences == []


def test_inspecting_loads_no_torch(exported) -> None:
    statement = (
        "import numpy, uflow_edge.runtime as runtime\n"
        f"inspector = runtime.Inspector.load({str(exported)!r})\n"
        "inspector.inspect(numpy.zeros((50, 70, 3), numpy.uint8))"
    )
    loaded = loaded_by(statement)
    assert "onnxruntime" in loaded
    assert not loaded & FORBIDDEN

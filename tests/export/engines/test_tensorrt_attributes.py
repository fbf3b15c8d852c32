"""Every attribute of TensorRT that our code uses exists in real bindings, although no GPU is there to run the code.

The code names its variables after the library's classes (``ROLES``); types of what their methods return are read from
the bindings' own docstrings. So each attribute can be looked up, and a library object under another name is an error.
"""

import ast
import inspect
import re
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

from extras import needs
from uflow_edge.export.engines.toolchain import load_library

pytestmark = needs("tensorrt_rtx_bindings")

MODULES = [
    "uflow_edge.export.engines.tensorrt",
    "uflow_edge.export.engines.toolchain",
    "uflow_edge.runtime.engines.tensorrt",
    "uflow_edge.runtime.engines.tensorrt_library",
    "uflow_edge.runtime.engines.tensorrt_plan",
]

# Names that TensorRT has and TensorRT-RTX has not. None so far: EXPLICIT_BATCH, the precision flags and the calibrator,
# which differ between TensorRT 10 and 11, are not used at all.
TENSORRT_ONLY: set[str] = set()

ROLES = {
    "builder": "Builder",
    "cache": "ITimingCache",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "engine": "ICudaEngine",
    "inspector": "EngineInspector",
    "layer": "ILayer",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "plan": "IHostMemory",
    "profile": "IOptimizationProfile",
    "runtime": "Runtime",
    "runtime_config": "IRuntimeConfig",
    "tensor": "ITensor",
}
PROBES = {"getattr": 0, "hasattr": 0, "needed": 1}  # called with an object at this position, and a name after it


class Lookup(ast.NodeVisitor):
    """Follows expressions that start at the library, and notes each attribute as ``Class.attribute``."""

    def __init__(self, trt: ModuleType) -> None:
        self.trt = trt
        self.found: set[str] = set()
        self.missing: set[str] = set()
        self.misnamed: set[str] = set()

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.type_of(node)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        value = self.type_of(node.value)
        role = getattr(value, "__name__", None) if inspect.isclass(value) else None
        for target in node.targets:
            if isinstance(target, ast.Name) and role in ROLES.values() and ROLES.get(target.id) != role:
                self.misnamed.add(f"{target.id} is a {role}")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in PROBES:
            at = PROBES[node.func.id]
            name = node.args[at + 1]
            if isinstance(name, ast.Constant):
                self.member(self.type_of(node.args[at]), str(name.value))
        self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    self.member(self.type_of(base), method.name)
        self.generic_visit(node)

    def type_of(self, node: ast.expr) -> Any:
        """The library's module, class, enumeration or member that an expression gives; None for anything else."""
        if isinstance(node, ast.Name):
            return self.trt if node.id == "trt" else getattr(self.trt, ROLES.get(node.id, ""), None)
        if isinstance(node, ast.Attribute):
            if ast.unparse(node) == "toolchain.module":
                return self.trt
            return self.member(self.type_of(node.value), node.attr)
        if isinstance(node, ast.Call):
            made = self.type_of(node.func)
            return made if inspect.isclass(made) else None
        return None

    def member(self, owner: Any, name: str) -> Any:
        if owner is None:
            return None
        label = f"{getattr(owner, '__name__', owner)}.{name}"
        if not hasattr(owner, name):
            self.missing.add(label)
            return None
        self.found.add(label)
        value = inspect.getattr_static(owner, name)
        if inspect.isclass(value):
            return value
        documented = value.fget.__doc__ if isinstance(value, property) else getattr(getattr(owner, name), "__doc__", "")
        returned = re.search(r"-> (?:[\w.]+\.)?(\w+)", documented or "")
        return getattr(self.trt, returned.group(1), None) if returned else None


def look_up(source: str) -> Lookup:
    lookup = Lookup(load_library("tensorrt_rtx"))
    lookup.visit(ast.parse(source))
    return lookup


@pytest.mark.parametrize("module", MODULES)
def test_every_attribute_of_the_library_exists(module) -> None:
    lookup = look_up(inspect.getsource(import_module(module)))
    assert lookup.missing - TENSORRT_ONLY == set()
    assert lookup.misnamed == set()


def test_the_list_of_exceptions_is_no_longer_than_it_must_be() -> None:
    missing = set().union(*(look_up(inspect.getsource(import_module(module))).missing for module in MODULES))
    assert missing >= TENSORRT_ONLY


def test_what_the_builder_uses_is_really_followed() -> None:
    found = set().union(*(look_up(inspect.getsource(import_module(module))).found for module in MODULES))
    assert found >= {
        "Builder.create_network",
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "OnnxParser.parse_from_file",
        "OnnxParser.get_error",
        "BuilderFlag.REFIT",
        "BuilderFlag.VERSION_COMPATIBLE",
        "IBuilderConfig.set_timing_cache",
        "ITimingCache.serialize",
        "IProgressMonitor.step_complete",
        "EngineInspector.get_engine_information",
        "DataType.name",
    }


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("config.int8_calibrator = None", {"IBuilderConfig.int8_calibrator"}),
        ("config.set_flag(trt.BuilderFlag.FP16)", {"BuilderFlag.FP16"}),
        ("engine.device_memory_size", {"ICudaEngine.device_memory_size"}),
        ("network.get_input(0).dtype.size", {"DataType.size"}),
        (
            "getattr(trt.NetworkDefinitionCreationFlag, 'EXPLICIT_BATCH')",
            {"NetworkDefinitionCreationFlag.EXPLICIT_BATCH"},
        ),
        ("class Log(trt.ILogger):\n    def write(self): ...", {"ILogger.write"}),
    ],
)
def test_an_attribute_that_is_not_there_is_found(source, missing) -> None:
    assert look_up(source).missing == missing


def test_a_library_object_under_another_name_is_found() -> None:
    assert look_up("net = builder.create_network(0)\nnet.get_inputs").misnamed == {"net is a INetworkDefinition"}

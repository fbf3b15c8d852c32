"""Imports TensorRT or TensorRT-RTX under any of their names, and makes the logger that both need."""

from collections import deque
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from uflow_edge.runtime.bundle.manifest import PlanLibrary
from uflow_edge.runtime.errors import MissingDependency, install_command

TITLES: dict[PlanLibrary, str] = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
_MODULES: dict[PlanLibrary, tuple[str, ...]] = {
    "tensorrt": ("tensorrt",),
    # The wheels of the package index install the second name; NVIDIA's own archive installs the first.
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
_EXTRAS: dict[PlanLibrary, str] = {"tensorrt": "trt", "tensorrt_rtx": "rtx"}
_KEPT_MESSAGES = 1000
_SHOWN_MESSAGES = 3


def load_library(library: PlanLibrary, how_to_install: str | None = None) -> ModuleType:
    """Import a library, under any of its names.

    Args:
        how_to_install: remedy in the error message; by default, the one for a machine that runs plans.

    Raises:
        MissingDependency: the library is not installed, or cannot be loaded.
    """
    reasons = []
    for name in _MODULES[library]:
        try:
            return import_module(name)
        except (ImportError, OSError) as error:  # OSError: a shared library that it loads is missing
            if not (isinstance(error, ImportError) and error.name == name):
                reasons.append(str(error))
    how_to_install = how_to_install or (
        "On a Jetson it comes with JetPack (the virtual environment needs --system-site-packages); elsewhere: "
        f"{install_command(_EXTRAS[library])}"
    )
    why = f"cannot be loaded ({'; '.join(reasons)})" if reasons else "is not installed"
    raise MissingDependency(f"{TITLES[library]} {why}. {how_to_install}")


@cache
def logger_of(trt: Any) -> Any:
    """The one logger of a library, with its last ``errors`` and ``warnings``.

    TensorRT keeps its first logger until the process ends, so builder and engines share this one.
    """

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=_KEPT_MESSAGES)
            self.warnings: deque[str] = deque(maxlen=_KEPT_MESSAGES)

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(" ".join(msg.split()))
            elif severity == trt.ILogger.WARNING:
                self.warnings.append(" ".join(msg.split()))

    return Logger()


def recent_errors(logger: Any) -> str:
    """The library's last error messages, on one line."""
    return " | ".join(list(dict.fromkeys(logger.errors))[-_SHOWN_MESSAGES:]) or "it gives no reason"

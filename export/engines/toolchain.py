"""Which TensorRT is installed, and what it builds for."""

import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from uflow_edge.export.engines.cuda_device import CudaDevice
from uflow_edge.export.engines.plan_options import ON_THE_JETSON, PlanOptions
from uflow_edge.runtime.bundle.manifest import PlanLibrary
from uflow_edge.runtime.engines.tensorrt_library import TITLES
from uflow_edge.runtime.engines.tensorrt_library import load_library as import_library
from uflow_edge.runtime.errors import MissingDependency, install_command

_WHAT_TO_INSTALL = (
    f"With an NVIDIA GPU: {install_command('trt')}, then --trt-target local. Without one, for desktop GPUs: "
    f"{install_command('rtx')}, then --trt-target rtx. {ON_THE_JETSON}"
)


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A library and its target: what must be the same for an engine to be used again.

    Attributes:
        module: the imported library.
        library: its name.
        version: its version.
        cuda: the driver's version of CUDA, or the one in the name of the library's package when no driver is asked.
        compute_capabilities: of the GPUs it builds for.
    """

    module: ModuleType
    library: PlanLibrary
    version: str
    cuda: str
    compute_capabilities: tuple[str, ...]

    def __str__(self) -> str:
        return f"{TITLES[self.library]} {self.version}"


def find_toolchain(options: PlanOptions) -> Toolchain:
    """The library for a target, and for ``local`` the GPU.

    Raises:
        MissingDependency: one of the two is absent; the message says what to install, and how else to get engines.
    """
    if options.target == "rtx":
        trt = load_library("tensorrt_rtx")
        gpus = tuple(sorted(set(options.compute_capabilities), key=float))
        return Toolchain(trt, "tensorrt_rtx", trt.__version__, _cuda_of_package(trt), gpus)
    trt = load_library("tensorrt")
    try:
        device = CudaDevice.first()
    except MissingDependency as error:
        raise MissingDependency(f"TensorRT builds on the GPU it builds for, but {error}. {_WHAT_TO_INSTALL}") from error
    return Toolchain(trt, "tensorrt", trt.__version__, device.cuda, (device.compute_capability,))


def load_library(library: PlanLibrary) -> ModuleType:
    """Import it to build with.

    Raises:
        MissingDependency: it is not installed, or cannot be loaded.
    """
    return import_library(library, _WHAT_TO_INSTALL)


def _cuda_of_package(trt: ModuleType) -> str:
    """``13`` where ``tensorrt_rtx_cu13_bindings`` is installed: the library itself does not tell."""
    beside = Path(str(trt.__file__)).parent.parent
    names = sorted(path.name for path in beside.glob("tensorrt_rtx_cu*.dist-info"))
    found = re.search(r"_cu(\d+)", " ".join(names))
    return found.group(1) if found else "unknown"

"""Which TensorRT is installed, and which GPUs it builds for.

Source: CUDA Driver API, sections 6.2 (initialisation), 6.3 (version) and 6.5 (device attributes).
"""

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from uflow_edge.export.engines.plan_options import ON_THE_JETSON, PlanOptions
from uflow_edge.runtime.bundle.manifest import PlanLibrary
from uflow_edge.runtime.engines.cuda import driver_library
from uflow_edge.runtime.engines.tensorrt_library import TITLES
from uflow_edge.runtime.engines.tensorrt_library import load_library as import_library
from uflow_edge.runtime.errors import MissingDependency, UsageError, install_command

_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_…
_WHAT_TO_INSTALL = (
    f"With an NVIDIA GPU: {install_command('trt')}, then --trt-target local. Without one, for desktop GPUs: "
    f"{install_command('rtx')}, then --trt-target rtx. {ON_THE_JETSON}"
)


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """The first GPU of CUDA, on which TensorRT builds.

    Attributes:
        compute_capability: such as ``8.7``.
        cuda: newest version of CUDA that the driver supports, such as ``12.6``.
    """

    compute_capability: str
    cuda: str

    @classmethod
    def first(cls) -> "CudaDevice":
        """Ask the driver, which respects CUDA_VISIBLE_DEVICES.

        Raises:
            MissingDependency: there is no driver, or no GPU that it can use.
        """
        try:
            driver = driver_library()
        except OSError as error:
            raise MissingDependency(f"no NVIDIA GPU here: its driver cannot be loaded ({error})") from error
        _check(driver.cuInit(0), "cuInit")
        version, device = ctypes.c_int(), ctypes.c_int()
        _check(driver.cuDriverGetVersion(ctypes.byref(version)), "cuDriverGetVersion")
        _check(driver.cuDeviceGet(ctypes.byref(device), 0), "cuDeviceGet")
        capability = []
        for attribute in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR):
            value = ctypes.c_int()
            _check(driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device), "cuDeviceGetAttribute")
            capability.append(str(value.value))
        # The driver writes 12.6 as 12060.
        return cls(".".join(capability), f"{version.value // 1000}.{version.value % 1000 // 10}")


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A library and its target; an engine is used again only if these are the same.

    Attributes:
        cuda: version of CUDA that the driver supports; without a driver, the one in the name of the package.
        compute_capabilities: of the GPUs it builds for.
    """

    module: ModuleType
    library: PlanLibrary
    version: str
    cuda: str
    compute_capabilities: tuple[str, ...]

    def __str__(self) -> str:
        return f"{TITLES[self.library]} {self.version}"

    def compute_capability(self, wanted: str) -> Any:
        """The library's constant for a compute capability such as ``8.6``.

        Raises:
            UsageError: the library does not build for it.
        """
        members = self.module.ComputeCapability.__members__
        known = {f"{name[2:-1]}.{name[-1]}": member for name, member in members.items() if name.startswith("SM")}
        if wanted not in known:
            raise UsageError(f"compute capability {wanted}: {self} builds for {', '.join(known)}. {ON_THE_JETSON}")
        return known[wanted]


def needed(toolchain: Toolchain, enumeration: Any, name: str) -> Any:
    """A member of one of the library's enumerations.

    Raises:
        UsageError: this version does not have it.
    """
    member = getattr(enumeration, name, None)
    if member is None:
        raise UsageError(f"{toolchain} cannot do this: it has no {name}")
    return member


def find_toolchain(options: PlanOptions) -> Toolchain:
    """Find the library for a target and, for ``local``, the GPU.

    Raises:
        MissingDependency: one of them is missing; the message says what to install, and how else to get engines.
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
    """Import a library.

    Raises:
        MissingDependency: it is not installed, or cannot be loaded.
    """
    return import_library(library, _WHAT_TO_INSTALL)


def _cuda_of_package(trt: ModuleType) -> str:
    """``13`` where ``tensorrt_rtx_cu13_bindings`` is installed; the library itself does not say."""
    beside = Path(str(trt.__file__)).parent.parent
    names = sorted(path.name for path in beside.glob("tensorrt_rtx_cu*.dist-info"))
    found = re.search(r"_cu(\d+)", " ".join(names))
    return found.group(1) if found else "unknown"


def _check(result: int, call: str) -> None:
    if result != 0:
        raise MissingDependency(f"no NVIDIA GPU that CUDA can use: {call} answered error {result}; see nvidia-smi")

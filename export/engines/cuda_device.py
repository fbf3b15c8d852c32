"""What the CUDA driver says of the first GPU. Asked by ctypes: two numbers are not worth a package.

Source: CUDA Driver API, sections 6.2 (initialisation), 6.3 (version) and 6.5 (device attributes).
"""

import ctypes
from dataclasses import dataclass

from uflow_edge.runtime.engines.cuda import driver_library
from uflow_edge.runtime.errors import MissingDependency

_COMPUTE_CAPABILITY_MAJOR = 75  # CU_DEVICE_ATTRIBUTE_…
_COMPUTE_CAPABILITY_MINOR = 76


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """The GPU that CUDA counts first, which is the one TensorRT builds on.

    Attributes:
        compute_capability: such as ``8.7``.
        cuda: newest version of CUDA its driver supports, such as ``12.6``.
    """

    compute_capability: str
    cuda: str

    @classmethod
    def first(cls) -> "CudaDevice":
        """Ask the driver; CUDA_VISIBLE_DEVICES is heeded.

        Raises:
            MissingDependency: no driver, or no GPU that it could use.
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


def _check(result: int, call: str) -> None:
    if result != 0:
        raise MissingDependency(f"no NVIDIA GPU that CUDA can use: {call} answered error {result}; see nvidia-smi")

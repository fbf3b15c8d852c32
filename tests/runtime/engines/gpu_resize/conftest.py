"""The kernel as a function of the host, and a device that runs it."""

import ctypes
import shutil
import subprocess
from collections.abc import Callable

import pytest

from host_kernels import STRICT, TYPES, Device
from uflow_edge.runtime.engines.gpu_resize import (
    KERNEL,
    PARAMETERS,
    SOURCE,
)


@pytest.fixture(scope="module")
def host(tmp_path_factory) -> Callable[..., None]:
    """The kernel as a function of the host."""
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    library = tmp_path_factory.mktemp("kernel") / "preprocess.so"
    subprocess.run([compiler, "-x", "c++", *STRICT, "-shared", "-fPIC", SOURCE, "-o", library], check=True)
    loaded = ctypes.CDLL(str(library))
    kernel = loaded[KERNEL]
    kernel.argtypes, kernel.restype = [TYPES[parameter] for parameter in PARAMETERS], None
    return kernel


@pytest.fixture
def device(host) -> Device:
    return Device(host)

"""What the CUDA driver says, read from a stand-in where there is no GPU."""

import pytest

from uflow_edge.export.engines import toolchain
from uflow_edge.export.engines.toolchain import CudaDevice
from uflow_edge.runtime.engines import cuda
from uflow_edge.runtime.errors import MissingDependency


class Orin:
    """Answers as the driver of a Jetson Orin under JetPack 6 does, through the same pointers."""

    def __init__(self, result: int = 0) -> None:
        self.result = result

    def cuInit(self, flags):
        return self.result

    def cuDriverGetVersion(self, version):
        version._obj.value = 12060
        return 0

    def cuDeviceGet(self, device, ordinal):
        device._obj.value = ordinal
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = {75: 8, 76: 7}[attribute]  # numbers of the two attributes in cuda.h
        return 0


def test_capability_and_version_are_read_as_people_write_them(monkeypatch) -> None:
    monkeypatch.setattr(toolchain, "driver_library", lambda: Orin())
    assert CudaDevice.first() == CudaDevice(compute_capability="8.7", cuda="12.6")


def test_a_driver_without_a_gpu_is_said_to_be_so(monkeypatch) -> None:
    monkeypatch.setattr(toolchain, "driver_library", lambda: Orin(result=100))
    with pytest.raises(MissingDependency, match="cuInit answered error 100"):
        CudaDevice.first()


def test_no_driver_is_said_to_be_so(monkeypatch) -> None:
    monkeypatch.setattr(cuda, "DRIVER_LIBRARY", "libno-such-driver.so.1")
    cuda.driver_library.cache_clear()
    with pytest.raises(MissingDependency, match="libno-such-driver"):
        CudaDevice.first()


@pytest.mark.gpu
def test_a_real_gpu_answers() -> None:
    device = CudaDevice.first()
    assert 5 <= float(device.compute_capability) < 20
    assert 10 <= float(device.cuda) < 30

from pathlib import Path

import pytest

from uflow_edge.benchmarks.latency.instruments import Instruments
from uflow_edge.benchmarks.latency.machine import describe_machine
from uflow_edge.benchmarks.latency.nvml import Nvml
from uflow_edge.benchmarks.latency.tegrastats import Tegrastats, parse_tegrastats

_ORIN = (
    "11-25-2026 10:00:00 RAM 2731/7620MB (lfb 9x4MB) SWAP 0/3810MB (cached 0MB) CPU [12%@1510,off,3%@1190,0%@1190] "
    "EMC_FREQ 0%@2133 GR3D_FREQ 34%@[611] VIC_FREQ 729 APE 174 CV0@-256C CPU@48.7C SOC2@47.1C GPU@46.9C tj@48.7C "
    "VDD_IN 5081mW/4990mW VDD_CPU_GPU_CV 1019mW/1000mW VDD_SOC 1456mW/1450mW"
)
_NANO = "RAM 1000/3964MB CPU [25%@921,20%@921] GR3D_FREQ 0%@76 PLL@40C CPU@42C thermal@41.5C POM_5V_IN 2532/2500"


def _write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.fixture
def jetson(tmp_path: Path) -> Path:
    return _write(
        tmp_path,
        {
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
            "proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 62.50\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n",
            "proc/meminfo": "MemTotal:        7802624 kB\nMemFree: 1 kB\n",
            "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
            "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
            "var/lib/nvpmodel/status": "pmode:0001 fmode:cool\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1510400\n",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "729600\n",
            "sys/class/thermal/thermal_zone0/temp": "48700\n",
            "sys/class/thermal/thermal_zone1/temp": "51250\n",
            "sys/class/thermal/thermal_zone2/temp": "off\n",
        },
    )


def test_a_jetson_is_described(jetson):
    machine = describe_machine(jetson)
    assert machine.jetson == "NVIDIA Jetson Orin Nano Developer Kit"
    assert machine.l4t == "R36.4.3 (JetPack 6)"
    assert machine.power_mode == "0001"
    assert machine.governor == "schedutil"
    assert machine.cpu == "ARM part 0xd42"
    assert machine.memory_gib == 7
    assert machine.system == "Ubuntu 22.04.5 LTS"
    assert machine.gpu is None
    assert "numpy" in machine.libraries


def test_a_pc_is_described_and_what_it_lacks_is_unknown(tmp_path):
    root = _write(tmp_path, {"proc/cpuinfo": "vendor_id\t: x\nmodel name\t: Some CPU @ 3.00GHz\n"})
    machine = describe_machine(root)
    assert machine.cpu == "Some CPU @ 3.00GHz"
    assert (machine.jetson, machine.l4t, machine.power_mode, machine.memory_gib) == (None, None, None, None)


def test_clocks_and_temperatures_come_from_files(jetson):
    reading = Instruments(root=jetson).read()
    assert reading.cpu_mhz == pytest.approx(1120.0)
    assert reading.celsius == 51.25
    assert (reading.gpu_mhz, reading.gpu_celsius, reading.gpu_throttled, reading.throttle_events) == (None,) * 4


def test_what_cannot_be_read_is_none_and_never_a_number(tmp_path):
    instruments = Instruments(root=tmp_path)
    reading = instruments.read()
    assert reading.seconds >= 0
    assert {getattr(reading, name) for name in ("cpu_mhz", "celsius", "gpu_mhz", "throttle_events")} == {None}
    assert instruments.joules() is None


def test_energy_of_the_packages(tmp_path):
    root = _write(tmp_path, {f"sys/class/powercap/intel-rapl:{i}/energy_uj": "2500000\n" for i in range(2)})
    assert Instruments(root=root).joules() == ("CPU packages alone (RAPL)", 5.0)


def test_heat_events_are_counted(tmp_path):
    name = "sys/devices/system/cpu/cpu{}/thermal_throttle/core_throttle_count"
    root = _write(tmp_path, {name.format(0): "3\n", name.format(1): "4\n"})
    assert Instruments(root=root).read().throttle_events == 7


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(_ORIN, (1296.666, 611, 48.7, 5.081), id="orin"),
        pytest.param(_NANO, (921, 76, 42, 2.532), id="nano"),
        pytest.param("RAM 1/2MB", (None, None, None, None), id="nothing"),
    ],
)
def test_lines_of_tegrastats(line, expected):
    found = parse_tegrastats(line)
    assert (found.cpu_mhz, found.gpu_mhz, found.celsius, found.watts) == pytest.approx(expected, abs=1e-3)


def test_tegrastats_adds_up_energy():
    tegrastats = Tegrastats()
    assert tegrastats.joules() is None
    tegrastats.follow(["RAM 1/2MB"])
    assert tegrastats.joules() is None
    tegrastats.follow([_ORIN, _ORIN])
    joules = tegrastats.joules()
    assert joules is not None and joules > 0
    instruments = Instruments(tegrastats=tegrastats)
    assert instruments.joules() == ("whole module (tegrastats)", joules)
    assert instruments.read().gpu_mhz == 611


class _Library:
    """An NVML of a GPU that tells its clock and energy, but, like a Jetson's, no temperature and no memory."""

    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0

    class NVMLError(Exception):
        pass

    def __init__(self, reasons: int) -> None:
        self._reasons = reasons

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetName(self, handle):
        return b"Some GPU"

    def nvmlSystemGetDriverVersion(self):
        return "570.1"

    def nvmlDeviceGetClockInfo(self, handle, kind):
        return 1410

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        return 12_500

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle):
        return self._reasons

    def nvmlDeviceGetTemperature(self, handle, kind):
        raise self.NVMLError

    def nvmlDeviceGetMemoryInfo(self, handle):
        raise self.NVMLError


@pytest.mark.parametrize(("reasons", "hot"), [(0x0, False), (0x1, False), (0x4, False), (0x20, True), (0x44, True)])
def test_a_gpu_tells_what_it_can(tmp_path, reasons, hot):
    nvml = Nvml(_Library(reasons))
    instruments = Instruments(nvml, root=tmp_path)
    reading = instruments.read()
    assert (nvml.name, nvml.driver, nvml.used_bytes()) == ("Some GPU", "570.1", None)
    assert (reading.gpu_mhz, reading.gpu_celsius, reading.gpu_throttled) == (1410, None, hot)
    assert instruments.joules() == ("GPU board alone (NVML)", 12.5)
    assert describe_machine(tmp_path, nvml).gpu == "Some GPU"

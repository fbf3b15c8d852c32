"""A description of the machine, without which timings mean little.

Files read: ``/proc/cpuinfo``, ``/proc/meminfo``, ``/etc/os-release``; on a Jetson ``/proc/device-tree/model``,
``/etc/nv_tegra_release`` and ``/var/lib/nvpmodel/status`` (NVIDIA, Jetson Linux Developer Guide).
"""

import os
import platform
import re
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from uflow_edge.benchmarks.latency.nvml import Nvml

_LIBRARIES = (
    "uflow-edge", "numpy", "opencv-python", "opencv-python-headless", "numba", "onnxruntime", "onnxruntime-gpu",
    "openvino", "tensorrt", "tensorrt-rtx", "pycuda",
)  # fmt: skip
_JETPACKS = {"R35": "JetPack 5", "R36": "JetPack 6", "R38": "JetPack 7"}
"""NVIDIA's major releases of Jetson Linux, and the JetPack each belongs to."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine and its software; a fact that cannot be read is None.

    Attributes:
        architecture: in the kernel's words.
        cores: how many this process may use.
        memory_gib: total memory, rounded.
        l4t: release of Jetson Linux, and the JetPack that it belongs to.
        power_mode: number of the nvpmodel mode of a Jetson.
        system: distribution.
    """

    cpu: str
    architecture: str
    cores: int
    memory_gib: int | None
    gpu: str | None
    gpu_driver: str | None
    jetson: str | None
    l4t: str | None
    power_mode: str | None
    governor: str | None
    system: str | None
    kernel: str
    python: str
    libraries: dict[str, str]


def describe_machine(root: Path = Path("/"), nvml: Nvml | None = None) -> Machine:
    """Describe this machine.

    Args:
        nvml: source of the facts about the GPU; None: there is none.
    """
    return Machine(
        cpu=_cpu(root),
        architecture=platform.machine(),
        cores=usable_cores(),
        memory_gib=_memory_gib(root),
        gpu=nvml.name if nvml else None,
        gpu_driver=nvml.driver if nvml else None,
        jetson=read_text(root / "proc/device-tree/model"),
        l4t=_l4t(root),
        power_mode=_found(r"pmode:(\d+)", read_text(root / "var/lib/nvpmodel/status")),
        governor=read_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        system=_found(r'^PRETTY_NAME="?([^"\n]+)', read_text(root / "etc/os-release")),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        libraries=_libraries(),
    )


def read_text(path: Path) -> str | None:
    """The text of a kernel file, without the end of line or string; None if it is empty or cannot be read."""
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8").strip("\0 \n") or None
    return None


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu(root: Path) -> str:
    text = read_text(root / "proc/cpuinfo")
    # ARM cores have no name of their own there, only a part number.
    part = _found(r"^CPU part\s*:\s*(\S+)", text)
    return (
        _found(r"^model name\s*:\s*(.+)$", text)
        or (f"ARM part {part}" if part else None)
        or platform.processor()
        or platform.machine()
    )


def _memory_gib(root: Path) -> int | None:
    kibibytes = _found(r"^MemTotal:\s*(\d+) kB", read_text(root / "proc/meminfo"))
    return None if kibibytes is None else round(int(kibibytes) / 2**20)


def _l4t(root: Path) -> str | None:
    # Its first line is: # R36 (release), REVISION: 4.3, GCID: …
    match = re.search(r"(R\d+) \(release\), REVISION: ([\d.]+)", read_text(root / "etc/nv_tegra_release") or "")
    if match is None:
        return None
    release, revision = match.groups()
    return f"{release}.{revision}" + (f" ({_JETPACKS[release]})" if release in _JETPACKS else "")


def _libraries() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _found(pattern: str, text: str | None) -> str | None:
    match = re.search(pattern, text or "", re.MULTILINE)
    return match[1].strip() if match else None

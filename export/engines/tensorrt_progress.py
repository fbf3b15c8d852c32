"""What TensorRT calls while it builds: a progress monitor that can stop it."""

from threading import Event
from typing import Any

from tqdm import tqdm

from uflow_edge.runtime.cli.command_line import progress


def progress_monitor(trt: Any) -> Any:
    """Progress bars of the builder's phases, one below the other as they nest; and the way to stop it."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.interrupted = Event()
            self.bars: dict[str, tqdm[Any]] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.bars[phase_name] = progress((), phase_name, total=num_steps, unit="step")
            self.bars[phase_name].leave = False

        def step_complete(self, phase_name: str, step: int) -> bool:
            self.bars[phase_name].update()
            return not self.interrupted.is_set()

        def phase_finish(self, phase_name: str) -> None:
            self.bars.pop(phase_name).close()

    return Monitor()

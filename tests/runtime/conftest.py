"""Real processes that several test modules of the runtime start: a broker, and `uflow-infer` itself."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from waiting import DEADLINE, wait_until

if TYPE_CHECKING:
    from brokers import Mosquitto, Subscriber

MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


@pytest.fixture
def brokers(tmp_path) -> "Iterator[Callable[..., Mosquitto]]":
    """Makes brokers, not yet started, and stops them in the end."""
    if MOSQUITTO is None:
        if os.environ.get("UFLOW_EDGE_REQUIRE_SERVICES"):
            pytest.fail("mosquitto is required, but not installed")
        pytest.skip("mosquitto is not installed")
    from brokers import Mosquitto

    made = []

    def make(*options: str) -> Mosquitto:
        made.append(Mosquitto(MOSQUITTO, tmp_path, *options))
        return made[-1]

    yield make
    for broker in made:
        broker.kill()


@pytest.fixture
def broker(brokers) -> "Mosquitto":
    broker = brokers()
    broker.start()
    return broker


@pytest.fixture
def subscriber() -> "Callable[..., AbstractContextManager[Subscriber]]":
    """Makes subscribers that go with their ``with`` block."""
    from brokers import Subscriber

    @contextmanager
    def make(broker: "Mosquitto", name: str = "listener") -> Iterator[Subscriber]:
        with closing(Subscriber(broker.port, name)) as listener:
            yield listener

    return make


class Run:
    """`uflow-infer` in a process of its own, with all that it says."""

    def __init__(self, said: Path, command: list[str]) -> None:
        self._said = said
        with said.open("wb") as file:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)

    @property
    def said(self) -> str:
        return self._said.read_text()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Until this is true of the run, which must not end before."""
        wait_until(condition, lambda: self.said, self.process)

    def wait_for(self, text: str, times: int = 1) -> None:
        """Until it has said this so often."""
        self.wait_until(lambda: self.said.count(text) >= times)

    def end(self, number: int | None = None) -> int:
        """The exit code, once it has ended: because of this signal, or by itself."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(DEADLINE)


@pytest.fixture
def start_infer(exported: Path, tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Starts `uflow-infer` on the bundle of the session, and kills in the end what still runs."""
    runs: list[Run] = []

    def start(*arguments: object, prefix: tuple[str, ...] = ()) -> Run:
        code = "from uflow_edge.runtime.infer.command import main; main()"
        command = [*prefix, sys.executable, "-c", code, "--bundle", str(exported), *map(str, arguments)]
        runs.append(Run(tmp_path / f"said-{len(runs)}.txt", command))
        return runs[-1]

    yield start
    for run in runs:
        run.process.send_signal(signal.SIGKILL)
        run.process.wait()

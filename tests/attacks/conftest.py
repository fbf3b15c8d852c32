"""The harness of all attacks: it tries seeded cases, says what became of each, and prints one table in the end.

How many cases there are is a parameter: a few by default, and thousands with ``-m slow``, which prints the table of
docs/robustness.md.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any, Literal

import pytest

from uflow_edge.runtime.errors import UflowEdgeError

Outcome = Literal["taken", "refused", "traceback", "hang", "fail-open"]
HANG_S = 30.0
_LONGEST_LINE = 2500


@dataclass
class Tally:
    """What became of the attacks of one kind."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    memory: int = 0

    def row(self, kind: str) -> str:
        counts = (
            self.outcomes.total(),
            *(self.outcomes[name] for name in ("refused", "traceback", "hang", "fail-open")),
        )
        cells = (kind, *map(str, counts), f"{self.memory / 1e6:.0f} MB", f"{self.slowest_s:.2f} s")
        return "| " + " | ".join(cells) + " |"


_TALLIES: dict[str, Tally] = {}
_HEAD = ("kind", "cases", "refused", "tracebacks", "hangs", "fail-open", "largest memory", "slowest")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _TALLIES:
        terminalreporter.write_sep("-", "attacks")
        for line in (" | ".join(_HEAD), "|".join(" --- " for _ in _HEAD)):
            terminalreporter.write_line(f"| {line} |")
        for kind, tally in _TALLIES.items():
            terminalreporter.write_line(tally.row(kind))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that take ``times`` run twice: with a few cases, and with a hundred times as many where time allows."""
    if "times" in metafunc.fixturenames:
        many = pytest.param(100, id="many", marks=pytest.mark.slow)
        metafunc.parametrize("times", [pytest.param(1, id="few"), many])


class Hang(BaseException):
    """A case took too long; no ``except Exception`` catches it."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    def expire(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def memory_now(name: Literal["VmRSS", "VmHWM"] = "VmRSS") -> int:
    """Bytes that this process has, or has had at most."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith(name))


class Attacks:
    """Tries the cases of one kind and fails on the first that is neither taken soundly nor refused in one line."""

    def __init__(self, kind: str) -> None:
        self._tally = _TALLIES.setdefault(kind, Tally())

    def attempt(
        self, case: object, work: Callable[[], Any], sound: Callable[[Any], bool] = lambda found: True
    ) -> Outcome:
        """Do the work of one case in this process.

        Args:
            case: all that is needed to repeat it, such as its seed.
            work: raises `UflowEdgeError` to refuse.
            sound: whether what it returns else can be relied upon.
        """
        return self.measured(case, work, sound)[0]

    def measured(
        self, case: object, work: Callable[[], Any], sound: Callable[[Any], bool] = lambda found: True
    ) -> tuple[Outcome, int]:
        """Likewise; returns also how many bytes of memory it took at most."""
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, started = memory_now(), time.perf_counter()
        outcome, said = self._outcome(work, sound)
        memory = memory_now("VmHWM") - before
        self.note(case, outcome, said, time.perf_counter() - started, memory)
        return outcome, memory

    @staticmethod
    def _outcome(work: Callable[[], Any], sound: Callable[[Any], bool]) -> tuple[Outcome, str]:
        try:
            with at_most(HANG_S):
                found = work()
        except UflowEdgeError as error:
            text = str(error)
            return ("refused" if 0 < len(text) < _LONGEST_LINE and "\n" not in text else "traceback"), text
        except Hang:
            return "hang", f"more than {HANG_S:g} s"
        except Exception as error:
            return "traceback", repr(error)
        return ("taken" if sound(found) else "fail-open"), repr(found)[:500]

    def note(self, case: object, outcome: Outcome, said: str, seconds: float, memory: int) -> None:
        """Count a case that was tried elsewhere, and fail if it came out badly."""
        tally = self._tally
        tally.outcomes[outcome] += 1
        tally.slowest_s, tally.memory = max(tally.slowest_s, seconds), max(tally.memory, memory)
        assert outcome in ("taken", "refused"), f"{outcome}: {case}: {said}"


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    said: str
    seconds: float
    memory: int

    @property
    def outcome(self) -> Outcome:
        """What that means: 70 and codes that no table lists are tracebacks, and so is every line of Python's own."""
        if self.code == -signal.SIGKILL:
            return "hang"
        if self.code not in (0, 1, 2, 3, 4, 130) or "Traceback" in self.said or "internal error" in self.said:
            return "traceback"
        return "taken" if self.code in (0, 1) else "refused"


class Commands:
    """Runs real commands in processes of their own, under limits."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def start(
        self, name: str, *arguments: object, limits: Sequence[tuple[int, int]] = (), **environment: str
    ) -> "subprocess.Popen[bytes]":
        code = (
            "import contextlib, resource, sys\n"
            f"for limit, value in {[(int(one), value) for one, value in limits]}:\n"
            "    resource.setrlimit(limit, (value, value))\n"
            f"sys.argv[0] = {name!r}\n"
            "from uflow_edge.__main__ import main\n"
            "try:\n"
            "    main()\n"
            "finally:\n"  # what wait4 says would be the peak of this process, if that is higher
            "    with contextlib.suppress(OSError), open('/proc/self/status') as status:\n"
            "        found = next(line.split()[1] for line in status if line.startswith('VmHWM'))\n"
            "        open('peak.txt', 'w').write(found)\n"
        )
        (self._folder / "peak.txt").unlink(missing_ok=True)
        with (self._folder / "said.txt").open("wb") as said:
            return subprocess.Popen(
                [sys.executable, "-c", code, *map(os.fsencode, map(str, arguments))],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env={**os.environ, "OMP_WAIT_POLICY": "passive", **environment},
            )

    def end(self, process: "subprocess.Popen[bytes]", within_s: float = 240.0) -> Ended:
        """Wait for it; one that does not end is killed."""
        started = time.perf_counter()
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        said, peak = (self._folder / name for name in ("said.txt", "peak.txt"))
        kilobytes = peak.read_text() if peak.exists() else ""
        seconds = time.perf_counter() - started
        return Ended(process.returncode, said.read_text(errors="replace"), seconds, int(kilobytes or 0) << 10)

    def run(self, name: str, *arguments: object, **options: Any) -> Ended:
        return self.end(self.start(name, *arguments, **options))


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path)


@pytest.fixture
def attacks() -> Callable[[str], Attacks]:
    return Attacks


class Mutations:
    """Seeded changes of bytes and of parsed JSON."""

    ODD: tuple[Any, ...] = (
        *(None, True, False, -1, 0, 1, 1e-320, -0.0, 1e38, 1e308, 10**12, 10**400, float("nan"), float("inf")),
        *("", "x" * 10_000, "\x1b[31m", "a\nb", "\ud800", "../x", "nan", [], {}, [[]], {"a": {}}, [1] * 1000),
    )

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def of_bytes(self, content: bytes, within: int | None = None) -> bytes:
        """Some bytes are exchanged, taken away, doubled or put in; sometimes the end is missing."""
        random, found = self.random, bytearray(content)
        for _ in range(random.choice((1, 1, 2, 4, 16))):
            at = random.randrange(min(len(found), within or len(found)) or 1)
            size = random.choice((1, 1, 2, 4, 8))
            kind = random.random()
            if kind < 0.4:
                found[at : at + size] = random.randbytes(size)
            elif kind < 0.6:
                found[at : at + size] = random.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * size
            elif kind < 0.8:
                del found[at : at + size]
            else:
                found[at:at] = found[at : at + 8 * size]
        if random.random() < 0.15:
            del found[random.randrange(len(found) or 1) :]
        return bytes(found)

    def of_json(self, value: Any) -> Any:
        """One thing somewhere is exchanged, taken away or added."""
        random = self.random
        if isinstance(value, dict) and value and random.random() < 0.92:
            key, kind = random.choice(list(value)), random.random()
            if kind < 0.8:
                return {**value, key: self.of_json(value[key])}
            if kind < 0.9:
                return {name: one for name, one in value.items() if name != key}
            return {**value, random.choice((f"{key}x", "", "\ud800", "__class__")): random.choice(self.ODD)}
        if isinstance(value, list) and value and random.random() < 0.8:
            at = random.randrange(len(value))
            return [*value[:at], self.of_json(value[at]), *value[at + 1 :]]
        if isinstance(value, float | int) and random.random() < 0.3:
            return value * random.choice((-1, 0.5, 2, 1e6, 1e30))
        return random.choice(self.ODD)


@pytest.fixture
def mutations() -> Callable[[int], Mutations]:
    return Mutations

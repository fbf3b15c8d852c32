"""A peer in a process of its own, under an interpreter that has what it needs; this side of `answering`."""

import json
import subprocess
from pathlib import Path
from typing import Any, TypeVar

from uflow_edge.runtime.errors import BadInput, MissingDependency

_ANSWERING = Path(__file__).with_name("answering.py")

P = TypeVar("P", bound="PeerProcess")


class PeerProcess:
    """An interpreter with a peer in it. Use it in a ``with`` statement.

    Args:
        name: for people.
        interpreter: that has the peer.
        module: beside `answering`, whose ``Peer`` answers.
        arguments: of that ``Peer``.
        folder: where it works, and what it writes.
    """

    def __init__(self, name: str, interpreter: str, module: str, *arguments: str, folder: Path) -> None:
        self._name = name
        self._folder = folder.absolute()
        self._log = (folder / f"{module}.log").open("w")
        self._process = subprocess.Popen(
            [interpreter, "-B", str(_ANSWERING), module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=folder,
        )

    def __enter__(self: P) -> P:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Its answer to a command.

        Raises:
            BadInput: it cannot, and says why.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({command: arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "it has ended"}
        if "error" in answer:
            raise BadInput(f"{self._name} cannot {command}: {answer['error']}; more in {self._log.name}")
        return answer


def what_is_missing(interpreter: str, imports: str, folder: Path) -> str | None:
    """The complaint of an interpreter about a line of imports, run in a folder; None where all are there.

    Raises:
        MissingDependency: it cannot be started.
    """
    try:
        probe = subprocess.run([interpreter, "-B", "-c", imports], capture_output=True, text=True, cwd=folder)
    except OSError as error:
        raise MissingDependency(f"{interpreter}: cannot be started ({error})") from error
    if probe.returncode == 0:
        return None
    return (probe.stderr.strip().splitlines() or ["it says nothing"])[-1]

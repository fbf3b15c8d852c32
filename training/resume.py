"""The state of an interrupted run: read back only if it belongs to the same run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from uflow_edge.export.tensors import load_tensors
from uflow_edge.runtime.errors import BadInput

S = TypeVar("S")


def read_state(path: Path, run: dict[str, Any], kind: Callable[..., S]) -> S | None:
    """What an interrupted run has left, or None if there is nothing.

    Args:
        path: a file that holds a dictionary with the entry ``run``.
        run: everything that decides the result; the file's must be the same.
        kind: of state; made of the file's other entries.

    Raises:
        BadInput: the file cannot be read, or belongs to another run.
    """
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = load_tensors(path, "the state of an interrupted run")
        saved_run = content.pop("run")
        state = kind(**content)
        different = [name for name in run if saved_run.get(name) != run[name]]
    except (BadInput, AttributeError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path}: cannot be read as the state of an interrupted run; start over with --restart"
        ) from error
    if different:
        raise BadInput(
            f"{path}: belongs to an interrupted run with another {', '.join(different)}; "
            "give the same options to go on, or start over with --restart"
        )
    return state

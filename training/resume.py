"""The state of an interrupted training: read only by the same training, and kept until its result is written."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from torch import Tensor

from uflow_edge.export.checkpoints.tensors import load_tensors, save_tensors
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.storage.files import check_writable
from uflow_edge.training.progress import resume_file

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S")


def refuse_to_replace(out: Path, kind: Literal["file", "folder"], overwrite: bool) -> None:
    """Check before the work that a training can and may write its result and its state.

    Raises:
        BadInput: the result exists and may not be replaced, or cannot be written.
    """
    check_writable(out, kind)
    check_writable(resume_file(out))
    if out.exists() and not overwrite:
        raise BadInput(f"{out}: exists already; choose another --out, or replace it with --overwrite")


@contextmanager
def state_until_written(out: Path) -> Iterator[None]:
    """Write the result of a training in the body; its state is deleted only after that.

    Raises:
        BadInput: the result cannot be written; the message says how to continue.
    """
    state = resume_file(out)
    try:
        yield
    except OSError as error:
        raise BadInput(
            f"{out}: cannot be written ({error.strerror or error}); nothing is lost: fix this, and the same command "
            f"continues from {state}"
        ) from error
    state.unlink(missing_ok=True)


def write_state(path: Path, run: dict[str, Any], state: "DataclassInstance") -> None:
    """Write a state for `read_state` in one rename: ``run``, and every field under its name."""
    save_tensors({"run": run, **{field.name: _plain(getattr(state, field.name)) for field in fields(state)}}, path)


def _plain(value: Any) -> Any:
    """The same with tensors in host memory and tuples without names, which any machine can read."""
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value)) if isinstance(value, tuple) else list(map(_plain, value))
    return value


def saved_run(path: Path) -> dict[str, Any]:
    """What a state says of its run; empty if there is no file. `read_state` has found the file to be readable."""
    return dict(load_tensors(path, "the state of an interrupted run")["run"]) if path.exists() else {}


def read_state(path: Path, run: dict[str, Any], kind: Callable[..., S]) -> S | None:
    """The state of an interrupted run, or None if there is no file.

    Args:
        path: a file that holds a dictionary with the entry ``run``.
        run: everything that decides the weights, by name; the file must have the same values.
        kind: constructor of the state, called with the other entries of the file.

    Raises:
        BadInput: the file cannot be read, or belongs to another run; the message names the differences.
    """
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = load_tensors(path, "the state of an interrupted run")
        saved = content.pop("run")
        state = kind(**content)
        different = [_difference(name, saved.get(name), run[name]) for name in run if saved.get(name) != run[name]]
    except (BadInput, AttributeError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path}: cannot be read as the state of an interrupted run; start over with --restart"
        ) from error
    if different:
        raise BadInput(
            f"{path}: belongs to an interrupted run that differs: {'; '.join(different)}. "
            "Repeat that command to continue it, or start over with --restart"
        )
    return state


def _difference(name: str, saved: Any, current: Any) -> str:
    label = name.replace("_", " ")
    if saved is None:
        return f"{label} not recorded, as in another version of uflow-edge"
    if isinstance(current, list):  # content hashes
        gone, new = len(set(saved) - set(current)), len(set(current) - set(saved))
        return f"{label}: {gone} of {len(saved)} gone, {new} new" if gone or new else f"{label} in another order"
    return f"{label} {saved} there, {current} here"

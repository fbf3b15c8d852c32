"""Files of tensors are untrusted: they are read as plain data or not at all, in memory bounded by the file's size."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from uflow_edge.export.checkpoints.inert import is_harmless, is_plain
from uflow_edge.export.checkpoints.pickles import NotData
from uflow_edge.export.checkpoints.torch_file import read_torch_file
from uflow_edge.export.wording import one_line
from uflow_edge.runtime.errors import BadInput, UflowEdgeError
from uflow_edge.runtime.storage.files import replacing


def load_tensors(path: Path, what: str, *, inert: bool = False) -> Any:
    """What ``torch.save`` wrote, if it is nothing but tensors and plain types; code in it is never run.

    Tensors that are no plain arrays of numbers (sparse, quantised, without data) come as `Inert`.

    Args:
        what: it is meant to be, for the error: "a checkpoint".
        inert: let objects of training frameworks pass, as lifeless stand-ins; see `inert.py`.

    Raises:
        BadInput: no such file, truncated, damaged, compressed, no PyTorch file at all, or holding anything else.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file; expected {what}")
    try:
        return read_torch_file(path, is_harmless if inert else is_plain)
    except NotData as error:
        raise BadInput(f"{path}: cannot be read as {what}: {error}") from error
    except Exception as error:  # damage shows as any of a dozen unrelated types
        raise BadInput(
            f"{path}: cannot be read as {what}: it is truncated, damaged, not a PyTorch file, or holds code, which is "
            f"never run ({type(error).__name__}: {one_line(str(error))})"
        ) from error


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever is raised within into one line that begins with the path.

    Args:
        what: it is meant to be: "a U-Flow checkpoint".
    """
    try:
        yield
    except BadInput as error:
        text = str(error)
        raise error if text.startswith(str(path)) else BadInput(f"{path}: {text}") from error
    except UflowEdgeError:
        raise
    except Exception as error:  # a hostile or damaged file can make any library on its way raise anything
        raise BadInput(
            f"{path}: cannot be used as {what}: something in it is not as expected "
            f"({type(error).__name__}: {one_line(str(error))})"
        ) from error


def save_tensors(content: dict[str, Any], path: Path) -> None:
    """Write tensors and plain types in one rename.

    Raises:
        OSError: they cannot be written, such as on a full disk; what was there before is still there.
    """
    try:
        # Through a file object: given a path, torch.save refuses names that start with a dot and have no suffix.
        with replacing(path) as temporary, temporary.open("wb") as file:
            torch.save(content, file)
    except (RuntimeError, OSError) as error:  # torch hides the one behind the other
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise OSError(cause.errno, cause.strerror, str(path)) from error


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """A state dict in the safetensors format.

    Raises:
        BadInput: no such file, or not in this format.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file; expected a state dict")
    try:
        return load_file(path)
    except Exception as error:  # SafetensorError, and KeyError for types that torch has not
        raise BadInput(f"{path}: is not a safetensors file ({one_line(str(error))})") from error


def load_state(path: Path) -> Any:
    """The content of a file of weights, in the format that its suffix names."""
    if path.suffix == ".safetensors":
        return load_safetensors(path)
    return load_tensors(path, "a state dict of plain tensors", inert=True)

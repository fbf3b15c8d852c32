"""Files of tensors are untrusted: they are read as plain data or not at all."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from uflow_edge.export.inert import refused_names, stand_ins
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.files import replacing


def load_tensors(path: Path, what: str, *, inert: bool = False) -> Any:
    """What ``torch.save`` wrote, if it is nothing but tensors and plain types; code in it is never run.

    Args:
        path: the file.
        what: it is meant to be, for the error: "a checkpoint".
        inert: let objects of training frameworks pass, as lifeless stand-ins; see `uflow_edge.export.inert`.

    Raises:
        BadInput: no such file, truncated, no PyTorch file at all, or holding anything else.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file; expected {what}")
    refused: list[str] = []
    try:
        refused = refused_names(path)
        with torch.serialization.safe_globals(stand_ins(path) if inert else []):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch.load raises half a dozen unrelated types, and its text recommends to run the file's code.
        named = f" (it names {', '.join(refused[:5])})" if refused else ""
        raise BadInput(
            f"{path}: cannot be read as {what}: it is truncated, not a PyTorch file, or holds code, which is never "
            f"run{named}"
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


def load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """A state dict in the safetensors format.

    Raises:
        BadInput: no such file, or not in this format.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file; expected a state dict")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise BadInput(f"{path}: is not a safetensors file ({error})") from error

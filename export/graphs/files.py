"""ONNX models to files, checked and whole; needs no torch."""

from pathlib import Path

import onnx
import onnx_ir as ir

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.storage.files import scratch_folder

DATA_SUFFIX = ".data"
LARGEST_FILE = 1 << 30
"""Bytes of weights above which they get a file of their own; protobuf refuses files of 2 GiB."""


def write_onnx(model: ir.Model, path: Path, largest_file: int = LARGEST_FILE) -> tuple[Path, ...]:
    """Check a model and write it, all or nothing.

    Args:
        model: what `trace` or `to_fp16` returned.
        largest_file: bytes of weights above which they go into a second file beside it, named after it.

    Returns:
        The files written: the graph, and its weights where they lie apart.

    Raises:
        BadInput: the model does not pass the ONNX checker.
        OSError: it cannot be written; what was there before is still there.
    """
    weights = sum(
        value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None
    )
    data = path.with_name(path.name + DATA_SUFFIX)
    apart = weights > largest_file
    path.parent.mkdir(parents=True, exist_ok=True)
    # In a folder of its own, for the graph names the file of its weights.
    with scratch_folder(path.parent) as folder:
        written = folder / path.name
        ir.save(model, written, external_data=data.name if apart else None)
        try:
            onnx.checker.check_model(str(written), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise BadInput(f"{path}: the exported graph is not valid ONNX ({error})") from error
        path.unlink(missing_ok=True)  # never an old graph beside new weights
        data.unlink(missing_ok=True)
        if apart:
            written.with_name(data.name).replace(data)
        written.replace(path)
    return (path, data) if apart else (path,)

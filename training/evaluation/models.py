"""Opens the model to evaluate: a bundle, or a checkpoint, which is exported to a temporary bundle.

A checkpoint does not run in torch. So its metrics equal those of its bundle, bit for bit, and a checkpoint whose graph
disagrees with it is refused here too.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from uflow_edge.runtime.bundle.folder import SUFFIX, Bundle
from uflow_edge.runtime.bundle.manifest import Precision
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.errors import BadInput, UsageError, require

logger = logging.getLogger(__name__)


def models_of(categories: Sequence[str], folder: Path, *, checkpoints: bool) -> list[Path]:
    """The bundle or checkpoint of each category, named after it.

    Raises:
        BadInput: some are missing, and the message names them all; or a bundle is damaged, which is checked before the
            first one is evaluated.
    """
    kind, suffix, is_there = ("checkpoint", ".ckpt", Path.is_file) if checkpoints else ("bundle", SUFFIX, Path.is_dir)
    found = [folder / f"{category}{suffix}" for category in categories]
    missing = [str(model) for model in found if not is_there(model)]
    if missing:
        raise BadInput(f"{', '.join(missing)}: no such {kind}; every category needs one")
    for bundle in () if checkpoints else found:
        Bundle.load(bundle, UFlowManifest)
    return found


@contextmanager
def opened(model: Path, precision: Precision | None, *, block_nfa: bool = False) -> Iterator[Bundle[UFlowManifest]]:
    """Open a bundle, or export a checkpoint to a bundle that is deleted after the block.

    Args:
        model: folder of a bundle, or file of a checkpoint.
        precision: precision of the run. A checkpoint is exported in this one only; None and bf16: FP32.
        block_nfa: whether the graph of a checkpoint counts exceedances, for the block rule.

    Raises:
        BadInput: the bundle or checkpoint is missing or damaged.
        MissingDependency: the packages for an export are not installed.
        UsageError: a checkpoint was requested in INT8, which needs calibration.
        ParityLost: the outputs of the graph differ from those of the checkpoint.
    """
    if not model.is_file():
        yield Bundle.load(model, UFlowManifest)
        return
    if precision == "int8":
        raise UsageError(
            f"{model}: int8 needs images of the line; export the checkpoint, run uflow-calibrate --int8, use --bundle"
        )
    for module in ("torch", "timm", "FrEIA", "onnx", "onnxscript"):
        require(module, "train")
    from uflow_edge.export.bundle import ExportOptions, export_bundle

    logger.info(f"exporting {model}")
    with TemporaryDirectory(prefix=f"{model.stem}-") as temporary:
        options = ExportOptions(precisions=("fp32" if precision in (None, "bf16") else precision,), block_nfa=block_nfa)
        yield export_bundle(model, Path(temporary) / f"{model.stem}{SUFFIX}", options).bundle

"""The device that a training runs on: the CPU or a GPU, with results that repeat."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from uflow_edge.runtime.errors import MissingDependency, Unavailable
from uflow_edge.training.options import DeviceChoice

logger = logging.getLogger(__name__)


def chosen_device(choice: DeviceChoice) -> torch.device:
    """The device to train on; ``auto`` takes CUDA if torch can use it.

    Raises:
        MissingDependency: ``cuda`` was asked for, and torch cannot use it; the message says what to install.
    """
    has_cuda = torch.cuda.is_available()
    if choice == "cuda" and not has_cuda:
        raise MissingDependency(
            "--device cuda: this torch is built without CUDA; install a build of torch and torchvision with CUDA, as "
            "pytorch.org/get-started says, or use --device cpu"
            if torch.version.cuda is None
            else f"--device cuda: torch finds no GPU for CUDA {torch.version.cuda}; install NVIDIA's driver for it, "
            "until nvidia-smi lists the GPU, or use --device cpu"
        )
    device = torch.device("cuda" if has_cuda and choice != "cpu" else "cpu")
    logger.info(f"training runs on {torch.cuda.get_device_name(device) if device.type == 'cuda' else 'the CPU'}")
    return device


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Compute on a device so that the same work gives the same bits: deterministic algorithms, in full float32.

    Raises:
        Unavailable: the GPU has too little free memory.
    """
    if device.type == "cpu":  # repeats itself anyway
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first use
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            yield
    except torch.cuda.OutOfMemoryError as error:
        raise Unavailable(
            "the GPU has too little free memory; use a smaller --batch or --input-size, or --device cpu"
        ) from error
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])

"""Factories that several test modules share."""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

HERE = Path(__file__).parent

# The same examples at every run, so that a failure comes again; --hypothesis-profile=default tries others.
# No deadline: examples take longer on a busy machine.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# A run in the background is started with signals ignored, and its children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def reference() -> Path:
    """The full reference folder of U-Flow; without it the test is skipped, or fails where it is required (CI)."""
    return reference_folder("uflow")


@pytest.fixture(scope="session")
def diffcf_reference() -> Path:
    """Likewise that of Diff-CF."""
    return reference_folder("diffcf")


def reference_folder(name: str) -> Path:
    folder = Path(os.environ.get("UFLOW_EDGE_REFERENCE", HERE.parent.parent / "shared" / "reference")) / name
    if not folder.is_dir():
        if os.environ.get("UFLOW_EDGE_REQUIRE_REFERENCE"):
            pytest.fail(f"the reference arrays are required, but {folder} does not exist")
        pytest.skip(f"no reference arrays in {folder}")
    return folder


@pytest.fixture(scope="session")
def end_to_end(reference: Path) -> dict[str, np.ndarray]:
    """Every stage of the authors' code on three images."""
    return dict(np.load(reference / "end_to_end.npz"))


@pytest.fixture(scope="session")
def texture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 real pictures of gravel, 96x96, PNG, in an MVTec layout, with one defective test picture and its mask."""
    from skimage import data

    folder = tmp_path_factory.mktemp("gravel")
    gravel = data.gravel()
    good = folder / "train" / "good"
    good.mkdir(parents=True)
    for i in range(16):
        y, x = 96 * (i // 4), 96 * (i % 4)
        Image.fromarray(gravel[y : y + 96, x : x + 96]).save(good / f"{i:02d}.png")
    (folder / "test" / "hole").mkdir(parents=True)
    (folder / "test" / "good").mkdir()
    (folder / "ground_truth" / "hole").mkdir(parents=True)
    patch, mask = gravel[400:496, 400:496].copy(), np.zeros((96, 96), np.uint8)
    Image.fromarray(patch).save(folder / "test" / "good" / "00.png")
    patch[30:60, 30:60], mask[30:60, 30:60] = 0, 255
    Image.fromarray(patch).save(folder / "test" / "hole" / "00.png")
    Image.fromarray(mask).save(folder / "ground_truth" / "hole" / "00_mask.png")
    return folder


@pytest.fixture(scope="session")
def trained(texture_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that `uflow-train`'s own function wrote: efficientnet_lite0 at 64 pixels, two epochs."""
    from uflow_edge.export.network.architecture import Architecture
    from uflow_edge.training.options import TrainingOptions
    from uflow_edge.training.train import Data, train

    path = tmp_path_factory.mktemp("trained") / "gravel.ckpt"
    train(Data(texture_folder), Architecture.default("efficientnet_lite0", 64, 2), TrainingOptions(epochs=2), path)
    return path


@pytest.fixture(scope="session")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle. Read only: tests that change a bundle copy it first."""
    from uflow_edge.export.bundle import export_bundle

    folder = tmp_path_factory.mktemp("exported") / "gravel.uflow"
    export_bundle(trained, folder)
    return folder


@pytest.fixture(scope="session")
def counting(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle in FP32 with exceedances, for the block rule. Read only, too."""
    from uflow_edge.export.bundle import ExportOptions, export_bundle

    folder = tmp_path_factory.mktemp("counting") / "gravel.uflow"
    export_bundle(trained, folder, ExportOptions(precisions=("fp32",), block_nfa=True))
    return folder


@pytest.fixture
def exit_code() -> Callable[..., int]:
    """Run a command's ``main`` and give its exit code."""

    def run(main: Callable[[list[str]], None], *argv: object) -> int:
        with pytest.raises(SystemExit) as exit_info:
            main([str(argument) for argument in argv])
        return int(exit_info.value.code or 0)

    return run


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What the package logs during the test, from INFO on; grows as it does."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    package, kept = logging.getLogger("uflow_edge"), Kept()
    level = package.level
    package.setLevel(logging.INFO)
    package.addHandler(kept)
    yield lines
    package.removeHandler(kept)
    package.setLevel(level)

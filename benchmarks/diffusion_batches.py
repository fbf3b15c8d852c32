"""Patches of a picture one by one against several a run: ``python -m uflow_edge.benchmarks.diffusion_batches``.

The same network, noise and picture; results agree, whatever the batch. A batch saves the cost of starting runs, and
lets cores work on whole patches instead of parts of one.
"""

import argparse
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from uflow_edge.benchmarks.timing import interleaved_medians
from uflow_edge.export.unet.bundle import UNetExportOptions, export_unet_bundle
from uflow_edge.runtime.command_line import table
from uflow_edge.runtime.diffusion.options import PurifyOptions
from uflow_edge.runtime.diffusion.purifier import Purifier
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.purify.network import open_network
from uflow_edge.training.diffusion_network import save_unet, seeded_unet
from uflow_edge.training.diffusion_options import DiffusionOptions

BATCHES = (1, 2, 4, 8, 16)
STEPS, ROUNDS = 2, 12
PATCHES_A_SIDE = 4


def main() -> None:
    """Print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="default: a small UNet as uflow-train-unet makes it, not trained")
    parser.add_argument("--backend", default="onnxruntime", help="(default: %(default)s)")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        bundle = arguments.bundle or _small_bundle(Path(folder))
        with closing(open_network(bundle, arguments.backend, report=print)) as network:
            side = network.image_size * PATCHES_A_SIDE
            picture = np.random.default_rng(0).integers(0, 256, (side, side, network.channels), np.uint8)
            purifiers = {
                f"{batch} a run": Purifier(
                    network.predict,
                    network.schedule,
                    network.image_size,
                    PurifyOptions(steps=STEPS, batch=batch, overlap=0),
                    network.noisiest_step,
                )
                for batch in BATCHES
            }
            contenders: dict[str, Callable[[], Image]] = {
                name: partial(purifier.purify, picture) for name, purifier in purifiers.items()
            }
            first, *others = (work() for work in contenders.values())
            assert all(np.abs(first.astype(int) - other).max() <= 1 for other in others)
            medians = interleaved_medians(contenders, ROUNDS)
    one = medians["1 a run"]
    rows = [(name, f"{milliseconds:.0f}", f"{one / milliseconds:.2f}") for name, milliseconds in medians.items()]
    patches = PATCHES_A_SIDE**2
    print(f"\n{patches} patches of {network.image_size} pixels, {STEPS} steps, median of {ROUNDS} rounds\n")
    print(table(("patches", "ms", "times as fast"), rows, left=(0,)))


def _small_bundle(folder: Path) -> Path:
    options = DiffusionOptions()
    save_unet(seeded_unet(options), folder / "unet", options.noisiest_step)
    export_unet_bundle(folder / "unet", folder / "unet.uflow", options=UNetExportOptions(precisions=("fp32",)))
    return folder / "unet.uflow"


if __name__ == "__main__":
    main()

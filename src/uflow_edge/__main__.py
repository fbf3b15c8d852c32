"""``python -m uflow_edge`` lists the commands; each is a module too, should the scripts not be on the PATH."""

import gc
import sys
from argparse import Namespace
from importlib import import_module
from pathlib import Path

from uflow_edge.runtime.cli.command_line import run_command
from uflow_edge.runtime.errors import ExitCode

COMMANDS = {
    "uflow-train": ("training.command", "learn what good parts look like"),
    "uflow-export": ("export.command", "turn a checkpoint into a bundle, and a bundle into engines"),
    "uflow-calibrate": ("calibration.command", "fit the null model and the threshold to good images of the line"),
    "uflow-infer": ("runtime.infer.command", "inspect cameras, images or a video"),
    "uflow-evaluate": ("training.evaluation.command", "measure a model on labelled images"),
    "uflow-bench": ("benchmarks.latency.command", "measure how fast a bundle is on this machine"),
    "uflow-train-unet": ("training.diffusion_command", "train a small diffusion network"),
    "uflow-purify": ("runtime.purify.command", "take the traces of cameras and edits out of pictures"),
}


def main() -> None:
    """Entry point of all scripts: even importing a command can fail, so the boundary for errors is around that too."""
    gc.set_threshold(50_000)  # what imports allocate stays; at 700, a tenth of the start goes into searching it
    module, _ = COMMANDS.get(Path(sys.argv[0]).stem, (None, ""))
    if module is not None:
        given = Namespace(verbose="--verbose" in sys.argv)
        run_command(lambda: given, lambda _: import_module(f"uflow_edge.{module}").main())
    if sys.argv[1:] not in ([], ["-h"], ["--help"]):
        print("error: python -m uflow_edge takes no arguments; run one of the commands that it lists", file=sys.stderr)
        sys.exit(ExitCode.USAGE)
    for command, (module, purpose) in COMMANDS.items():
        print(f"{command:18}{purpose} (python -m uflow_edge.{module})")
    print("\nEach explains itself with --help.")


if __name__ == "__main__":
    main()

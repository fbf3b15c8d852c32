"""The parsers of all commands, and the least that each needs."""

import argparse
import importlib

from uflow_edge.__main__ import COMMANDS

MODULES = {"uflow-infer": "runtime.infer.arguments", "uflow-export": "export.arguments"}
NEEDED = {
    "uflow-train": ["--data", "a", "--out", "b"],
    "uflow-export": ["--ckpt", "a"],
    "uflow-calibrate": ["--good", "b"],
    "uflow-infer": ["--images", "a.png"],
    "uflow-evaluate": ["--data", "a"],
    "uflow-bench": [],
    "uflow-train-unet": ["--data", "a", "--out", "b"],
    "uflow-purify": ["--images", "a", "--out", "b"],
}


def parser_of(command: str) -> argparse.ArgumentParser:
    """A new parser of this command."""
    return importlib.import_module(f"uflow_edge.{MODULES.get(command, COMMANDS[command][0])}").parser()

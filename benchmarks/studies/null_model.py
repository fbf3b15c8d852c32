"""The null model on latents whose law is known: ``python -m uflow_edge.benchmarks.studies.null_model``.

Calibrated on 50 images of Gaussian noise, it is given 1,000 fresh ones and discs of growing contrast; upstream's rule
and the uncalibrated ones beside it. Then what it costs the runtime.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from uflow_edge.benchmarks.studies.exact_tail import exact_tree_score
from uflow_edge.benchmarks.studies.timing import interleaved_medians
from uflow_edge.calibration.null_model.fit import fit_null_model
from uflow_edge.runtime.cli.command_line import run_command, table
from uflow_edge.runtime.cli.parser import command_parser
from uflow_edge.runtime.errors import ExitCode
from uflow_edge.runtime.nfa import tree_score
from uflow_edge.runtime.nfa.null_model import NullModel
from uflow_edge.runtime.numeric import FloatMap

SCALES = ((84, 32), (80, 16))  # channels, side
CHANNELS = [channels for channels, _ in SCALES]
SIZE = (32, 32)
CALIBRATION_IMAGES, PLANTED_IMAGES = 50, 30
CONTRASTS = (1.1, 1.2, 1.3, 1.5, 2.0, 3.0, 5.0)
LATENTS = {
    "σ = 0.8": (0.8, 0.0, 0.0),
    "σ = 0.9": (0.9, 0.0, 0.0),
    "σ = 1": (1.0, 0.0, 0.0),
    "σ = 1.1": (1.1, 0.0, 0.0),
    "σ = 1.3": (1.3, 0.0, 0.0),
    "gains of channels e^±0.3": (1.0, 0.3, 0.0),
    "channels correlated by 0.3": (1.0, 0.0, 0.3),
    "σ = 1.2, gains, correlated by 0.2": (1.2, 0.3, 0.2),
    "variance 0.3 (anomalib)": (0.3**0.5, 0.0, 0.0),
}
UNCALIBRATED: dict[str, Callable[..., FloatMap]] = {
    "upstream": partial(tree_score, rule="upstream"),
    "one_sided": partial(tree_score, rule="one_sided"),
    "one_sided, exact tail": partial(exact_tree_score, rule="one_sided"),
    "per_size": partial(tree_score, rule="per_size"),
    "per_size, exact tail": partial(exact_tree_score, rule="per_size"),
}
SPEED_SCALES = ((84, 64), (80, 32), (128, 16))
ROUNDS = 200

Scorer = Callable[[Sequence[FloatMap]], FloatMap]


def noise(seed: int, images: int, sigma: float, spread: float, correlation: float) -> list[FloatMap]:
    """Energies (N, H, W) a scale of Gaussian latents: a factor, log-normal gains of channels, correlated channels."""
    random, fixed = np.random.default_rng(seed), np.random.default_rng(99)
    maps = []
    for channels, side in SCALES:
        gains = sigma * np.exp(spread * fixed.normal(size=(channels, 1)))
        stack = np.empty((images, side, side), np.float32)
        for i in range(images):
            z = np.sqrt(1 - correlation) * random.standard_normal((channels, side * side), np.float32)
            z += np.sqrt(correlation) * random.standard_normal((1, side * side), np.float32)
            stack[i] = ((gains * z) ** 2).sum(axis=0).reshape(side, side)
        maps.append(stack)
    return maps


def disc(side: int) -> NDArray[np.bool_]:
    """Where discs are planted: a radius of a tenth of the side."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    return np.asarray(x**2 + y**2 < 0.01)


def found(score: Scorer, maps: list[FloatMap], contrast: float) -> float:
    """Share of images in which a disc with so many times the energy is detected, somewhere inside it."""
    planted = [np.where(disc(stack.shape[1]), np.float32(contrast) * stack, stack) for stack in maps]
    inside = disc(SIZE[0])
    return float(np.mean([(score(one)[inside] > 0).any() for one in zip(*planted, strict=True)]))


def false_regions(model: NullModel, maps: list[FloatMap]) -> float:
    """Mean number of regions an image with log-NFA of 0 or less."""
    counts = [
        (scale.evidence(one, len(maps)).region_values(one.shape[1]) <= 0).sum()
        for scale, stack in zip(model.scales, maps, strict=True)
        for one in stack
    ]
    return float(np.sum(counts)) / len(maps[0])


def promise(fresh_images: int) -> None:
    """Tables of false alarms and of what is found."""
    header = ["calibrated on 50", "regions", "flagged", "at score 1", *(f"x{c:g}" for c in CONTRASTS)]
    rows = []
    for name, kind in LATENTS.items():
        model = fit_null_model(noise(1, CALIBRATION_IMAGES, *kind), CHANNELS).model
        fresh = noise(2, fresh_images, *kind)
        scores = np.array([model.score(one, SIZE).max() for one in zip(*fresh, strict=True)])
        planted = noise(3, PLANTED_IMAGES, *kind)
        row = [name, f"{false_regions(model, fresh):.3f}", f"{(scores > 0).mean():.1%}", f"{(scores > 1).mean():.1%}"]
        rows.append(row + [f"{found(partial(model.score, size=SIZE), planted, c):.0%}" for c in CONTRASTS])
    print(table(header, rows, left={0}))
    rows = []
    for name, rule in UNCALIBRATED.items():
        score = partial(rule, channels=CHANNELS, size=SIZE)
        for sigma in (0.9, 1.0, 1.05, 1.1):
            fresh, planted = noise(2, 50, sigma, 0, 0), noise(3, PLANTED_IMAGES, sigma, 0, 0)
            flagged = np.mean([score(one).max() > 0 for one in zip(*fresh, strict=True)])
            rows.append(
                [
                    name,
                    f"{sigma:g}",
                    f"{flagged:.0%}",
                    *(f"{found(score, planted, c):.0%}" for c in CONTRASTS),
                ]
            )
    print("\n" + table(["not calibrated", "σ", "flagged", *(f"x{c:g}" for c in CONTRASTS)], rows, left={0}))


def cost() -> None:
    """Milliseconds a frame on maps of 64² + 32² + 16² pixels, to 256²."""
    random = np.random.default_rng(0)
    stacks = [random.chisquare(c, (40, s, s)).astype(np.float32) for c, s in SPEED_SCALES]
    channels = [c for c, _ in SPEED_SCALES]
    model = fit_null_model(stacks, channels).model
    energies = [stack[0] for stack in stacks]
    contenders: dict[str, Callable[[], object]] = {
        "null model alone: energies to levels and log p": lambda: [
            scale.evidence(one, 3) for scale, one in zip(model.scales, energies, strict=True)
        ],
        "score, null model": partial(model.score, energies, (256, 256)),
    }
    contenders["score, per size"] = partial(tree_score, energies, channels, (256, 256), rule="per_size")
    medians = interleaved_medians(contenders, ROUNDS)
    print("\n" + table(["cost", "ms"], [[name, f"{ms:.3f}"] for name, ms in medians.items()], left={0}))


def main(fresh_images: int) -> ExitCode:
    """Print all tables."""
    promise(fresh_images)
    cost()
    return ExitCode.OK


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = command_parser(
        "python -m uflow_edge.benchmarks.studies.null_model",
        "The calibrated null model on Gaussian latents: false alarms, what is found, and its cost.",
        ["python -m uflow_edge.benchmarks.studies.null_model --fresh 100"],
    )
    parser.add_argument("--fresh", type=int, default=1000, metavar="N", help="fresh images (default: %(default)s)")
    return parser


if __name__ == "__main__":
    run_command(lambda: parser().parse_args(), lambda arguments: main(arguments.fresh))

"""Does purification take traces away, and what does it cost the picture?

``python -m uflow_edge.benchmarks.studies.forensics``

Trains a small UNet, plants traces in photographs that it has not seen, purifies them, and asks the detectors before and
after, beside simple means to the same end.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from uflow_edge.benchmarks.studies.forensics.baselines import gaussian_noise, jpeg, median_filter
from uflow_edge.benchmarks.studies.forensics.measure import (
    CASES,
    Method,
    MethodQuality,
    clean_scores,
    outcome,
    planted_images,
)
from uflow_edge.benchmarks.studies.forensics.naturalness import NaturalnessModel
from uflow_edge.benchmarks.studies.forensics.photographs import (
    crops,
    grey_photographs,
    test_photographs,
    training_photographs,
    write_training_photographs,
)
from uflow_edge.benchmarks.studies.forensics.pictures import VIEWS, comparison
from uflow_edge.benchmarks.studies.forensics.traces import Planted
from uflow_edge.runtime.cli.command_line import progress, run_command, table
from uflow_edge.runtime.cli.parser import command_parser
from uflow_edge.runtime.errors import ExitCode, require
from uflow_edge.runtime.images.files import spread
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.storage.strict_json import finite, to_json
from uflow_edge.training.diffusion_options import DiffusionOptions

UNTOUCHED = "untouched"
DIFF_CFG = "Diff-CFG, SSIM, t = 40"


@dataclass(frozen=True, slots=True)
class StudySize:
    """How much is measured.

    Attributes:
        images: photographs' parts that traces are planted in, at most.
        training_steps: of the UNet.
    """

    images: int
    training_steps: int


FULL = StudySize(images=10, training_steps=1200)
QUICK = StudySize(images=2, training_steps=60)


def trained_unet(folder: Path, steps: int, seed: int) -> Path:
    """The UNet in a folder, trained now if it is not there yet; an interrupted training goes on."""
    from uflow_edge.training.diffusion import train_unet
    from uflow_edge.training.progress import FitBar

    unet = folder / f"unet-{steps}-{seed}"
    if not unet.exists():
        photographs = folder / "photographs"
        if not photographs.exists():
            write_training_photographs(photographs)
        bar = FitBar("training the UNet")
        try:
            fit = train_unet(photographs, DiffusionOptions(steps=steps, seed=seed), unet, on_step=bar.update)
        finally:
            bar.close()
        print(fit.denoising)
    return unet


def exported(unet: Path, folder: Path) -> Path:
    """The bundle of a UNet, exported now if it is not there yet."""
    from uflow_edge.export.unet.bundle import UNetExportOptions, export_unet_bundle

    bundle = folder / f"{unet.name}.uflow"
    if not bundle.exists():
        export_unet_bundle(unet, bundle, options=UNetExportOptions(precisions=("fp32",)))
    return bundle


def methods(bundle: Path, seed: int) -> dict[str, Method]:
    """Everything that is compared, by name."""
    from uflow_edge.benchmarks.studies.forensics.purification import purifier

    strong, weak = purifier(bundle, 40), purifier(bundle, 20)
    return {
        UNTOUCHED: lambda image: image,
        "JPEG, quality 90": lambda image: jpeg(image, 90),
        "JPEG, quality 75": lambda image: jpeg(image, 75),
        "noise, sigma 5": lambda image: gaussian_noise(image, 5.0, np.random.default_rng(seed)),
        "median, 3 x 3": lambda image: median_filter(image, 3),
        "Diff-CF, t = 20": lambda image: weak(image, "none"),
        "Diff-CF, t = 40": lambda image: strong(image, "none"),
        DIFF_CFG: lambda image: strong(image, "ssim"),
    }


def report(outcomes: Sequence[MethodQuality]) -> str:
    """The table: found (AUROC) for each trace, then quality."""
    header = ["method", *(f"{case.name}" for case in CASES), "PSNR", "SSIM", "NIQE-like"]
    rows = [
        [
            result.method,
            *(f"{finding.found:.0%} ({finding.auroc:.2f})" for finding in result.findings),
            f"{result.psnr:.1f}",
            f"{result.ssim:.3f}",
            f"{result.naturalness:.1f}",
        ]
        for result in outcomes
    ]
    return table(header, rows, left={0})


def benchmark(out: Path, scale: StudySize, seed: int, unet: Path | None) -> ExitCode:
    """Train, plant, purify, detect, report."""
    for module, extra in (("skimage", "dev"), ("diffusers", "train"), ("sklearn", "train")):
        require(module, extra)
    bundle = exported(unet or trained_unet(out, scale.training_steps, seed), out)
    images = spread(crops(test_photographs()), scale.images)
    planted = planted_images(images, seed)
    clean = clean_scores(crops(test_photographs() + grey_photographs()))
    natural = NaturalnessModel.fit([photograph.image for photograph in training_photographs()])
    outcomes = []
    for name, method in methods(bundle, seed).items():
        jobs = progress([(case, p) for case, ps in planted.items() for p in ps], name)
        results: dict[str, list[Image]] = {case: [] for case in planted}
        for case, picture in jobs:
            results[case].append(method(picture.image))
        outcomes.append(outcome(name, planted, results, clean, natural))
        _write_pictures(out / "pictures", name, planted, results)
    text = report(outcomes)
    print(f"\n{len(images)} images a trace; found (AUROC against untouched photographs)\n{text}")
    content = {"images": [image.name for image in images], "seed": seed, "outcomes": [asdict(o) for o in outcomes]}
    (out / "forensics.json").write_text(to_json(finite(content), indent=1), encoding="utf-8")
    print(f"\nwrote {out / 'forensics.json'} and {out / 'pictures'}")
    return ExitCode.OK


def _write_pictures(
    folder: Path, method: str, planted: dict[str, list[Planted]], results: dict[str, list[Image]]
) -> None:
    """The first image of each trace."""
    folder.mkdir(parents=True, exist_ok=True)
    for case, images in results.items():
        picture = comparison(planted[case][0], images[0], method, VIEWS[case])
        name = "-".join(f"{case} {method}".replace(",", "").replace("=", "").split()).lower()
        PillowImage.fromarray(picture).save(folder / f"{name}.png")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = "python -m uflow_edge.benchmarks.studies.forensics"
    parser = command_parser(
        command,
        "Plant traces in photographs, purify them, and see whether detectors still find the traces.",
        [f"{command} --out forensics", f"{command} --quick"],
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("forensics"), metavar="FOLDER", help="(default: %(default)s)")
    add("--unet", type=Path, metavar="FOLDER", help="a trained UNet (default: train one, or take the one in --out)")
    add("--quick", action="store_true", help="see that it runs; the numbers mean little")
    add("--seed", type=int, default=0, help="of the training and the traces (default: %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_command(
        lambda: parser().parse_args(argv),
        lambda arguments: benchmark(arguments.out, QUICK if arguments.quick else FULL, arguments.seed, arguments.unet),
    )


if __name__ == "__main__":
    main()

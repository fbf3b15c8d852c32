"""The tables that ``uflow-export`` prints; light to import, for a device without torch."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from uflow_edge.export.engines.plan_options import PlanOptions
from uflow_edge.runtime.bundle.manifest import BatchRange, Manifest, Precision
from uflow_edge.runtime.cli.command_line import table
from uflow_edge.runtime.operating_point import OperatingPoint

if TYPE_CHECKING:
    from uflow_edge.export.engines.plans import PlanResult
    from uflow_edge.export.export_loop import WrittenVariant
    from uflow_edge.export.graphs.parity import AnyParity, Parity
    from uflow_edge.export.unet.parity import UNetParity

P = TypeVar("P", bound="Parity | UNetParity")


def print_variants(variants: "Sequence[WrittenVariant[Parity]]") -> None:
    """One line per graph and engine that ran it."""

    def errors(parity: "Parity") -> tuple[str, ...]:
        error, bound = f"{parity.bounded_error:.1e}", f"{parity.bound:.0e}"
        return error, bound, f"{parity.score_change:.2g}", f"{parity.mask_iou:.4f}"

    images = variants[0].parities[0].images
    header = ("graph", "size", "engine", "energy error", "bound", "score change", "mask IoU", "")
    compared = table(header, _rows(variants, errors), left=(0, 2, 7))
    print(f"\ncompared with torch on {images} images:\n{compared}")
    print("energy error: of the worst pixel; in fp16, of all pixels but one in a thousand\n")


def print_unet_variants(variants: "Sequence[WrittenVariant[UNetParity]]") -> None:
    """One line per graph and engine that ran it."""

    def errors(parity: "UNetParity") -> tuple[str, ...]:
        bound = f"{parity.bound.maximum:.0e}, {parity.bound.rms:.0e}"
        return str(parity.noise), str(parity.variance or "none"), bound

    steps = ", ".join(map(str, variants[0].parities[0].timesteps))
    header = ("graph", "size", "engine", "noise", "variance", "bound", "")
    compared = table(header, _rows(variants, errors), left=(0, 2, 6))
    print(f"\ncompared with torch at steps {steps}, largest and rms errors:\n{compared}\n")


def _rows(variants: "Sequence[WrittenVariant[P]]", errors: "Callable[[P], tuple[str, ...]]") -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for variant in variants:
        for i, parity in enumerate(variant.parities):
            what = ("", "") if i else (variant.file, megabytes(variant.size_bytes))
            rows.append((*what, parity.engine, *errors(parity), _verdict(parity.holds, variant.written)))
    return rows


def print_plans(results: "Sequence[PlanResult]") -> None:
    """One line per engine."""
    rows = [
        (
            result.plan.file,
            megabytes(result.size_bytes),
            str(result.plan.batch),
            "up to date" if result.reused else f"built in {result.seconds:.0f} s",
            _layers(result.layers),
        )
        for result in results
    ]
    print(f"\n{table(('engine', 'size', 'batch', '', 'layers of the graph'), rows, left=(0, 4))}\n")


def print_plan_parities(results: "Sequence[PlanResult]", parities: "Sequence[AnyParity]") -> None:
    """One line per engine that was run."""
    rows = [
        (result.plan.file, str(parity), "holds" if parity.holds else "misses its bound")
        for result, parity in zip(results, parities, strict=True)
    ]
    print(f"{table(('engine', 'on this GPU', ''), rows, left=(0, 1, 2))}\n")


def print_planned_engines(manifest: Manifest, precisions: Sequence[Precision], options: PlanOptions) -> None:
    """Which engines would be built, and which are up to date."""
    from uflow_edge.export.engines.plans import plan_for
    from uflow_edge.export.engines.toolchain import find_toolchain

    toolchain = find_toolchain(options)
    for variant in manifest.variants:
        if variant.precision in precisions:
            plan = plan_for(manifest, variant, options, toolchain)
            state = "up to date" if plan in manifest.plans else "to build"
            print(f"{plan.file}: {state}, from {variant.file}, batch {plan.batch}, {options}")


def print_new_engines(precisions: Sequence[Precision], options: PlanOptions) -> None:
    """Which engines would be built for a bundle that does not exist yet."""
    from uflow_edge.export.engines.plans import plan_file
    from uflow_edge.export.engines.toolchain import find_toolchain

    toolchain = find_toolchain(options)
    for precision in precisions:
        print(f"would build {plan_file(precision, toolchain)}, batch {options.batch or BatchRange()}, {options}")


def print_threshold(point: OperatingPoint) -> None:
    """The threshold and where it comes from."""
    if point.false_alarm_rate is None:
        print("threshold: log-NFA 0, the a contrario one; uflow-calibrate takes one from good images of your line")
    else:
        print(f"threshold: {point.threshold:.2f}; {point.promise}")


def megabytes(size_bytes: int) -> str:
    """A size such as ``24.1 MB``."""
    return f"{size_bytes / 1e6:.1f} MB"


def _layers(by_type: Mapping[str, int]) -> str:
    """Numbers of floating-point layers by type; all others compute shapes and indices."""
    counts = {kind: count for kind, count in by_type.items() if kind[:2] in ("fp", "bf")}
    others = sum(by_type.values()) - sum(counts.values())
    return ", ".join(f"{count} {kind}" for kind, count in [*sorted(counts.items()), ("other", others)])


def _verdict(holds: bool, written: bool) -> str:
    if holds:
        return "holds"
    return "misses its bound" if written else "misses its bound: not written"

"""How near each part of the way from picture to verdict comes to what the machine can do.

``python -m uflow_edge.benchmarks.studies.roofline [--bundle FOLDER]``. The roofline model (Williams, Waterman and
Patterson, CACM 2009): a part takes at least the time of its arithmetic at the machine's peak, and at least that of its
bytes at the memory's bandwidth. Both limits are measured, in the same rounds as the parts: the peak is a product of
large matrices in the same engine, the bandwidth a copy of more than the caches hold (as in STREAM, McCalpin 1995). Of
limits and parts alike the fastest round counts: a roof is what can be done, not what is done beside neighbours.

What lies in a cache need not come from memory, so the limit by bytes is one for memory, not for a part whose data stay
in a cache from one picture to the next.
"""

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from onnx import ModelProto

from uflow_edge.benchmarks.latency.machine import usable_cores
from uflow_edge.benchmarks.studies.graph_work import Graph, Work, load_graph
from uflow_edge.benchmarks.studies.gravel import gravel_bundle, gravel_frames
from uflow_edge.benchmarks.studies.markdown import markdown_table
from uflow_edge.benchmarks.studies.matrix_product import MULTIPLICATIONS, matrix_product, random_matrix
from uflow_edge.benchmarks.studies.timing import burst, interleaved_times
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import INPUT_NAME, UFlowManifest
from uflow_edge.runtime.cli.values import positive_int
from uflow_edge.runtime.engines.onnx_runtime import session_options
from uflow_edge.runtime.errors import require
from uflow_edge.runtime.numeric import Image, Size
from uflow_edge.runtime.resize.cpu import model_input
from uflow_edge.runtime.resize.pillow_filter import axis_filter, filtered_axes
from uflow_edge.runtime.scoring import Scorer

ROUNDS = 20
_TRIES = 5  # at the limits in every round: a limit that a neighbour has lowered is none
_COPIED = 256 << 20  # bytes, beyond any cache


@dataclass(frozen=True, slots=True)
class Roof:
    """What so many threads of this machine can do.

    Attributes:
        threads: that were measured.
        macs_per_ms: multiply-accumulate operations a millisecond, in float32.
        bytes_per_ms: read and written, a millisecond.
    """

    threads: int
    macs_per_ms: float
    bytes_per_ms: float

    def attainable_ms(self, work: Work) -> float:
        """The least that a part can take."""
        return max(work.macs / self.macs_per_ms, work.bytes / self.bytes_per_ms)

    def bound(self, work: Work) -> str:
        """Which of the two limits is the higher one."""
        return "arithmetic" if work.macs / self.macs_per_ms > work.bytes / self.bytes_per_ms else "memory"


@dataclass(frozen=True, slots=True)
class RooflinePart:
    """One part under its roof."""

    work: Work
    roof: Roof
    took_ms: float

    @property
    def share(self) -> float:
        """Of the roof that is reached, 1 being all of it."""
        return self.roof.attainable_ms(self.work) / self.took_ms


def measure(bundle: Bundle[UFlowManifest], frames: Sequence[Image], threads: int, rounds: int) -> list[RooflinePart]:
    """Every part of a bundle's FP32 graph in onnxruntime, and what comes before and after it.

    Args:
        bundle: as loaded.
        frames: (H, W, 3) uint8 BGR, the first of which is measured.
        threads: of the engine; resize and NFA run on one.
        rounds: of the measurement.

    Raises:
        BadInput: the graph's work cannot be counted.
    """
    frame, manifest = frames[0], bundle.manifest
    variant = next(variant for variant in manifest.variants if variant.precision == "fp32")
    graph = load_graph(bundle.path(variant))
    scorer = Scorer.load(bundle.folder, manifest)
    picture = model_input(frame, manifest.input_size, manifest.fit)
    size = (frame.shape[0], frame.shape[1])
    with ExitStack() as stack:
        parts, outputs = _parts(graph, {INPUT_NAME: picture[np.newaxis]}, threads)
        energies = [output[0] for output in outputs[: len(manifest.scales)]]
        contenders: dict[str, Callable[[], object]] = {
            "resize": lambda: model_input(frame, manifest.input_size, manifest.fit),
            **parts,
            "NFA": lambda: scorer.score(energies),
        }
        for count in {1, threads}:
            contenders |= _roof_contenders(count, stack)
        times = interleaved_times(contenders, rounds, settle=True)
    fastest = {name: min(taken) for name, taken in times.items()}
    works = [graph.work(name, nodes) for name, nodes in graph.parts().items()]
    all_of_it = graph.work("engine", graph.nodes)
    ours = Work("NFA", 0, 0, sum(e.nbytes for e in energies) + 4 * manifest.input_size**2)
    one, all_threads = (_roof(count, fastest) for count in (1, threads))
    return [
        RooflinePart(resize_work(size, manifest.input_size), one, fastest["resize"]),
        *(RooflinePart(work, all_threads, fastest[work.name]) for work in (*works, all_of_it)),
        RooflinePart(ours, one, fastest["NFA"]),
    ]


def resize_work(size: Size, side: int) -> Work:
    """Of the resize of a frame (height, width) to a square: a filter along each axis, three channels."""
    lengths = {"rows": size[1], "columns": size[0]}
    across = {"rows": size[0], "columns": side}
    macs = 0
    for axis in filtered_axes(size, side):
        macs += 3 * across[axis] * int(axis_filter(lengths[axis], side).count.sum())
    return Work("resize", macs, 0, 3 * (size[0] * size[1] + side**2))


def roofline_table(measured: Sequence[RooflinePart]) -> str:
    """In Markdown."""
    rows = [
        (
            one.work.name,
            f"{one.work.macs / 1e9:.3f}",
            f"{one.work.bytes / 1e6:.1f}",
            str(one.roof.threads),
            f"{one.roof.attainable_ms(one.work):.2f}",
            one.roof.bound(one.work),
            f"{one.took_ms:.2f}",
            f"{one.share:.0%}",
        )
        for one in measured
    ]
    header = ("part", "GMAC", "MB", "threads", "attainable, ms", "limited by", "fastest, ms", "of the roof")
    roofs = dict.fromkeys(one.roof for one in measured)
    told = "; ".join(
        f"{roof.threads} thread{'s' * (roof.threads > 1)}: {roof.macs_per_ms / 1e6:.0f} GMAC/s, "
        f"{roof.bytes_per_ms / 1e6:.1f} GB/s"
        for roof in roofs
    )
    return f"{markdown_table(header, rows)}\n\nMeasured limits: {told}."


def _parts(
    graph: Graph, inputs: dict[str, Any], threads: int
) -> tuple[dict[str, Callable[[], object]], list[np.ndarray[Any, Any]]]:
    """Each part as a session of its own, given what the part before it gives; and the outputs of the whole."""
    contenders: dict[str, Callable[[], object]] = {}
    run = _session(graph.model, threads)
    whole: list[np.ndarray[Any, Any]] = run.run(None, inputs)
    contenders["engine"] = partial(run.run, None, inputs)
    for name, nodes in graph.parts().items():
        session = _session(graph.cut(nodes), threads)
        given = {tensor.name: inputs[tensor.name] for tensor in session.get_inputs()}
        contenders[name] = partial(session.run, None, given)
        names = [tensor.name for tensor in session.get_outputs()]
        inputs = {**inputs, **dict(zip(names, session.run(names, given), strict=True))}
    return contenders, whole


def _roof_contenders(threads: int, stack: ExitStack) -> dict[str, Callable[[], object]]:
    matrix, session = random_matrix(0), _session(matrix_product(), threads)
    source, target = (np.ones(_COPIED // 2, np.uint8) for _ in range(2))
    pool = stack.enter_context(ThreadPoolExecutor(threads))
    slices = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    return {
        f"product, {threads}": burst(lambda: session.run(None, {"matrix": matrix}), _TRIES, min),
        f"copy, {threads}": burst(lambda: list(pool.map(lambda pair: np.copyto(*pair), slices)), _TRIES, min),
    }


def _roof(threads: int, fastest: dict[str, float]) -> Roof:
    return Roof(threads, MULTIPLICATIONS / fastest[f"product, {threads}"], _COPIED / fastest[f"copy, {threads}"])


def _session(model: ModelProto, threads: int) -> Any:
    onnxruntime = require("onnxruntime")
    return onnxruntime.InferenceSession(
        model.SerializeToString(), session_options(threads), providers=["CPUExecutionProvider"]
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="default: efficientnet_lite0 at 256, trained on gravel for this")
    parser.add_argument("--threads", type=positive_int, default=usable_cores())
    parser.add_argument("--rounds", type=positive_int, default=ROUNDS)
    arguments = parser.parse_args(argv)
    with TemporaryDirectory() as folder:
        bundle = Bundle.load(arguments.bundle or gravel_bundle(Path(folder)), UFlowManifest)
        frames = list(gravel_frames(1, (300, 300)))
        print(roofline_table(measure(bundle, frames, arguments.threads, arguments.rounds)))


if __name__ == "__main__":
    main()

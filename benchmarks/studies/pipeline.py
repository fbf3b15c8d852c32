"""Whether the line keeps up: ``python -m uflow_edge.benchmarks.studies.pipeline [--bundle FOLDER]``.

Throughput: the bare engine on prepared pictures, in a loop, against the whole pipeline from frame to sinks (a JSON log,
overlays of anomalies within a quota, metrics). Latency: the same against one frame at a time, through
`Inspector.inspect` and through a pipeline that waits for it, from the source's thread to the first sink. All in turn,
in one process. Frames lie in memory: what a camera or a decoder costs depends on the camera.
"""

import argparse
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from uflow_edge.benchmarks.studies.gravel import gravel_bundle, gravel_frames
from uflow_edge.benchmarks.studies.timing import Took, interleaved_medians
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.cli.command_line import table
from uflow_edge.runtime.cli.values import positive_int
from uflow_edge.runtime.engines.selection import open_engine
from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.line.capture import Feed
from uflow_edge.runtime.line.pipeline import Pipeline
from uflow_edge.runtime.numeric import Image, Size
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.resize.cpu import model_input
from uflow_edge.runtime.sinks import Sink
from uflow_edge.runtime.sinks.json_lines import JsonLines
from uflow_edge.runtime.sinks.metrics import Metrics
from uflow_edge.runtime.sinks.overlays import OverlayFolder
from uflow_edge.runtime.sources.source import Frame, numbered
from uflow_edge.runtime.tally import Tally

SIZES: dict[str, Size] = {"300x300": (300, 300), "640x480": (480, 640), "1920x1080": (1080, 1920)}
DIFFERENT_FRAMES = 20
FRAMES_A_RUN = 100
RUNS, SINGLE_FRAMES = 12, 200
LEAST_THROUGHPUT = 0.95  # of the bare engine's
MOST_LATENCY = 1.10  # of the bare engine's
_DEADLINE = 60.0  # seconds for one frame; past that, the pipeline is broken


class Belt:
    """A source of frames that lie ready, the same ones over and over."""

    live, name = False, "belt"

    def __init__(self, images: Sequence[Image], count: int) -> None:
        self._images = images
        self._count = count

    def frames(self, stop: threading.Event, first: int = 0) -> Iterator[Frame]:
        """As fast as they are taken."""
        for index, image in enumerate(islice(cycle(self._images), self._count), first):
            if stop.is_set():
                return
            yield Frame(image, index, self.name, numbered(index), 0.0)


class OneByOne:
    """Source and sink in one, so that a frame enters a waiting pipeline only when the last one has left it."""

    live, name = False, "one by one"

    def __init__(self, inspector: Inspector, sinks: Sequence[Sink]) -> None:
        self._images: SimpleQueue[Image | None] = SimpleQueue()
        self._times: SimpleQueue[Took] = SimpleQueue()
        self._started = self.score = 0.0
        pipeline = Pipeline(inspector, [Feed(self)], [self, *sinks, self])
        self._pipeline = threading.Thread(target=pipeline.run, daemon=True)
        self._pipeline.start()

    def inspect(self, image: Image) -> Took:
        """The time from source to the first sink; returns when the last one is done."""
        self._images.put(image)
        took, _ = (self._times.get(timeout=_DEADLINE) for _ in range(2))
        return took

    def frames(self, stop: threading.Event, first: int = 0) -> Iterator[Frame]:
        while (image := self._images.get()) is not None:
            self._started = time.perf_counter()
            yield Frame(image, first, self.name, numbered(first), 0.0)
            first += 1

    def put(self, frame: Frame, inspection: Inspection) -> None:
        """Called as the first and as the last sink."""
        self.score = inspection.verdict.score
        self._times.put(Took(time.perf_counter() - self._started))

    def close(self) -> None:
        self._images.put(None)
        self._pipeline.join()


@dataclass(frozen=True, slots=True)
class Pace:
    """Milliseconds per frame on the clock, and on all processors together, which busy neighbours change less."""

    wall: float
    processor: float


@dataclass(frozen=True, slots=True)
class Bench:
    """What is measured.

    Attributes:
        images: frames, by size.
        pictures: what the engine is given of them, (1, S, S, 3) each.
    """

    inspector: Inspector
    images: dict[str, list[Image]]
    pictures: list[Image]
    folder: Path

    @property
    def sinks(self) -> list[Sink]:
        """As a line has them."""
        channels = self.inspector.manifest.channels
        return [
            JsonLines(self.folder / "verdicts.jsonl"),
            OverlayFolder(self.folder / "anomalies", channels, anomalies_only=True, quota=100 << 20),
            Metrics(Tally),
        ]

    def throughput(self) -> "dict[str, Pace]":
        """Of the bare engine, and of the pipeline by size of the frames."""
        works: dict[str, Callable[[], None]] = {"bare engine": self._bare_engine}
        works |= {name: partial(self._whole_pipeline, images, self.sinks) for name, images in self.images.items()}
        processor: dict[str, list[float]] = {name: [] for name in works}
        contenders = {name: partial(_count_processor_time, work, processor[name]) for name, work in works.items()}
        medians = interleaved_medians(contenders, RUNS)
        return {
            name: Pace(medians[name] / FRAMES_A_RUN, 1e3 * statistics.median(processor[name]) / FRAMES_A_RUN)
            for name in works
        }

    def latency(self) -> dict[str, float]:
        """Milliseconds from frame to verdict."""
        pictures = cycle(self.pictures)
        contenders: dict[str, Callable[[], object]] = {"bare engine": lambda: self.inspector.engine.run(next(pictures))}
        with ExitStack() as stack:
            for name, images in self.images.items():
                waiting = stack.enter_context(closing(OneByOne(self.inspector, self.sinks)))
                direct, through = cycle(images), cycle(images)
                for image in images:  # both say the same
                    waiting.inspect(image)
                    assert waiting.score == self.inspector.inspect(image).score
                contenders[f"{name}, inspect"] = partial(_next, self.inspector.inspect, direct)
                contenders[f"{name}, pipeline"] = partial(_next, waiting.inspect, through)
            return interleaved_medians(contenders, SINGLE_FRAMES, settle=True)

    def _bare_engine(self) -> None:
        for picture in islice(cycle(self.pictures), FRAMES_A_RUN):
            self.inspector.engine.run(picture)

    def _whole_pipeline(self, images: Sequence[Image], sinks: Sequence[Sink]) -> None:
        tally = Pipeline(self.inspector, [Feed(Belt(images, FRAMES_A_RUN))], sinks).run()
        assert tally.inspected == FRAMES_A_RUN


def main() -> None:
    """Print medians, ratios, and whether the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--bundle", type=Path, help="default: efficientnet_lite0 at 256, trained on gravel for a moment"
    )
    parser.add_argument("--threads", type=positive_int, help="of the engine; default: one a core")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)  # as uflow-infer has it
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bundle = Bundle.load(arguments.bundle or gravel_bundle(folder), UFlowManifest)
        with closing(open_engine(bundle, "onnxruntime", threads=arguments.threads)) as engine:
            inspector = Inspector(bundle.manifest, engine)
            images = {name: list(gravel_frames(DIFFERENT_FRAMES, size)) for name, size in SIZES.items()}
            _call_good(inspector, [image for several in images.values() for image in several])
            side = bundle.manifest.input_size
            pictures = [model_input(image, side)[np.newaxis] for image in images["640x480"]]
            bench = Bench(inspector, images, pictures, folder)
            print(f"{engine.name}\n")
            _print_throughput(bench.throughput())
            _print_latency(bench.latency())


def _call_good(inspector: Inspector, images: Sequence[Image]) -> None:
    """Let no frame be anomalous, whatever the bundle thinks of gravel: on a line, hardly any is."""
    threshold = max(inspector.inspect(image).score for image in images)
    inspector.operating_point = OperatingPoint(max(threshold, inspector.operating_point.threshold), "manual")


def _print_throughput(paces: dict[str, Pace]) -> None:
    bare = paces["bare engine"].wall
    rows = [
        (
            name,
            f"{1e3 / pace.wall:.1f}",
            f"{bare / pace.wall:.1%}",
            f"{pace.processor:.2f}",
            _verdict(name, bare / pace.wall >= LEAST_THROUGHPUT),
        )
        for name, pace in paces.items()
    ]
    print(
        f"throughput, median of {RUNS} runs of {FRAMES_A_RUN} frames; goal: {LEAST_THROUGHPUT:.0%} of the bare engine"
    )
    print(table(("", "frames/s", "of bare", "processor ms a frame", ""), rows, left=(0, 4)) + "\n")


def _print_latency(medians: dict[str, float]) -> None:
    bare = medians["bare engine"]
    rows = [
        (name, f"{ms:.2f}", f"{ms / bare - 1:+.1%}", _verdict(name, ms / bare <= MOST_LATENCY))
        for name, ms in medians.items()
    ]
    print(f"latency of single frames, median of {SINGLE_FRAMES}; goal: at most {MOST_LATENCY - 1:+.0%}")
    print(table(("", "ms", "over bare", ""), rows, left=(0, 3)))


def _verdict(name: str, met: bool) -> str:
    return "" if name == "bare engine" else "met" if met else "MISSED"


def _count_processor_time(work: Callable[[], None], seconds: list[float]) -> None:
    before = time.process_time()
    work()
    seconds.append(time.process_time() - before)


def _next(inspect: Callable[[Image], object], images: Iterator[Image]) -> object:
    return inspect(next(images))


if __name__ == "__main__":
    main()

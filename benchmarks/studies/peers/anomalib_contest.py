"""anomalib's ``OpenVINOInferencer`` against our runtime, both with the checkpoint that anomalib saved.

anomalib stops at the likelihood map and its maximum; ours goes on to the tree NFA and the regions. Maps are held
against each other on pictures of the model's own size. On others they differ, for anomalib exports its resize without
the antialiasing it was trained with.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from uflow_edge.benchmarks.studies.markdown import markdown_table
from uflow_edge.benchmarks.studies.peers.anomalib_peer import AnomalibPeer
from uflow_edge.benchmarks.studies.peers.contenders import open_inspectors, over
from uflow_edge.benchmarks.studies.peers.eager_contest import LIKELIHOOD_TOLERANCE
from uflow_edge.benchmarks.studies.peers.models import Model, export_model, in_rgb, pictures
from uflow_edge.benchmarks.studies.peers.settings import Settings
from uflow_edge.benchmarks.studies.timing import Took, interleaved_medians
from uflow_edge.runtime.errors import require
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.nfa import likelihood_map
from uflow_edge.runtime.numeric import FloatMap, Image

AS_IT_COMES, FP32 = "anomalib, as it comes", "anomalib, told to compute in float32"


def anomalib_contest(model: Model, settings: Settings, python: Path | None = None) -> str:
    """A table in Markdown and a line on agreement.

    Args:
        model: whose weights anomalib is given.
        settings: of the run.
        python: interpreter that has anomalib; default, this one.

    Raises:
        MissingDependency: it has none, or OpenVINO is not here.
        AssertionError: maps differ where they should not.
    """
    require("openvino", "openvino")
    own, other = settings.input_size, settings.picture_size
    sizes = sorted({own, other})
    with AnomalibPeer(settings.folder / "anomalib", python) as peer, ExitStack() as stack:
        exported = peer.export(model.checkpoint, sizes)
        checkpoint = Path(exported["checkpoint"])
        bundle = export_model(checkpoint, model.checkpoint.parent / "good")
        inspectors, without = open_inspectors(
            Model("anomalib's checkpoint", checkpoint, bundle), settings.threads, stack
        )
        precisions: dict[str, str] = {}
        rows: list[tuple[str, ...]] = []
        worst: dict[int, dict[str, float]] = {}
        for size in sizes:
            frames = pictures(settings.pictures, (size, size))
            peer.take(str(size), [in_rgb(frame) for frame in frames])
            for name, config in _configurations(settings.threads).items():
                precisions[name] = peer.load(f"{name} {size}", exported["models"][str(size)], config)
            worst[size] = {name: _worst(peer, name, size, frames, inspectors["onnxruntime"]) for name in precisions}
            rows += _rows(peer, size, frames, inspectors, precisions, settings)
        assert worst[own][FP32] <= LIKELIHOOD_TOLERANCE, f"likelihood maps differ by {worst[own][FP32]}"
    told = "; ".join(f"{name}, {size} × {size}: {value:.0e}" for size in sizes for name, value in worst[size].items())
    table = markdown_table(("pictures", "contender", "gives", "median", "times ours, OpenVINO"), rows)
    told = f"Largest difference of likelihood maps to ours: {told}."
    return "\n\n".join([f"anomalib {exported['anomalib']}", table, told, *without])


def _configurations(threads: int) -> dict[str, dict[str, Any]]:
    common = {"INFERENCE_NUM_THREADS": threads}
    return {AS_IT_COMES: common, FP32: {**common, "INFERENCE_PRECISION_HINT": "f32"}}


def _worst(peer: AnomalibPeer, name: str, size: int, frames: Sequence[Image], inspector: Inspector) -> float:
    differences = [
        np.abs(peer.anomaly_map(f"{name} {size}", str(size), i) - _likelihood(inspector, frame)).max()
        for i, frame in enumerate(frames)
    ]
    return float(max(differences))


def _rows(
    peer: AnomalibPeer,
    size: int,
    frames: Sequence[Image],
    inspectors: Mapping[str, Inspector],
    precisions: dict[str, str],
    settings: Settings,
) -> list[tuple[str, ...]]:
    gives: dict[str, str] = {}
    contenders: dict[str, Callable[[], object]] = {}
    for name, precision in precisions.items():
        shown = f"{name} ({precision})"
        contenders[shown] = over(range(len(frames)), partial(_predict, peer, f"{name} {size}", str(size)))
        gives[shown] = "likelihood map"
    for way, inspector in inspectors.items():
        contenders[f"ours, {way}, as far as that"] = over(frames, partial(_likelihood, inspector))
        gives[f"ours, {way}, as far as that"] = "likelihood map"
        contenders[f"ours, {way}"] = over(frames, inspector.inspect)
        gives[f"ours, {way}"] = "verdict by the tree NFA"
    medians = interleaved_medians(contenders, settings.rounds, settle=True)
    ours = medians["ours, OpenVINO, as far as that"]
    return [
        (f"{size} × {size}", name, gives[name], f"{took:.1f} ms", f"{took / ours:.2f}")
        for name, took in medians.items()
    ]


def _predict(peer: AnomalibPeer, model: str, pictures: str, index: int) -> Took:
    return Took(peer.seconds(model, pictures, index))


def _likelihood(inspector: Inspector, frame: Image) -> FloatMap:
    manifest = inspector.manifest
    inferred = inspector.infer(inspector.prepare(frame))
    energies = [energy[0] for energy in inferred.statistics.energies]
    return likelihood_map(energies, manifest.channels, (manifest.input_size, manifest.input_size))

"""Bundles that were made or damaged to hang, to crash, or to call everything good."""

import json
import math
import subprocess
import sys
from functools import partial
from io import BytesIO
from pathlib import Path
from random import Random

import numpy as np
import pytest

from uflow_edge.runtime.bundle.calibration_record import CalibrationRecord
from uflow_edge.runtime.bundle.folder import MANIFEST, Bundle, parse_manifest
from uflow_edge.runtime.bundle.graph_check import check_graph
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.drift import DriftRange
from uflow_edge.runtime.nfa.null_model import ImageGain, NullModel, NullScale, TailLaw
from uflow_edge.runtime.operating_point import LARGEST_THRESHOLD, OperatingPoint
from uflow_edge.runtime.views import ViewOptions

EXTREME = (0, -1, 1e-300, 1e-9, 1e-3, 0.5, 2, 1e5, 1e6, 1e9, 3e38, 1e300, -9.8e307, math.nan, math.inf)
WHOLE = (-1, 0, 1, 3, 10**9, 2**62)
ENERGIES = np.concatenate([np.geomspace(1e-30, 3e38, 63), [0.0]]).astype(np.float32)


@pytest.fixture
def text(exported: Path) -> str:
    """A manifest with all that a calibration adds."""
    values = json.loads((exported / MANIFEST).read_text())
    del values["schema"], values["kind"]
    manifest = Bundle.load(exported, UFlowManifest).manifest
    point = OperatingPoint(0.41, "conformal", 0.05, 40, 0.95)
    record = CalibrationRecord.of(ViewOptions(((1, 2, 30, 40),)), "fp32", "CPU", 80, [(96, 96)], False)
    drift = DriftRange.of(np.random.default_rng(0).normal(size=(40, len(manifest.scales) + 1)))
    fields = {"operating_point": point, "calibration": record, "drift": drift}
    return type(manifest)(**{**{name: getattr(manifest, name) for name in values}, **fields}).to_json()


def can_be_relied_upon(manifest: UFlowManifest) -> bool:
    point, again = manifest.operating_point, parse_manifest(manifest.to_json(), UFlowManifest)
    return abs(point.threshold) <= LARGEST_THRESHOLD and bool(point.promise) and again == manifest


def test_fields_of_manifests(text: str, times: int, attacks, mutations) -> None:
    trials = attacks("manifests: fields")
    for seed in range(30 * times):
        changed = json.dumps(mutations(seed).of_json(json.loads(text)))
        trials.attempt(seed, partial(parse_manifest, changed, UFlowManifest), can_be_relied_upon)


def test_bytes_of_manifests(text: str, tmp_path: Path, times: int, attacks, mutations) -> None:
    trials = attacks("manifests: bytes")
    for seed in range(20 * times):
        (tmp_path / MANIFEST).write_bytes(mutations(seed).of_bytes(text.encode()))
        refused = trials.attempt(seed, lambda: Bundle.load(tmp_path, UFlowManifest))
        assert refused == "refused"  # for want of files, if not before


def null_model(sides: tuple[int, ...] = (8, 4)) -> NullModel:
    law = TailLaw(6.0, 0.2, 0.3, 4.0, 0.02, 0.2, 0.5)
    sizes = np.array([0.9, 1.2, 1.5]), np.array([1.5, 1.2, 0.8])
    gains = [np.full((side, side), 40, np.float32) for side in sides]
    return NullModel(tuple(NullScale(gain, ImageGain(0.5, 0.8, 1.5), law, *sizes) for gain in gains), 50)


def scores_soundly(model: NullModel) -> bool:
    """Whether the largest energies there are get a finite score, and a higher one than small energies get."""
    shapes = [scale.pixel_gain.shape for scale in model.scales]
    size = (8, 8)
    highest, usual = (
        model.score([np.resize(values, shape) for shape in shapes], size)
        for values in (ENERGIES, model.scales[0].pixel_gain.ravel()[:1])
    )
    return bool(np.isfinite(highest).all() and np.isfinite(usual).all() and highest.max() >= usual.max())


def with_an_odd_value(whole: bytes, random: Random) -> bytes:
    arrays = dict(np.load(BytesIO(whole)))
    name = random.choice(sorted(arrays))
    values = np.array(arrays[name])
    value = random.choice(WHOLE if values.dtype.kind in "iu" else EXTREME)
    with np.errstate(over="ignore"):
        values.reshape(-1)[random.randrange(values.size)] = np.float64(value).astype(values.dtype)
    arrays[name] = values if random.random() < 0.9 else np.resize(values, random.randrange(99))
    buffer = BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_null_models(tmp_path: Path, times: int, attacks, mutations) -> None:
    """A value of any array is exchanged for one that is extreme, or bytes of the file are."""
    trials, path = attacks("null models"), tmp_path / "null_model.npz"
    null_model().save(path)
    whole = path.read_bytes()
    for seed in range(20 * times):
        change = mutations(seed)
        content = with_an_odd_value(whole, change.random) if seed % 4 else change.of_bytes(whole)
        path.write_bytes(content)
        trials.attempt(seed, lambda: NullModel.load(path), scores_soundly)


_LOAD = """
import sys
from pathlib import Path
import onnxruntime
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception:
        pass
print("all tried")
"""


def test_graphs(exported: Path, tmp_path: Path, times: int, attacks, mutations) -> None:
    """What the check lets through, onnxruntime must be able to refuse in peace."""
    trials = attacks("graphs")
    whole = (exported / "model.fp32.onnx").read_bytes()
    names = whole.find(b"\x0a", len(whole) * 9 // 10)
    for seed in range(10 * times):
        change, path = mutations(seed), tmp_path / f"{seed:05d}.onnx"
        path.write_bytes(change.of_bytes(whole, None if seed % 2 else max(names, 2000)))
        if trials.attempt(seed, partial(check_graph, path, ())) == "refused" or (times > 1 and seed % 10):
            path.unlink()
    tried = subprocess.run([sys.executable, "-c", _LOAD, tmp_path], capture_output=True, text=True, timeout=300)
    assert (tried.returncode, tried.stdout) == (0, "all tried\n"), tried.stderr[-2000:]

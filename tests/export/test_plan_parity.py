"""What a TensorRT engine is held against, and where that is noted; onnxruntime stands in for the engine itself."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from extras import needs
from uflow_edge.export import plan_parity
from uflow_edge.export.engines.plan_options import PlanOptions
from uflow_edge.export.engines.plans import build_plans
from uflow_edge.export.plan_parity import check_plans
from uflow_edge.runtime.bundle.folder import Bundle, write_manifest
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.engines import Outputs
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.inspection import LatentStatistics
from uflow_edge.runtime.nfa.null_model import ImageGain, NullModel, NullScale, TailLaw
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.storage.files import sha256

pytestmark = needs("tensorrt_rtx_bindings")

RTX = PlanOptions("rtx", compute_capabilities=("8.9",))


class StandIn(OnnxRuntimeEngine):
    """Runs the plan's graph, its energies larger by a factor."""

    factor = 1.0

    def __init__(self, bundle, plan) -> None:
        (variant,) = (variant for variant in bundle.manifest.variants if variant.file == plan.graph)
        super().__init__(bundle.path(variant), bundle.manifest, variant)

    def run(self, images: np.ndarray) -> Outputs:
        found = LatentStatistics.of(super().run(images), len(self._signature.outputs))
        return (*(energy * np.float32(self.factor) for energy in found.energies), *found.exceedances)


@pytest.mark.parametrize(("factor", "holds"), [(1.0, True), (1.02, False)])
def test_an_engine_is_held_against_the_fp32_graph(exported: Path, tmp_path, monkeypatch, factor, holds) -> None:
    monkeypatch.setattr(plan_parity, "TensorRtEngine", StandIn)
    monkeypatch.setattr(StandIn, "factor", factor)
    bundle, (result,) = build_plans(
        Bundle.load(shutil.copytree(exported, tmp_path / "a.uflow"), UFlowManifest), ["fp16"], RTX
    )
    before = json.loads((bundle.folder / "parity.json").read_text())
    after, (parity,) = check_plans(bundle, [result.plan])
    assert parity.holds == holds
    assert parity.reference.startswith("model.fp32.onnx in onnxruntime")
    assert max(parity.energy_error) == pytest.approx(factor - 1, abs=6e-3)
    assert Bundle.load(bundle.folder, UFlowManifest) == after
    noted = json.loads((bundle.folder / "parity.json").read_text())
    assert noted[result.plan.file][0]["holds"] == holds
    assert {name: noted[name] for name in before} == before


def test_a_calibrated_bundle_is_compared_by_its_null_model(exported: Path, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(plan_parity, "TensorRtEngine", StandIn)
    bundle, (result,) = build_plans(
        Bundle.load(shutil.copytree(exported, tmp_path / "a.uflow"), UFlowManifest), ["fp16"], RTX
    )
    scales = tuple(
        NullScale(
            np.full((scale.height, scale.width), scale.channels, np.float32),
            ImageGain(0.0, 1.0, 1.0),
            TailLaw(6.0, 0.2, 0.3, 3.3, 0.02, 0.2, 0.5),
            np.array([0.9]),
            np.array([1.5]),
        )
        for scale in bundle.manifest.scales
    )
    NullModel(scales, 50).save(bundle.folder / "null_model.npz")
    files = {**bundle.manifest.files, "null_model.npz": sha256(bundle.folder / "null_model.npz")}
    point = OperatingPoint(3.5, "manual")
    manifest = replace(bundle.manifest, files=files, null_model="null_model.npz", operating_point=point)
    _, (parity,) = check_plans(write_manifest(bundle.folder, manifest), [result.plan])
    assert (parity.calibrated, parity.threshold) == (True, 3.5)

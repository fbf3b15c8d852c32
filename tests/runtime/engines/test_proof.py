"""An engine that does not compute what FP32 does is not chosen."""

import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from extras import needs
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.engines import EngineFailed, Outputs
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.engines.openvino import OpenVinoEngine
from uflow_edge.runtime.engines.proof import EngineDeviates
from uflow_edge.runtime.engines.reference import REFERENCE
from uflow_edge.runtime.engines.selection import open_engine
from uflow_edge.runtime.errors import BadInput, ExitCode
from uflow_edge.runtime.numeric import Image


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda energy: energy * np.nan, "not finite, or impossible"),
        (lambda energy: -energy - 1, "not finite, or impossible"),
        (lambda energy: energy[:, 1:], "expected outputs of shapes"),
    ],
)
def test_an_engine_that_computes_nonsense_is_closed_and_not_chosen(bundle, monkeypatch, spoil, message) -> None:
    closed = []
    honest = OnnxRuntimeEngine.run

    def run(self: OnnxRuntimeEngine, images: Image) -> Outputs:
        return tuple(spoil(output) for output in honest(self, images))

    monkeypatch.setattr(OnnxRuntimeEngine, "run", run)
    monkeypatch.setattr(OnnxRuntimeEngine, "close", lambda self: closed.append(self))
    with pytest.raises(EngineFailed, match=message):
        open_engine(bundle, "onnxruntime")
    assert len(closed) == 1


def brighter(engine: type[OnnxRuntimeEngine | OpenVinoEngine], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every engine of a class give energies a tenth too large: plausible numbers, but not the network's."""
    honest = engine.run

    def run(self: OnnxRuntimeEngine | OpenVinoEngine, images: Image) -> Outputs:
        return tuple(1.1 * output for output in honest(self, images))

    monkeypatch.setattr(engine, "run", run)


def without_reference(bundle: Bundle) -> Bundle:
    """As exported before bundles carried one."""
    variants = tuple(replace(variant, reference=None) for variant in bundle.manifest.variants)
    return Bundle(bundle.folder, replace(bundle.manifest, variants=variants))


ON_THE_CPU = pytest.mark.parametrize(
    ("backend", "engine"),
    [("onnxruntime", OnnxRuntimeEngine), pytest.param("openvino", OpenVinoEngine, marks=needs("openvino"))],
)


@ON_THE_CPU
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_engine_that_computes_something_else_is_refused_by_name(
    bundle, monkeypatch, backend, engine, precision
) -> None:
    brighter(engine, monkeypatch)
    with pytest.raises(
        EngineDeviates, match=r"something else than FP32: energies are off by 1\.\de-01, where 1e-0"
    ) as info:
        open_engine(bundle, backend, precision)
    assert info.value.exit_code == ExitCode.MISSING


@needs("openvino")
def test_auto_goes_on_to_an_engine_that_computes_what_fp32_does(bundle, monkeypatch, logged: list[str]) -> None:
    brighter(OnnxRuntimeEngine, monkeypatch)
    with closing(open_engine(bundle)) as engine:
        assert isinstance(engine, OpenVinoEngine)
    assert logged[0].startswith("warning: onnxruntime is skipped: onnxruntime ")
    assert "computes something else than FP32" in logged[0]
    brighter(OpenVinoEngine, monkeypatch)
    with pytest.raises(EngineDeviates):
        open_engine(bundle)


@needs("openvino")
def test_engines_of_older_bundles_are_held_against_the_graph_in_onnxruntime(bundle, monkeypatch) -> None:
    older = without_reference(bundle)
    for backend in ("onnxruntime", "openvino"):
        open_engine(older, backend, "fp16").close()
    brighter(OpenVinoEngine, monkeypatch)
    with pytest.raises(EngineDeviates, match="something else"):
        open_engine(older, "openvino", "fp16")


def test_a_reference_that_does_not_fit_the_bundle_is_a_bad_bundle(bundle, tmp_path) -> None:
    folder = Path(shutil.copytree(bundle.folder, tmp_path / "x.uflow"))
    np.savez(folder / REFERENCE, image=np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(BadInput, match=r"reference\.npz: this is no reference for the bundle"):
        open_engine(Bundle(folder, bundle.manifest), "onnxruntime")

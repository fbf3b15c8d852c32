"""Engines on this machine's CPU, for real."""

import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from engine_outputs import assert_same, on_cpu
from extras import needs
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.engines import Engine
from uflow_edge.runtime.engines.reference import REFERENCE
from uflow_edge.runtime.engines.selection import open_engine
from uflow_edge.runtime.engines.stopwatch import Stopwatch
from uflow_edge.runtime.inspection import LatentStatistics
from uflow_edge.runtime.numeric import Image

OPENVINO = pytest.param("openvino", marks=needs("openvino"))


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("fp16", 2e-2)])
@pytest.mark.parametrize("backend", ["onnxruntime", OPENVINO])
def test_engines_of_the_cpu_agree(bundle, images, backend, precision, tolerance) -> None:
    with closing(on_cpu(bundle)) as reference, closing(open_engine(bundle, backend, precision)) as engine:
        assert engine.name.endswith(f", CPU, {precision}")
        assert_same(engine.run(images), reference.run(images), tolerance)


@pytest.mark.parametrize("backend", ["onnxruntime", OPENVINO])
def test_exceedances_come_after_energies(counting: Path, bundle: Bundle, images: Image, backend: str) -> None:
    both = Bundle.load(counting, UFlowManifest)
    with closing(open_engine(both, backend)) as engine, closing(on_cpu(bundle)) as energies_alone:
        outputs = engine.run(images)
        assert_same(outputs[:2], energies_alone.run(images))
        assert_same(outputs, on_cpu(both).run(images))
    counts = LatentStatistics.of(outputs, 2).exceedances
    assert [count.shape for count in counts] == [(3, 8, 8), (3, 4, 4)]
    assert all(0 < count.mean() < count.max() <= c for count, c in zip(counts, both.manifest.channels, strict=True))


@pytest.mark.parametrize("backend", ["onnxruntime", OPENVINO])
def test_one_by_one_is_as_together(bundle, images, backend) -> None:
    with closing(open_engine(bundle, backend, "fp32")) as engine:
        alone = [engine.run(images[i : i + 1]) for i in range(len(images))]
        together = engine.run(images)
        assert_same(together, [np.concatenate(scale) for scale in zip(*alone, strict=True)], 1e-5)
        assert_same(engine.run(images[:1]), alone[0], 1e-7)


@needs("openvino")
def test_what_a_run_gave_is_not_changed_by_the_next(bundle, images) -> None:
    for make in (on_cpu, lambda bundle: open_engine(bundle, "openvino")):
        with closing(make(bundle)) as engine:
            first = engine.run(images[:1])
            kept = [output.copy() for output in first]
            engine.run(images[1:2])
            assert all((a == b).all() for a, b in zip(first, kept, strict=True))


@needs("openvino")
def test_a_closed_engine_can_be_closed_again(bundle) -> None:
    for make in (on_cpu, lambda bundle: open_engine(bundle, "openvino")):
        engine: Engine = make(bundle)
        engine.close()
        engine.close()


@pytest.mark.long
def test_a_graph_of_a_fixed_batch_takes_any_number(trained, tmp_path, images) -> None:
    from uflow_edge.export.bundle import ExportOptions, export_bundle

    export_bundle(trained, tmp_path / "two.uflow", ExportOptions(batch=2))
    fixed = Bundle.load(tmp_path / "two.uflow", UFlowManifest)
    assert fixed.manifest.variants[0].batch == 2
    with closing(open_engine(fixed)) as engine, closing(on_cpu(fixed)) as reference:
        assert_same(engine.run(images), reference.run(images))
        assert engine.run(images)[0].shape[0] == 3


@pytest.mark.parametrize("backend", ["onnxruntime", OPENVINO])
def test_where_host_memory_is_the_devices_there_are_no_transfers(bundle, images, backend) -> None:
    stopwatch = Stopwatch()
    with closing(open_engine(bundle, backend, stopwatch=stopwatch)) as engine:
        engine.run(images)
    assert stopwatch.transfers is None


@pytest.mark.parametrize("backend", ["onnxruntime", OPENVINO])
def test_a_bundle_of_links_into_a_store_is_loaded(bundle, images, backend, tmp_path) -> None:
    store, folder = tmp_path / "store", tmp_path / "links.uflow"
    store.mkdir()
    folder.mkdir()
    variant = replace(bundle.manifest.variants[0], data="weights.data")
    model = onnx.load(bundle.path(variant))
    onnx.save(model, store / variant.file, save_as_external_data=True, location="weights.data")
    shutil.copy(bundle.folder / REFERENCE, store)
    for i, name in enumerate((variant.file, "weights.data", REFERENCE)):
        (store / name).rename(store / str(i))
        (folder / name).symlink_to(store / str(i))
    linked = Bundle(folder, replace(bundle.manifest, variants=(variant,)))
    with closing(open_engine(linked, backend)) as engine, closing(on_cpu(bundle)) as reference:
        assert_same(engine.run(images), reference.run(images), 1e-3 if backend == "openvino" else 1e-6)


@pytest.mark.parametrize("backend", ["onnxruntime", OPENVINO])
def test_the_parts_of_a_frame_are_computed_a_few_at_a_time(bundle, backend, monkeypatch) -> None:
    side = bundle.manifest.input_size
    many = np.random.default_rng(6).integers(0, 256, (19, side, side, 3), np.uint8)
    with closing(open_engine(bundle, backend, "fp32")) as engine:
        counts: list[int] = []
        honest = engine._run
        monkeypatch.setattr(engine, "_run", lambda inputs: counts.append(len(inputs[0])) or honest(inputs))
        found = engine.run(many)
        alone = [engine.run(many[i : i + 1]) for i in range(len(many))]
    assert counts[:3] == [8, 8, 3]
    assert_same(found, [np.concatenate(scale) for scale in zip(*alone, strict=True)], 1e-5)

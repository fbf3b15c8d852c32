"""Engines on this machine's CPU for real, providers of a GPU as far as they go without one, and the choice of one."""

import itertools
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extras import needs
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.manifest import BatchRange
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.engines import Engine, EngineFailed, Outputs
from uflow_edge.runtime.engines.batches import MOST_AT_ONCE, run_in_batches
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine, session_options
from uflow_edge.runtime.engines.onnx_runtime_gpu import DeviceBinding, OnnxRuntimeGpuEngine
from uflow_edge.runtime.engines.openvino import OpenVinoEngine
from uflow_edge.runtime.engines.proof import EngineDeviates
from uflow_edge.runtime.engines.reference import REFERENCE
from uflow_edge.runtime.engines.selection import BACKENDS, open_engine
from uflow_edge.runtime.engines.stopwatch import Stopwatch, Transfers
from uflow_edge.runtime.errors import BadInput, ExitCode, MissingDependency, UsageError
from uflow_edge.runtime.inspection import LatentStatistics
from uflow_edge.runtime.numeric import Image

RealSession = onnxruntime.InferenceSession


OPENVINO = pytest.param("openvino", marks=needs("openvino"))


@pytest.fixture(scope="module")
def bundle(exported: Path) -> Bundle:
    return Bundle.load(exported, UFlowManifest)


@pytest.fixture
def images(bundle: Bundle) -> Image:
    side = bundle.manifest.input_size
    return np.random.default_rng(5).integers(0, 256, (3, side, side, 3), np.uint8)


def assert_same(found_outputs: Outputs, expected_outputs: Outputs, tolerance: float = 1e-3) -> None:
    found, expected = LatentStatistics.of(found_outputs, 2), LatentStatistics.of(expected_outputs, 2)
    for a, b in zip(found.energies, expected.energies, strict=True):
        assert (a.shape, a.dtype) == (b.shape, np.float32)
        np.testing.assert_allclose(a, b, rtol=tolerance)
    for a, b in zip(found.exceedances, expected.exceedances, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).mean() <= 10 * tolerance  # a count flips where a latent lies on the quantile


def on_cpu(bundle: Bundle) -> OnnxRuntimeEngine:
    variant = bundle.manifest.variants[0]
    return OnnxRuntimeEngine.from_bundle(bundle, variant)


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


@given(st.integers(1, 20), st.integers(1, 6), st.integers(0, 5))
def test_any_number_of_images_goes_through_any_batch(count, minimum, more) -> None:
    batch = BatchRange(minimum, minimum, minimum + more)
    images = np.arange(count * 12).reshape(count, 2, 2, 3).astype(np.uint8)
    steps = np.arange(count, dtype=np.float32)
    sizes = []

    def run(parts: list[np.ndarray]) -> list[np.ndarray]:
        pictures, numbers = parts
        sizes.append(len(pictures))
        return [pictures.sum(axis=3).astype(np.float32), -numbers]

    summed, negative = run_in_batches([images, steps], batch, run)
    assert all(batch.minimum <= size <= batch.maximum for size in sizes)
    assert len(sizes) == -(-count // batch.maximum)
    expected = images.sum(axis=3).astype(np.float32)
    np.testing.assert_array_equal(summed, expected)
    np.testing.assert_array_equal(negative, -steps)
    sizes.clear()
    np.testing.assert_array_equal(run_in_batches([images, steps], None, run)[0], expected)
    assert max(sizes) <= MOST_AT_ONCE


@pytest.mark.long
def test_a_graph_of_a_fixed_batch_takes_any_number(trained, tmp_path, images) -> None:
    from uflow_edge.export.bundle import ExportOptions, export_bundle

    export_bundle(trained, tmp_path / "two.uflow", ExportOptions(batch=2))
    fixed = Bundle.load(tmp_path / "two.uflow", UFlowManifest)
    assert fixed.manifest.variants[0].batch == 2
    with closing(open_engine(fixed)) as engine, closing(on_cpu(fixed)) as reference:
        assert_same(engine.run(images), reference.run(images))
        assert engine.run(images)[0].shape[0] == 3


# What is bound to a device is bound the same way on the CPU.


@pytest.mark.parametrize("count", [1, 3])
def test_bound_buffers_are_used_again_and_give_the_same(bundle, images, count) -> None:
    variant, manifest = bundle.manifest.variants[0], bundle.manifest
    session = RealSession(str(bundle.path(variant)), session_options(1), providers=["CPUExecutionProvider"])
    binding = DeviceBinding(session, manifest.signature, count, "cpu")
    first = binding.run([images[:count]])
    second = binding.run([images[::-1][:count]])
    with closing(on_cpu(bundle)) as reference:
        for found, expected in ((first, images[:count]), (second, images[::-1][:count])):
            assert_same(tuple(found), reference.run(expected), 1e-5)


# A provider of a GPU, as onnxruntime behaves when something is wrong with it.


@pytest.fixture
def pretend(monkeypatch, tmp_path) -> Callable[..., list[SimpleNamespace]]:
    """onnxruntime-gpu that lists its providers; sessions claim to run on what they are told."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def set_up(runs_on: Callable[[str], str], run: Callable[[], None]) -> list[SimpleNamespace]:
        asked = []

        class Session:
            def __init__(self, path: str, options: object, providers: list, **rest: object) -> None:
                self.first = providers[0][0] if isinstance(providers[0], tuple) else providers[0]
                asked.append(SimpleNamespace(providers=providers, **rest))
                print("EP Error: onnxruntime says this on stdout")
                self.real = RealSession(path, options, providers=["CPUExecutionProvider"])

            def get_providers(self) -> list[str]:
                return [runs_on(self.first)]

            def run_with_iobinding(self, binding: object) -> None:
                run()
                self.real.run_with_iobinding(binding)

            def __getattr__(self, name: str) -> object:
                return getattr(self.real, name)

        listed = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
        monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcudnn.so.9"), raising=False)
        # There is no device to bind to, so the same buffers are made on the CPU.
        real = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        on_host = staticmethod(lambda shape, kind, device, number: real(shape, kind, "cpu", number))
        monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_shape_and_type", on_host)
        return asked

    return set_up


def test_a_provider_that_falls_back_to_the_cpu_is_skipped(bundle, images, pretend, capfd, logged: list[str]) -> None:
    pretend(runs_on=lambda asked: "CPUExecutionProvider", run=lambda: None)
    with closing(open_engine(bundle)) as engine:
        assert engine.name == f"onnxruntime {onnxruntime.__version__}, CPU, fp32"
        engine.run(images)
    assert [line.split(" but ")[0] for line in logged] == [
        "warning: onnxruntime-tensorrt is skipped: onnxruntime lists TensorrtExecutionProvider",
        "warning: onnxruntime-cuda is skipped: onnxruntime lists CUDAExecutionProvider",
        f"engine: onnxruntime {onnxruntime.__version__}, CPU, fp32",
    ]
    captured = capfd.readouterr()
    assert "EP Error" in captured.err and "libcudnn" in captured.err
    assert "libcudnn" not in captured.out


def test_a_provider_that_fails_its_first_run_is_skipped(bundle, images, pretend, logged: list[str]) -> None:
    def fail() -> None:
        raise RuntimeError("CUDNN_STATUS_NOT_INITIALIZED\n in conv")

    pretend(runs_on=lambda asked: asked, run=fail)
    with closing(open_engine(bundle)) as engine:
        assert ", CPU, " in engine.name
        assert len(engine.run(images)) == len(bundle.manifest.scales)
    assert [": the run failed (CUDNN_STATUS_NOT_INITIALIZED in conv)" in line for line in logged] == [True, True, False]
    with pytest.raises(EngineFailed, match="onnxruntime .*, CUDA, fp16: the run failed"):  # asked for by name: no other
        open_engine(bundle, "onnxruntime-cuda")


def test_providers_that_work_are_taken_tensorrt_first(bundle, images, pretend) -> None:
    asked = pretend(runs_on=lambda asked: asked, run=lambda: None)
    version = onnxruntime.__version__
    for backend, name in (
        ("auto", f"onnxruntime {version}, TensorRT, fp32"),
        ("onnxruntime-tensorrt", f"onnxruntime {version}, TensorRT, fp32"),
        ("onnxruntime-cuda", f"onnxruntime {version}, CUDA, fp16"),
    ):
        with closing(open_engine(bundle, backend)) as engine, closing(on_cpu(bundle)) as reference:
            assert engine.name == name
            assert_same(engine.run(images), reference.run(images), 2e-2)
            assert_same(engine.run(images[:1]), reference.run(images[:1]), 2e-2)
    engines = [session for session in asked if session.providers != ["CPUExecutionProvider"]]
    assert all(session.enable_fallback == 0 for session in engines)
    assert [session.providers[-1] for session in engines] == ["CPUExecutionProvider"] * 3
    assert engines[2].providers[0] == ("CUDAExecutionProvider", {"use_tf32": "0"})


def test_a_stopwatch_is_told_of_the_transfers_of_every_run(bundle, images, pretend, monkeypatch) -> None:
    pretend(runs_on=lambda asked: asked, run=lambda: None)
    stopwatch = Stopwatch()
    with closing(open_engine(bundle, "onnxruntime-cuda", stopwatch=stopwatch)) as engine:
        assert stopwatch.transfers is not None  # of the sample that it was tried with
        stopwatch.restart()
        squares = (float(i**2) for i in itertools.count())  # of seconds, so that no two parts take as long
        clock = SimpleNamespace(perf_counter=lambda: next(squares))
        monkeypatch.setattr("uflow_edge.runtime.engines.onnx_runtime_gpu.time", clock)
        engine.run(images)
        assert stopwatch.transfers == Transfers(1e3 * (1 - 0), 1e3 * (9 - 4))
        engine.run(images)
        assert stopwatch.transfers == Transfers(1e3 * (1 + 25 - 16), 1e3 * (5 + 49 - 36))


@pytest.mark.parametrize("backend", ["onnxruntime", OPENVINO])
def test_where_host_memory_is_the_devices_there_are_no_transfers(bundle, images, backend) -> None:
    stopwatch = Stopwatch()
    with closing(open_engine(bundle, backend, stopwatch=stopwatch)) as engine:
        engine.run(images)
    assert stopwatch.transfers is None


def test_engines_of_the_tensorrt_provider_are_kept_for_the_user_outside_the_bundle(
    bundle, exported, pretend, tmp_path
) -> None:
    asked = pretend(runs_on=lambda asked: asked, run=lambda: None)
    read_only = Path(shutil.copytree(exported, tmp_path / "read_only.uflow"))
    before = sorted(read_only.rglob("*"))
    open_engine(Bundle.load(read_only, UFlowManifest), "onnxruntime-tensorrt").close()
    assert sorted(read_only.rglob("*")) == before
    (_, options), *_ = asked[0].providers
    folder = Path(options["trt_engine_cache_path"])
    assert folder.parent == tmp_path / "cache" / "uflow-edge"
    assert folder.name.endswith(bundle.manifest.files["model.fp32.onnx"][:16])
    assert folder.stat().st_mode & 0o777 == 0o700
    side = bundle.manifest.input_size
    assert options["trt_profile_max_shapes"] == f"image:4x{side}x{side}x3"
    assert options["trt_engine_cache_enable"] == "1"


def test_without_a_cache_folder_the_tensorrt_provider_builds_at_each_start(bundle, pretend, tmp_path) -> None:
    asked = pretend(runs_on=lambda asked: asked, run=lambda: None)
    (tmp_path / "cache").touch()  # a file where the folder would be
    open_engine(bundle, "onnxruntime-tensorrt").close()
    (_, options), *_ = asked[0].providers
    assert not any("cache" in name for name in options)
    assert "trt_profile_max_shapes" in options


def test_the_tensorrt_provider_may_not_choose_half_precision(bundle, pretend) -> None:
    pretend(runs_on=lambda asked: asked, run=lambda: None)
    with pytest.raises(UsageError, match="decides itself what runs in half precision"):
        open_engine(bundle, "onnxruntime-tensorrt", "fp16")


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


# Memory.


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


# The choice.


def test_auto_takes_onnxruntime_in_fp32_here_and_names_nothing_that_is_absent(bundle, logged: list[str]) -> None:
    with closing(open_engine(bundle)) as engine:
        assert isinstance(engine, OnnxRuntimeEngine)
    assert logged == [f"engine: onnxruntime {onnxruntime.__version__}, CPU, fp32"]


def test_auto_heeds_the_precision(bundle) -> None:
    with closing(open_engine(bundle, precision="fp16")) as engine:
        assert engine.name.endswith("CPU, fp16")


@pytest.mark.parametrize("backend", ["onnxruntime-tensorrt", "onnxruntime-cuda"])
def test_a_backend_that_is_not_here_is_an_error_that_says_what_to_install(bundle, backend) -> None:
    with pytest.raises(MissingDependency, match="this onnxruntime has no .*pip install onnxruntime-gpu") as info:
        open_engine(bundle, backend)
    assert info.value.exit_code == ExitCode.MISSING


def test_a_precision_that_the_bundle_lacks_is_an_error(bundle) -> None:
    manifest = replace(bundle.manifest, variants=bundle.manifest.variants[:1])
    with pytest.raises(UsageError, match="no fp16 graph, only: fp32"):
        open_engine(Bundle(bundle.folder, manifest), precision="fp16")


@needs("openvino")
def test_when_onnxruntime_fails_the_next_one_runs(bundle, monkeypatch, logged: list[str]) -> None:
    def broken(*arguments: object) -> None:
        raise BadInput("this build has no Conv")

    monkeypatch.setattr("uflow_edge.runtime.engines.onnx_runtime.OnnxRuntimeEngine", broken)
    with closing(open_engine(bundle)) as engine:
        assert isinstance(engine, OpenVinoEngine)
    assert logged[0] == "warning: onnxruntime is skipped: this build has no Conv"

    def surprised(*arguments: object) -> None:
        raise ValueError("two\nlines")

    monkeypatch.setattr("uflow_edge.runtime.engines.openvino.OpenVinoEngine", surprised)
    with pytest.raises(BadInput, match="this build has no Conv"):
        open_engine(bundle)
    assert logged[-1] == "warning: openvino is skipped: ValueError: two lines"


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


def test_the_best_come_first() -> None:
    assert BACKENDS == ("tensorrt", "onnxruntime-tensorrt", "onnxruntime-cuda", "onnxruntime", "openvino")


@pytest.mark.gpu
@pytest.mark.parametrize("provider", ["CUDAExecutionProvider", "TensorrtExecutionProvider"])
def test_a_real_provider_gives_what_the_cpu_gives(bundle, images, provider, monkeypatch, tmp_path) -> None:
    if provider not in onnxruntime.get_available_providers():
        if os.environ.get("UFLOW_EDGE_REQUIRE_SERVICES"):
            pytest.fail(f"{provider} is required, but this onnxruntime lacks it")
        pytest.skip(f"this onnxruntime has no {provider}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    variant = bundle.manifest.variants[0]
    engine = OnnxRuntimeGpuEngine(bundle.path(variant), bundle.manifest, variant, provider)
    with closing(engine), closing(on_cpu(bundle)) as reference:
        for count in (3, 1, 1):
            assert_same(engine.run(images[:count]), reference.run(images[:count]), 1e-2)

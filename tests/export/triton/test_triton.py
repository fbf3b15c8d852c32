"""A Triton repository: read with Triton's own schema, and run as its ensemble says, beside `Inspector`.

No server is needed: this file stands in for ``triton_python_backend_utils``, which only a server has, and onnxruntime
runs the graph as Triton's ONNX backend does.
"""

import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format

from extras import extra
from uflow_edge.export.command import main
from uflow_edge.export.triton import repository as triton
from uflow_edge.export.triton.config import Enum
from uflow_edge.export.triton.config import text_format as write_text
from uflow_edge.export.triton.repository import ONLY_PLAN, TritonOptions, write_repository
from uflow_edge.runtime import Inspector
from uflow_edge.runtime.bundle.folder import MANIFEST, Bundle, write_manifest
from uflow_edge.runtime.bundle.manifest import BatchRange, Plan
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.errors import BadInput, UsageError
from uflow_edge.runtime.nfa.null_model import ImageGain, NullModel, NullScale
from uflow_edge.runtime.nfa.null_tail import TailLaw
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.storage.files import sha256

schema = extra("tritonclient.grpc.model_config_pb2")

NUMPY = {"TYPE_UINT8": np.uint8, "TYPE_FP32": np.float32, "TYPE_BOOL": np.bool_, "TYPE_STRING": np.object_}
TAIL = TailLaw(6.0, 0.2, 0.3, 4.0, 0.02, 0.2, 0.5)


class Tensor:
    """As `triton_python_backend_utils.Tensor`."""

    def __init__(self, name: str, values: np.ndarray) -> None:
        self._name, self._values = name, values

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> np.ndarray:
        return self._values


class InferenceResponse:
    """Likewise."""

    def __init__(self, output_tensors: list[Tensor], error: object = None) -> None:
        self.output_tensors, self.error = output_tensors, error


@pytest.fixture(autouse=True)
def backend(monkeypatch: pytest.MonkeyPatch) -> None:
    utils = ModuleType("triton_python_backend_utils")
    utils.Tensor = Tensor
    utils.InferenceResponse = InferenceResponse
    utils.TritonError = lambda message: SimpleNamespace(message=lambda: message)
    utils.get_input_tensor_by_name = lambda request, name: request[name]
    monkeypatch.setitem(sys.modules, utils.__name__, utils)


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Bundle[UFlowManifest]:
    """A copy of a real bundle."""
    shutil.copytree(exported, tmp_path / "gravel.uflow")
    return Bundle.load(tmp_path / "gravel.uflow", UFlowManifest)


@pytest.fixture
def repository(bundle: Bundle[UFlowManifest], tmp_path: Path) -> Path:
    write_repository(bundle, tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def pictures(texture_folder: Path) -> np.ndarray:
    """(4, 64, 64, 3) uint8 RGB: two good ones, one with a hole, one of noise."""
    files = [*sorted((texture_folder / "train" / "good").iterdir())[:2], texture_folder / "test" / "hole" / "00.png"]
    read = [cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)[16:80, 16:80] for file in files]
    return np.stack([*read, np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)])


def parsed(repository: Path, model: str) -> Any:
    return text_format.Parse((repository / model / "config.pbtxt").read_text(), schema.ModelConfig())


def signature(tensors: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {one.name: (schema.DataType.Name(one.data_type), tuple(one.dims)) for one in tensors}


def python_model(folder: Path) -> Any:
    """Load model.py from where it lies, as the backend does."""
    spec = importlib.util.spec_from_file_location("model_of_the_repository", folder / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.TritonPythonModel()
    model.initialize({"model_repository": str(folder.parent), "model_version": folder.name})
    return model


def run(repository: Path, model: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a model as its config says, and insist on the types and shapes it promises."""
    config = parsed(repository, model)
    check(inputs, signature(config.input))
    if config.platform == "ensemble":
        outputs = run_ensemble(repository, config, inputs)
    elif config.platform == "onnxruntime_onnx":
        session = onnxruntime.InferenceSession(repository / model / "1" / "model.onnx")
        names = [output.name for output in config.output]
        outputs = dict(zip(names, session.run(names, inputs), strict=True))
    else:
        request = {name: Tensor(name, values) for name, values in inputs.items()}
        (response,) = python_model(repository / model / "1").execute([request])
        assert response.error is None
        outputs = {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors}
    check(outputs, signature(config.output))
    return outputs


def run_ensemble(repository: Path, config: Any, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    pool = dict(inputs)
    for step in config.ensemble_scheduling.step:
        given = {name: pool[source] for name, source in step.input_map.items()}
        made = run(repository, step.model_name, given)
        pool |= {target: made[name] for name, target in step.output_map.items()}
    return {output.name: pool[output.name] for output in config.output}


def check(tensors: dict[str, np.ndarray], promised: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    assert tensors.keys() == promised.keys()
    assert len({len(values) for values in tensors.values()}) == 1
    for name, (data_type, dims) in promised.items():
        assert (tensors[name].dtype, tensors[name].shape[1:]) == (NUMPY[data_type], dims), name


def save_changed(bundle: Bundle[UFlowManifest], **changes: Any) -> Bundle[UFlowManifest]:
    write_manifest(bundle.folder, replace(bundle.manifest, **changes))
    return Bundle.load(bundle.folder, UFlowManifest)


def with_null_model(bundle: Bundle[UFlowManifest], name: str = "null_model-a.npz") -> Bundle[UFlowManifest]:
    gains = [np.full((s.height, s.width), s.channels, np.float32) for s in bundle.manifest.scales]
    scales = tuple(
        NullScale(gain, ImageGain(0.5, 0.5, 2.0), TAIL, np.array([0.5, 0.7]), np.array([1.5, 1.0])) for gain in gains
    )
    NullModel(scales, 40).save(bundle.folder / name)
    files = {**bundle.manifest.files, name: sha256(bundle.folder / name)}
    return save_changed(bundle, null_model=name, files=files)


def test_the_network_is_described_field_by_field(repository: Path, bundle: Bundle[UFlowManifest]) -> None:
    config = parsed(repository, "gravel_network")
    expected = schema.ModelConfig(name="gravel_network", platform="onnxruntime_onnx", max_batch_size=8)
    expected.input.add(name="image", data_type=schema.TYPE_UINT8, dims=[64, 64, 3])
    for i, side in enumerate((8, 4)):
        expected.output.add(name=f"energy_{i}", data_type=schema.TYPE_FP32, dims=[side, side])
    expected.dynamic_batching.preferred_batch_size.extend([4, 8])
    expected.dynamic_batching.max_queue_delay_microseconds = 1000
    expected.instance_group.add(count=1, kind=schema.ModelInstanceGroup.KIND_AUTO)
    graph = repository / "gravel_network" / "1" / "model.onnx"
    expected.parameters["graph_sha256"].string_value = sha256(graph)
    expected.parameters["checkpoint_sha256"].string_value = bundle.manifest.source.sha256
    assert config == expected


def test_the_judge_and_the_ensemble_are_described_field_by_field(repository: Path) -> None:
    judge, ensemble = parsed(repository, "gravel"), parsed(repository, "gravel_inspect")
    assert (judge.name, judge.backend, judge.platform, judge.max_batch_size) == ("gravel", "python", "", 8)
    assert signature(judge.input) == {"energy_0": ("TYPE_FP32", (8, 8)), "energy_1": ("TYPE_FP32", (4, 4))}
    assert signature(judge.output) == {
        "score": ("TYPE_FP32", (1,)),
        "anomalous": ("TYPE_BOOL", (1,)),
        "score_map": ("TYPE_FP32", (64, 64)),
        "mask": ("TYPE_BOOL", (64, 64)),
        "regions": ("TYPE_STRING", (1,)),
    }
    assert [(group.count, group.kind) for group in judge.instance_group] == [(1, schema.ModelInstanceGroup.KIND_CPU)]
    assert (ensemble.name, ensemble.platform, ensemble.max_batch_size) == ("gravel_inspect", "ensemble", 8)
    assert signature(ensemble.input) == {"image": ("TYPE_UINT8", (64, 64, 3))}
    assert signature(ensemble.output) == signature(judge.output)
    assert [step.model_version for step in ensemble.ensemble_scheduling.step] == [-1, -1]


def test_tensors_of_the_ensemble_fit_together(repository: Path) -> None:
    """Names, types and shapes on both ends of every connection; nothing is made twice, nothing is missing."""
    ensemble = parsed(repository, "gravel_inspect")
    pool = signature(ensemble.input)
    for step in ensemble.ensemble_scheduling.step:
        model = parsed(repository, step.model_name)
        takes, makes = signature(model.input), signature(model.output)
        assert takes == {name: pool[source] for name, source in step.input_map.items()}
        assert model.max_batch_size == ensemble.max_batch_size
        for name, target in step.output_map.items():
            assert target not in pool
            pool[target] = makes[name]
    assert signature(ensemble.output).items() <= pool.items()


def test_the_graph_has_the_tensors_that_triton_is_told_of(repository: Path) -> None:
    config = parsed(repository, "gravel_network")
    graph = onnx.load(repository / "gravel_network" / "1" / "model.onnx").graph
    types = {onnx.TensorProto.UINT8: "TYPE_UINT8", onnx.TensorProto.FLOAT: "TYPE_FP32"}
    for told, there in ((config.input, graph.input), (config.output, graph.output)):
        found = {}
        for value in there:
            batch, *dims = value.type.tensor_type.shape.dim
            assert batch.dim_param  # any number, as dynamic batching needs
            found[value.name] = (types[value.type.tensor_type.elem_type], tuple(dim.dim_value for dim in dims))
        assert signature(told) == found


@pytest.mark.parametrize("calibrated", [False, True], ids=["tree rule", "null model"])
def test_verdicts_are_the_inspectors(bundle, tmp_path, pictures, calibrated: bool) -> None:
    bundle = with_null_model(bundle) if calibrated else bundle
    frames = [np.ascontiguousarray(picture[..., ::-1]) for picture in pictures]
    inspector = Inspector.load(bundle.folder, threads=1)
    scores = sorted(inspector.inspect(frame).score for frame in frames)
    point = OperatingPoint((scores[1] + scores[2]) / 2, "manual")  # so that half of them are good
    bundle = save_changed(bundle, operating_point=point)
    write_repository(bundle, tmp_path / "models")
    found = run(tmp_path / "models", "gravel_inspect", {"image": pictures})
    inspector.operating_point = point
    assert sorted(found["anomalous"][:, 0]) == [False, False, True, True]
    for i, frame in enumerate(frames):
        inspection = inspector.examine(frame)
        verdict = inspection.verdict
        assert found["anomalous"][i, 0] == verdict.anomalous
        np.testing.assert_allclose(found["score"][i, 0], verdict.score, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(found["score_map"][i], inspection.score, rtol=1e-4, atol=1e-3)
        np.testing.assert_array_equal(found["mask"][i], verdict.mask)
        regions = json.loads(found["regions"][i, 0])
        assert len(regions) > 0 or not verdict.anomalous
        assert [{**one, "log_nfa": 0} for one in regions] == [{**asdict(one), "log_nfa": 0} for one in verdict.regions]
        np.testing.assert_allclose([r["log_nfa"] for r in regions], [r.log_nfa for r in verdict.regions], rtol=1e-4)


def test_a_request_that_cannot_be_judged_spoils_no_other(repository: Path) -> None:
    model = python_model(repository / "gravel" / "1")
    good = {"energy_0": np.full((2, 8, 8), 54, np.float32), "energy_1": np.full((2, 4, 4), 56, np.float32)}
    damaged = {**good, "energy_0": np.full((2, 8, 8), np.nan, np.float32)}
    requests = [{name: Tensor(name, values) for name, values in one.items()} for one in (good, damaged, good)]
    first, second, third = model.execute(requests)
    assert first.error is third.error is None
    assert second.output_tensors == []
    assert "finite" in second.error.message()
    assert all(
        np.array_equal(one.as_numpy(), other.as_numpy())
        for one, other in zip(first.output_tensors, third.output_tensors, strict=True)
    )


def test_a_null_model_of_another_bundle_is_refused(bundle, tmp_path) -> None:
    bundle = with_null_model(bundle)
    write_repository(bundle, tmp_path / "models")
    path = tmp_path / "models" / "gravel" / "1" / str(bundle.manifest.null_model)
    null_model = NullModel.load(path)
    replace(null_model, good_images=41).save(path)
    with pytest.raises(BadInput, match="differs from the null model of the manifest"):
        python_model(path.parent)
    path.unlink()
    with pytest.raises(BadInput, match="null_model-a.npz: not a null model"):
        python_model(path.parent)


def test_a_null_model_that_python_would_import_is_refused(bundle, tmp_path) -> None:
    bundle = with_null_model(bundle)
    files = dict(bundle.manifest.files)
    files["numpy.py"] = files.pop("null_model-a.npz")
    (bundle.folder / "null_model-a.npz").rename(bundle.folder / "numpy.py")
    bundle = save_changed(bundle, null_model="numpy.py", files=files)
    with pytest.raises(BadInput, match="its null model is called numpy.py, expected an .npz"):
        write_repository(bundle, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def a_plan(bundle: Bundle[UFlowManifest], name: str, **changes: Any) -> Bundle[UFlowManifest]:
    """List an engine that only a GPU could have built; its bytes stand for it."""
    plan = Plan(
        f"engines/{name}", "model.fp16.onnx", "0" * 64, "tensorrt", "10.3.0", "12.6", ("8.7",), BatchRange(1, 2, 6), ""
    )
    plan = replace(plan, **changes)
    path = bundle.folder / plan.file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(name.encode())
    files = {**bundle.manifest.files, plan.file: sha256(path)}
    return save_changed(bundle, plans=(*bundle.manifest.plans, plan), files=files)


def test_a_plan_is_served_with_the_batch_it_was_built_for(bundle, tmp_path) -> None:
    bundle = a_plan(a_plan(bundle, "sm87.plan"), "rtx.plan", library="tensorrt_rtx")
    write_repository(bundle, tmp_path / "models", TritonOptions(plan=ONLY_PLAN))
    config = parsed(tmp_path / "models", "gravel_network")
    assert (config.platform, config.max_batch_size) == ("tensorrt_plan", 6)
    assert list(config.dynamic_batching.preferred_batch_size) == [2, 6]
    assert [group.kind for group in config.instance_group] == [schema.ModelInstanceGroup.KIND_GPU]
    plan = tmp_path / "models" / "gravel_network" / "1" / "model.plan"
    assert plan.read_bytes() == b"sm87.plan"
    assert config.parameters["graph_sha256"].string_value == sha256(plan)
    assert parsed(tmp_path / "models", "gravel_inspect").max_batch_size == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (TritonOptions(plan=ONLY_PLAN), "2 TensorRT plans, expected one in the bundle; there: engines/a"),
        (TritonOptions(plan="c.plan"), "no TensorRT plan 'c.plan' in the bundle; there: engines/a.plan, eng"),
        (TritonOptions(plan="b.plan"), "engines/b.plan takes 2:2:4 pictures a run, .* with --batch 1:2:4"),
        (TritonOptions(precision="int8"), "has no int8 graph, only: fp32, fp16"),
    ],
    ids=lambda value: str(value) if isinstance(value, TritonOptions) else "",
)
def test_what_cannot_be_served(bundle, tmp_path, options, message) -> None:
    bundle = a_plan(a_plan(bundle, "a.plan"), "b.plan", batch=BatchRange(2, 2, 4))
    with pytest.raises(BadInput, match=message):
        write_repository(bundle, tmp_path / "models", options)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"plan": "a.plan", "batch": BatchRange()}, "a plan has its precision and batch already"),
        ({"plan": "", "precision": "fp16"}, "a plan has its precision and batch already"),
        ({"batch": BatchRange(2, 4, 8)}, "batch 2:4:8: Triton sends single pictures too"),
        ({"judges": 0}, "expected a judge at least"),
        ({"queue_delay_microseconds": -1}, "no negative delay"),
    ],
    ids=str,
)
def test_choices_that_contradict_each_other(choices, message) -> None:
    with pytest.raises(UsageError, match=message):
        TritonOptions(**choices)


def test_one_number_is_the_largest_batch(bundle, tmp_path) -> None:
    write_repository(bundle, tmp_path / "models", TritonOptions(batch=BatchRange.parse("6")))
    config = parsed(tmp_path / "models", "gravel_network")
    assert (config.max_batch_size, list(config.dynamic_batching.preferred_batch_size)) == (6, [6])


def test_a_graph_of_one_batch_cannot_be_batched(bundle, tmp_path) -> None:
    variants = tuple(replace(variant, batch=2) for variant in bundle.manifest.variants)
    with pytest.raises(BadInput, match="model.fp32.onnx is fixed to batch 2"):
        write_repository(save_changed(bundle, variants=variants), tmp_path / "models")


def test_weights_beside_the_graph_come_along(bundle, tmp_path, pictures) -> None:
    (variant, *_), data = bundle.manifest.variants, "model.fp32.onnx.data"
    path = bundle.folder / variant.file
    onnx.save(onnx.load(path), path, save_as_external_data=True, location=data)
    files = {**bundle.manifest.files, variant.file: sha256(path), data: sha256(bundle.folder / data)}
    bundle = save_changed(bundle, variants=(replace(variant, data=data),), files=files)
    write_repository(bundle, tmp_path / "models")
    assert len(run(tmp_path / "models", "gravel_inspect", {"image": pictures})["score"]) == 4


def test_names_are_safe(bundle, tmp_path) -> None:
    for name in ("a b.uflow", "..uflow", "größe.uflow", 'a".uflow', "-a.uflow"):
        renamed = Bundle(bundle.folder.rename(tmp_path / name), bundle.manifest)
        with pytest.raises(UsageError, match="rename the bundle's folder"):
            write_repository(renamed, tmp_path / "models")
        bundle = renamed


def test_text_is_quoted_as_the_schema_reads_it() -> None:
    awkward = 'a "quoted" \\ path\n\t{größe}'
    text = write_text({"name": awkward, "instance_group": [{"kind": Enum("KIND_CPU")}, {"count": 2}], "input": []})
    config = text_format.Parse(text, schema.ModelConfig())
    assert config.name == awkward
    assert [(group.kind, group.count) for group in config.instance_group] == [(2, 0), (0, 2)]


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_the_command(bundle, tmp_path, exit_code, capsys) -> None:
    models = tmp_path / "models"
    asked = ("--bundle", bundle.folder, "--triton", models)
    assert exit_code(main, *asked, "--precision", "fp16", "--batch", "1:2:16") == 0
    assert capsys.readouterr().out == (
        f"wrote {models}/, which serves gravel_inspect; next: tritonserver --model-repository {models}\n"
    )
    assert [name for name in names(models) if name.count("/") == 2] == [
        "gravel/1/manifest.json",
        "gravel/1/model.py",
        "gravel_inspect/1/.keep",
        "gravel_network/1/model.onnx",
    ]
    graph = models / "gravel_network" / "1" / "model.onnx"
    assert sha256(graph) == bundle.manifest.files["model.fp16.onnx"]
    assert list(parsed(models, "gravel_network").dynamic_batching.preferred_batch_size) == [2, 16]
    assert exit_code(main, *asked) == 3
    assert "models: exists already" in capsys.readouterr().err
    assert exit_code(main, *asked, "--overwrite") == 0
    assert sha256(graph) == bundle.manifest.files["model.fp32.onnx"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ckpt", "a.ckpt", "--triton", "models"], "--triton needs --bundle"),
        (["--bundle", "a.uflow", "--triton", "models", "--trt"], "not with --trt or --dry-run; build an engine first"),
        (["--bundle", "a.uflow", "--triton", "models", "--opset", "18"], "--opset: only with --ckpt or --unet"),
        (["--bundle", "a.uflow", "--trt", "--overwrite"], "--overwrite: only with --ckpt or --unet"),
        (["--bundle", "a.uflow", "--trt", "--triton-engine"], "--triton-engine needs --triton"),
        (["--bundle", "a.uflow", "--trt", "--triton-engine", ""], "expected a value, got an empty text"),
        (["--bundle", "a.uflow", "--triton", "models", "--precision", "fp16", "fp32"], "serves one graph"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_turns(exit_code, capsys, arguments, message) -> None:
    assert exit_code(main, *arguments) == 2
    assert message in capsys.readouterr().err


def test_nothing_else_is_replaced(bundle, tmp_path) -> None:
    precious = tmp_path / "precious"
    (precious / "gravel").mkdir(parents=True)
    (precious / "notes.txt").write_text("mine")
    write_repository(bundle, tmp_path / "models")
    (tmp_path / "models" / "another_model").mkdir()
    for folder in (precious, tmp_path / "models", precious / "notes.txt", bundle.folder):
        before = names(tmp_path)
        with pytest.raises(BadInput, match="is not a repository of one bundle, so it will not be replaced"):
            write_repository(bundle, folder, overwrite=True)
        assert names(tmp_path) == before


def test_a_full_disk_leaves_the_old_repository(bundle, repository, monkeypatch) -> None:
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    real = shutil.copyfile

    def full(source: Path, target: Path) -> None:
        if target.name == "model.py":
            raise OSError(28, "No space left on device", str(target))
        real(source, target)

    monkeypatch.setattr(triton.shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        write_repository(bundle, repository, TritonOptions(precision="fp16"), overwrite=True)
    assert {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()} == before
    assert [path.name for path in repository.parent.iterdir() if path.name.startswith(".")] == []


def test_the_server_needs_no_torch_and_no_onnx(repository: Path) -> None:
    """model.py in a Python of its own, where the export's libraries are absent."""
    code = f"""
import sys, types

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "timm", "FrEIA", "onnx", "onnxscript", "onnxruntime", "tensorrt"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
sys.modules["triton_python_backend_utils"] = types.ModuleType("triton_python_backend_utils")
sys.path.insert(0, {str(repository / "gravel" / "1")!r})
import model
judge = model.TritonPythonModel()
judge.initialize({{}})
print(any(name.startswith("uflow_edge.export") for name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "False\n"
    assert (repository / "gravel" / "1" / MANIFEST).is_file()

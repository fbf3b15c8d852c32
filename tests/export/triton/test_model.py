"""The models of a repository, run as its ensemble says, beside `Inspector`.

No server is needed: this file stands in for ``triton_python_backend_utils``, which only a server has, and onnxruntime
runs the graph as Triton's ONNX backend does.
"""

import importlib.util
import json
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

from triton_models import parsed, save_changed, signature, with_null_model
from uflow_edge.export.triton.repository import write_repository
from uflow_edge.runtime import Inspector
from uflow_edge.runtime.bundle.folder import MANIFEST
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.nfa.null_model import NullModel
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.storage.files import sha256

NUMPY = {"TYPE_UINT8": np.uint8, "TYPE_FP32": np.float32, "TYPE_BOOL": np.bool_, "TYPE_STRING": np.object_}


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
def pictures(texture_folder: Path) -> np.ndarray:
    """(4, 64, 64, 3) uint8 RGB: two good ones, one with a hole, one of noise."""
    files = [*sorted((texture_folder / "train" / "good").iterdir())[:2], texture_folder / "test" / "hole" / "00.png"]
    read = [cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)[16:80, 16:80] for file in files]
    return np.stack([*read, np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)])


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


def test_weights_beside_the_graph_come_along(bundle, tmp_path, pictures) -> None:
    (variant, *_), data = bundle.manifest.variants, "model.fp32.onnx.data"
    path = bundle.folder / variant.file
    onnx.save(onnx.load(path), path, save_as_external_data=True, location=data)
    files = {**bundle.manifest.files, variant.file: sha256(path), data: sha256(bundle.folder / data)}
    bundle = save_changed(bundle, variants=(replace(variant, data=data),), files=files)
    write_repository(bundle, tmp_path / "models")
    assert len(run(tmp_path / "models", "gravel_inspect", {"image": pictures})["score"]) == 4


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

"""The configurations, read with Triton's own schema."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from google.protobuf import text_format

from triton_models import parsed, save_changed, schema, signature
from uflow_edge.export.triton.config import Enum
from uflow_edge.export.triton.config import text_format as write_text
from uflow_edge.export.triton.repository import ONLY_PLAN, TritonOptions, write_repository
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.manifest import BatchRange, Plan
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.storage.files import sha256


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


def test_one_number_is_the_largest_batch(bundle, tmp_path) -> None:
    write_repository(bundle, tmp_path / "models", TritonOptions(batch=BatchRange.parse("6")))
    config = parsed(tmp_path / "models", "gravel_network")
    assert (config.max_batch_size, list(config.dynamic_batching.preferred_batch_size)) == (6, [6])


def test_text_is_quoted_as_the_schema_reads_it() -> None:
    awkward = 'a "quoted" \\ path\n\t{größe}'
    text = write_text({"name": awkward, "instance_group": [{"kind": Enum("KIND_CPU")}, {"count": 2}], "input": []})
    config = text_format.Parse(text, schema.ModelConfig())
    assert config.name == awkward
    assert [(group.kind, group.count) for group in config.instance_group] == [(2, 0), (0, 2)]

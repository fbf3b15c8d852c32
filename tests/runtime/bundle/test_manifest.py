"""Manifests come from anywhere: those of every version are read, and none that was damaged is believed or crashes."""

import contextlib
import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extras import extra
from uflow_edge.runtime.bundle.folder import parse_manifest
from uflow_edge.runtime.bundle.manifest import BatchRange, CheckpointSource, Manifest, Plan, Variant
from uflow_edge.runtime.bundle.schema import manifest_schema
from uflow_edge.runtime.bundle.uflow import LatentScale, UFlowManifest
from uflow_edge.runtime.bundle.unet import UNetManifest
from uflow_edge.runtime.drift import DriftRange
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.operating_point import LOG_NFA_0, OperatingPoint
from uflow_edge.runtime.storage.strict_json import to_json

GOLDEN = {file.stem: file.read_text() for file in (Path(__file__).parents[2] / "data" / "manifests").glob("*.json")}

SOURCE = CheckpointSource("bottle.ckpt", "a" * 64, "U-Flow's code")
PLAN = Plan(
    file="engines/sm87-trt10.3-fp16.plan",
    graph="model.fp32.onnx",
    graph_sha256="1" * 64,
    library="tensorrt",
    version="10.3.0",
    cuda="12.6",
    compute_capabilities=("8.7",),
    batch=BatchRange(1, 1, 4),
    options="precision fp16",
)
FILES = {"model.fp32.onnx": "1" * 64, "parity.json": "2" * 64, PLAN.file: "3" * 64}
NULL_MODEL = "null_model-0123456789ab.npz"
CALIBRATED = UFlowManifest(
    source=SOURCE,
    variants=(Variant("model.fp32.onnx", "fp32", 18, 2, 0.001, "model.fp32.onnx.data"),),
    files={**FILES, "model.fp32.onnx.data": "4" * 64, NULL_MODEL: "5" * 64, "report.html": "6" * 64},
    tools={"uflow-edge": "0.1.0", "torch": "2.8.0"},
    plans=(PLAN,),
    extractor="efficientnet_lite0",
    input_size=256,
    fit="squash",
    scales=(LatentScale(8, 32, 32, 54), LatentScale(16, 16, 16, 56)),
    exceedance_probability=0.9,
    rule="per_size",
    operating_point=OperatingPoint(1.52, "conformal", 0.05, 59, 0.95),
    drift=DriftRange((0.1, 0.2, -30.5), (0.01, 0.02, 4.0), 30),
    null_model=NULL_MODEL,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)


def test_manifests_of_every_schema_are_read() -> None:
    first, second = (parse_manifest(GOLDEN[f"schema{i}"], UFlowManifest) for i in (1, 2))
    assert first.variants == (Variant("model.fp32.onnx", "fp32", 18),)
    assert (first.source.origin, first.operating_point, first.rule) == ("", LOG_NFA_0, "one_sided")
    assert second.variants == (Variant("model.fp32.onnx", "fp32", 18, error_bound=0.002),)
    assert (second.plans, second.files) == ((PLAN,), FILES)
    assert parse_manifest(GOLDEN["schema3"], UFlowManifest) == CALIBRATED
    assert parse_manifest(GOLDEN["schema4"], UFlowManifest) == CALIBRATED
    assert parse_manifest(GOLDEN["schema5"], UFlowManifest) == replace(CALIBRATED, exceedance_probability=None)
    assert parse_manifest(GOLDEN["schema6"], UFlowManifest) == replace(
        CALIBRATED, exceedance_probability=None, window=5
    )
    unet = parse_manifest(GOLDEN["schema3_unet"], UNetManifest)
    assert (unet.image_size, unet.learned_variance, unet.schedule, unet.noisiest_step) == (64, True, "cosine", 249)


def test_the_json_schema_in_the_docs_is_current_and_holds() -> None:
    jsonschema = extra("jsonschema")
    schema = json.loads((Path(__file__).parents[3] / "docs" / "bundle.schema.json").read_text())
    assert schema == json.loads(to_json(manifest_schema())), (
        "python -m uflow_edge.runtime.bundle.schema > docs/bundle.schema.json"
    )
    validator = jsonschema.Draft202012Validator(schema)
    for text in GOLDEN.values():
        validator.validate(json.loads(parse_manifest(text, Manifest).to_json()))
        if (golden := json.loads(text))["schema"] >= 3:
            validator.validate(golden)
            golden["variants"][0]["precision"] = "fp99"
            assert not validator.is_valid(golden)


@pytest.mark.parametrize("name", GOLDEN)
def test_what_was_read_is_written_and_read_again_as_the_same(name: str) -> None:
    manifest = parse_manifest(GOLDEN[name], Manifest)
    assert parse_manifest(manifest.to_json(), Manifest) == manifest


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON value with every key or index of it."""
    for key, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, key
        yield from places(one)


NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([0, -1, True, 10**12, 10**30, 10**400, -(10**400), 1e38, 1e308, -9.8e307, 5e-324]),
)
TEXTS = st.one_of(st.text(max_size=8), st.sampled_from(["", "..", "\x1b[31m", "\ud800", "nan", "1e999", "a" * 5000]))
VALUES = st.recursive(
    st.one_of(st.none(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=4,
)


@settings(max_examples=400, deadline=None)
@given(data=st.data(), name=st.sampled_from(sorted(GOLDEN)), changes=st.integers(1, 3))
def test_a_changed_manifest_is_read_exactly_or_refused(data: st.DataObject, name: str, changes: int) -> None:
    values = copy.deepcopy(json.loads(GOLDEN[name]))
    for _ in range(changes):
        container, key = data.draw(st.sampled_from(list(places(values))))
        what = data.draw(st.sampled_from(["replace", "delete", "add"]))
        if what == "delete":
            del container[key]
        elif what == "add" and isinstance(container, dict):
            container[data.draw(TEXTS)] = data.draw(VALUES)
        else:
            container[key] = data.draw(VALUES)
    try:
        manifest = parse_manifest(json.dumps(values), Manifest)
    except BadInput as error:
        assert str(error).isprintable()
        assert len(str(error)) < 500
        return
    again = json.loads(manifest.to_json())
    for variant in values["variants"]:
        if "energy_bound" in variant and values["schema"] < 3:
            variant["error_bound"] = variant.pop("energy_bound")
    assert included(values, again), f"{values} was read as {again}"


def included(expected: Any, found: Any) -> bool:
    """Whether all that a file says came through; what it leaves out has a default."""
    if isinstance(expected, dict):
        return all(key == "schema" or (key in found and included(one, found[key])) for key, one in expected.items())
    if isinstance(expected, list):
        return len(expected) == len(found) and all(map(included, expected, found))
    return bool(expected == found)


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, len(GOLDEN["schema4"]) - 1), character=st.characters())
def test_a_changed_character_is_read_or_refused(position: int, character: str) -> None:
    text = GOLDEN["schema4"][:position] + character + GOLDEN["schema4"][position + 1 :]
    with contextlib.suppress(BadInput):
        parse_manifest(text, Manifest)

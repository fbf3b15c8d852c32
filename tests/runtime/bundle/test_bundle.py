"""A bundle is what was exported, or it is refused with the name of the file that is not."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from uflow_edge.runtime.bundle.edit import BundleChanged, save_operating_point
from uflow_edge.runtime.bundle.folder import MANIFEST, Bundle, find_bundle, parse_manifest
from uflow_edge.runtime.bundle.manifest import CheckpointSource, Manifest, Variant
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.bundle.unet import UNetManifest
from uflow_edge.runtime.errors import BadInput, UsageError
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.storage.files import replacing, replacing_folder


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "copy.uflow"))


def edit_manifest(bundle: Path, **changes: object) -> None:
    values = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).write_text(json.dumps({**values, **changes}))


def test_manifest_survives_json(exported: Path) -> None:
    manifest = Bundle.load(exported, UFlowManifest).manifest
    assert parse_manifest(manifest.to_json(), UFlowManifest) == manifest
    changed = replace(manifest, operating_point=OperatingPoint(1.5, "conformal", 0.05, 100))
    assert parse_manifest(changed.to_json(), UFlowManifest) == changed


@pytest.mark.parametrize("name", ["model.fp32.onnx", "parity.json"])
def test_a_changed_byte_is_noticed(bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(BadInput, match=f"{name}: differs from what was exported"):
        Bundle.load(bundle, UFlowManifest)


def test_a_missing_file_is_named(bundle: Path) -> None:
    (bundle / "model.fp32.onnx").unlink()
    with pytest.raises(BadInput, match=r"model\.fp32\.onnx: missing from the bundle"):
        Bundle.load(bundle, UFlowManifest)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"schema": 99}, "schema 99, made by a newer version.*update uflow-edge"),
        ({"schema": True}, "schema: expected a number"),
        ({"schema": 3.0}, "schema: expected a number"),
        ({"schema": 0}, "schema: expected a number"),
        ({"kind": "cat"}, "kind 'uflow' or 'unet'"),
        ({"kind": ["uflow"]}, "kind 'uflow' or 'unet'"),
        ({"input_size": "256"}, "input_size: expected int, got str"),
        ({"input_size": True}, "input_size: expected int, got bool"),
        ({"input_size": 10**6}, "input_size: expected int <= 8192"),
        ({"input_size": 10**400}, "input_size: expected int <= 8192"),
        ({"input_size": 1024}, "does not cover input_size 1024"),
        ({"scales": []}, "scales: expected 1 to 8, got 0"),
        ({"unknown": 1}, "unknown field 'unknown'"),
        ({"fit": "stretch"}, "fit: unknown value 'stretch'"),
        ({"variants": []}, "variants: expected at least one"),
        ({"files": []}, "files: expected object, got array"),
        ({"files": {"model.fp32.onnx": "0"}}, "expected a checksum"),
        ({"files": {"model.fp32.onnx": "0" * 64}}, "'model.fp16.onnx' has no checksum"),
        ({"files": dict.fromkeys(("../escape", "model.fp32.onnx", "model.fp16.onnx"), "0" * 64)}, "stay inside"),
        ({"extractor": "\x1b[31mred"}, "extractor: expected text without control characters"),
        ({"extractor": "\ud800"}, "extractor: expected text without control"),
        ({"tools": {"torch": 2}}, "expected str, got int"),
        ({"exceedance_probability": 0}, "exceedance_probability: expected float > 0"),
        ({"exceedance_probability": 1}, "exceedance_probability: expected float < 1"),
        ({"rule": "block"}, "rule: expected one of upstream, one_sided, per_size; 'block' is chosen for a run"),
        ({"mean": [0.5]}, "expected three numbers each"),
        ({"operating_point": {"threshold": 10**400, "origin": "manual"}}, r"operating_point\.threshold"),
        ({"operating_point": {"threshold": "1", "origin": "manual"}}, r"operating_point\.threshold: expected float"),
        ({"operating_point": {"threshold": 1e308, "origin": "manual"}}, "threshold 1e.308: expected a finite number"),
        ({"operating_point": {"threshold": 1, "origin": []}}, r"operating_point\.origin: expected str, got array"),
        ({"operating_point": {"threshold": 1, "origin": "conformal"}}, "conformal without a false-alarm rate"),
        ({"drift": {"mean": [0, 0], "deviation": [1, 1], "images": 10**400}}, r"drift\.images: expected int <="),
    ],
)
def test_a_manifest_that_makes_no_sense(exported: Path, changes: dict[str, object], complaint: str) -> None:
    values = json.loads((exported / MANIFEST).read_text())
    with pytest.raises(BadInput, match=complaint):
        parse_manifest(json.dumps({**values, **changes}), UFlowManifest)


def test_a_threshold_set_by_hand_is_saved(bundle: Path) -> None:
    loaded = Bundle.load(bundle, UFlowManifest)
    edit_manifest(bundle, tools={"meanwhile": "somebody built an engine"})
    point = OperatingPoint(3.5, "manual")
    saved = save_operating_point(loaded, point)
    assert Bundle.load(bundle, UFlowManifest) == saved
    assert saved.manifest == replace(loaded.manifest, operating_point=point, tools=saved.manifest.tools)
    assert saved.manifest.tools == {"meanwhile": "somebody built an engine"}


@pytest.mark.parametrize(
    "changes",
    [
        {"operating_point": {"threshold": 1.52, "origin": "conformal", "false_alarm_rate": 0.02, "good_images": 60}},
        {"source": {"name": "another.ckpt", "sha256": "0" * 64}},
        {"null_model": "parity.json"},
    ],
)
def test_a_threshold_is_not_saved_into_a_bundle_that_was_calibrated_again(
    bundle: Path, changes: dict[str, object]
) -> None:
    loaded = Bundle.load(bundle, UFlowManifest)
    edit_manifest(bundle, **changes)
    before = (bundle / MANIFEST).read_bytes()
    with pytest.raises(BundleChanged, match="since it was loaded, so .* saved; start again"):
        save_operating_point(loaded, OperatingPoint(-0.29, "manual"))
    assert (bundle / MANIFEST).read_bytes() == before


@pytest.fixture
def unet() -> UNetManifest:
    return UNetManifest(
        source=CheckpointSource("unet.pt", "0" * 64),
        variants=(Variant("model.fp32.onnx", "fp32", 18),),
        files={"model.fp32.onnx": "1" * 64},
        tools={},
        image_size=64,
        channels=3,
        learned_variance=True,
        schedule="cosine",
    )


def test_the_two_kinds_are_told_apart(unet: UNetManifest, exported: Path) -> None:
    text = unet.to_json()
    assert parse_manifest(text, UNetManifest) == parse_manifest(text, Manifest) == unet
    with pytest.raises(BadInput, match="holds a diffusion UNet; expected a detector, made with: uflow-export --ckpt"):
        parse_manifest(text, UFlowManifest)
    assert isinstance(Bundle.load(exported, Manifest).manifest, UFlowManifest)
    with pytest.raises(BadInput, match="holds a detector; expected a diffusion UNet, made with: uflow-export --unet"):
        Bundle.load(exported, UNetManifest)


def test_a_unet_says_what_goes_in_and_out(unet: UNetManifest) -> None:
    assert [tensor.zeros(2).shape for tensor in unet.signature.inputs] == [(2, 3, 64, 64), (2,)]
    assert unet.signature.output_names == ("noise", "variance")
    assert replace(unet, learned_variance=False).signature.output_names == ("noise",)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"schedule": "quadratic"}, "schedule: unknown value 'quadratic'"),
        ({"image_size": 0}, "image_size: expected int >= 1"),
        ({"depth": 3}, "unknown field 'depth'"),
        ({"learned_variance": 1}, "learned_variance: expected bool"),
        ({"noisiest_step": 1000}, "noisiest_step: expected less than 1000"),
        ({"variants": [{"file": "model.fp32.onnx", "precision": "x", "opset": 18}]}, r"variants\[0\]\.precision"),
        ({"variants": [{"file": "model.fp32.onnx", "precision": "fp32", "opset": 18, "batch": 1.5}]}, "batch"),
        ({"variants": [{"file": "model.fp32.onnx", "precision": "fp32", "opset": 18, "batch": 10**12}]}, "batch"),
        ({"source": {"name": "a", "sha256": "1" * 64, "origin": ["b"]}}, r"source\.origin: expected str, got array"),
        ({"source": {"name": "a", "sha256": "1" * 64, "more": 1}}, "unknown field 'more' in source"),
    ],
)
def test_a_unet_that_makes_no_sense(unet: UNetManifest, changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        parse_manifest(json.dumps({**json.loads(unet.to_json()), **changes}), UNetManifest)


def test_older_manifests_are_read(exported: Path) -> None:
    manifest = Bundle.load(exported, UFlowManifest).manifest
    values = json.loads(manifest.to_json()) | {"schema": 1}
    for variant in values["variants"]:
        variant["energy_bound"] = variant.pop("error_bound")
    assert parse_manifest(json.dumps(values), UFlowManifest) == manifest


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[" * 200_000, "nested too deeply"),
        ('{"a":' * 200_000, "nested too deeply"),
        ('{"schema": 4, "threshold": NaN}', "NaN is not a JSON number"),
        ('{"schema": 4, "threshold": -Infinity}', "-Infinity is not a JSON number"),
        ('{"schema": 4, "threshold": 1e999}', "'1e999' is too large"),
        ('{"schema": 4, "schema": 4}', "the key 'schema' appears twice"),
        ("[]", "expected one JSON object"),
        ("", "not JSON"),
        ("1" * 5000, "digits"),
    ],
)
def test_a_text_that_is_no_manifest(text: str, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        parse_manifest(text, Manifest)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_pipe_device_or_flood_in_place_of_the_manifest(bundle: Path) -> None:
    (bundle / MANIFEST).unlink()
    os.mkfifo(bundle / MANIFEST)
    with pytest.raises(BadInput, match="expected a regular file"):
        Bundle.load(bundle, UFlowManifest)
    (bundle / MANIFEST).unlink()
    (bundle / MANIFEST).symlink_to("/dev/zero")
    with pytest.raises(BadInput, match="expected a regular file"):
        Bundle.load(bundle, UFlowManifest)
    (bundle / MANIFEST).unlink()
    with (bundle / MANIFEST).open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(BadInput, match="1,000,000,000,000 bytes; expected at most"):
        Bundle.load(bundle, UFlowManifest)


def test_a_null_model_cannot_be_dropped_from_under_its_threshold(exported: Path) -> None:
    manifest = Bundle.load(exported, UFlowManifest).manifest
    files = {**manifest.files, "null_model-0123456789ab.npz": "0" * 64}
    with pytest.raises(BadInput, match="belongs to the threshold"):
        parse_manifest(replace(manifest, files=files).to_json(), UFlowManifest)
    whole = replace(manifest, files=files, null_model="null_model-0123456789ab.npz")
    assert parse_manifest(whole.to_json(), UFlowManifest) == whole


def test_bundles_of_the_other_kind_are_not_found(bundle: Path, tmp_path: Path, unet: UNetManifest) -> None:
    (tmp_path / "unet.uflow").mkdir()
    (tmp_path / "unet.uflow" / MANIFEST).write_text(unet.to_json())
    assert find_bundle(tmp_path) == bundle
    assert find_bundle(tmp_path, UNetManifest).name == "unet.uflow"


def test_not_a_bundle_at_all(tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(BadInput, match=r"no bundle here .* uflow-export --ckpt"):
        Bundle.load(tmp_path / "absent.uflow", UFlowManifest)
    with pytest.raises(BadInput, match=r"no bundle here .* uflow-export --unet"):
        Bundle.load(tmp_path / "absent.uflow", UNetManifest)
    (bundle / MANIFEST).write_text("{")
    with pytest.raises(BadInput, match="not JSON"):
        Bundle.load(bundle, UFlowManifest)


def test_the_one_bundle_in_a_folder_is_found(bundle: Path, tmp_path: Path) -> None:
    assert find_bundle(tmp_path) == bundle
    shutil.copytree(bundle, tmp_path / "other.uflow")
    with pytest.raises(UsageError, match=r"2 bundles in .*: copy\.uflow, other\.uflow; name one with --bundle"):
        find_bundle(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no \*\.uflow bundle .* --bundle"):
        find_bundle(tmp_path / "empty")


def test_writing_is_all_or_nothing(tmp_path: Path) -> None:
    file, folder = tmp_path / "file.txt", tmp_path / "folder"
    file.write_text("old")
    folder.mkdir()
    (folder / "old").touch()
    with pytest.raises(RuntimeError), replacing(file) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    with pytest.raises(RuntimeError), replacing_folder(folder) as temporary:
        (temporary / "half").touch()
        raise RuntimeError
    assert file.read_text() == "old"
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == [
        "file.txt",
        "folder",
        "folder/old",
    ]
    with replacing_folder(folder) as temporary:
        (temporary / "new").touch()
    assert [p.name for p in folder.iterdir()] == ["new"]


def test_the_old_folder_survives_a_failing_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old").touch()
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if target == folder and not self.name.endswith("-old"):
            raise OSError("disk gone")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="disk gone"), replacing_folder(folder) as temporary:
        (temporary / "new").touch()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["folder", "folder/old"]

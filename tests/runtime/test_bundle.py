"""A bundle is what was exported, or it is refused with the name of the file that is not."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from uflow_edge.runtime.bundle import MANIFEST, Bundle, BundleChanged, find_bundle, parse_manifest, save_operating_point
from uflow_edge.runtime.errors import BadInput, UsageError
from uflow_edge.runtime.files import replacing, replacing_folder
from uflow_edge.runtime.manifest import Manifest, Source, Variant
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.uflow_manifest import UFlowManifest
from uflow_edge.runtime.unet_manifest import UNetManifest


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
        ({"schema": 99}, "schema 99; this version reads schemas 1, 2, 3"),
        ({"kind": "cat"}, "kind 'uflow'"),
        ({"input_size": "256"}, "wrong type"),
        ({"scales": []}, "positive integers"),
        ({"unknown": 1}, "unknown"),
        ({"fit": "stretch"}, "fit 'stretch'"),
        ({"variants": []}, "checksum"),
        ({"files": {"model.fp32.onnx": "0"}}, "checksum"),
        ({"files": {"../escape": "0", "model.fp32.onnx": "0", "model.fp16.onnx": "0"}}, "stay inside the bundle"),
    ],
)
def test_a_manifest_that_makes_no_sense(bundle: Path, changes: dict[str, object], complaint: str) -> None:
    edit_manifest(bundle, **changes)
    with pytest.raises(BadInput, match=rf"manifest\.json: .*{complaint}"):
        Bundle.load(bundle, UFlowManifest)


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
    with pytest.raises(BundleChanged, match="calibration has changed since it was loaded"):
        save_operating_point(loaded, OperatingPoint(-0.29, "manual"))
    assert (bundle / MANIFEST).read_bytes() == before


@pytest.fixture
def unet() -> UNetManifest:
    return UNetManifest(
        source=Source("unet.pt", "0" * 64),
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
    with pytest.raises(BadInput, match="expected a manifest of kind 'uflow', got 'unet'"):
        parse_manifest(text, UFlowManifest)
    assert isinstance(Bundle.load(exported, Manifest).manifest, UFlowManifest)
    with pytest.raises(BadInput, match="expected a manifest of kind 'unet', got 'uflow'"):
        Bundle.load(exported, UNetManifest)


def test_a_unet_says_what_goes_in_and_out(unet: UNetManifest) -> None:
    assert [tensor.zeros(2).shape for tensor in unet.signature.inputs] == [(2, 3, 64, 64), (2,)]
    assert unet.signature.output_names == ("noise", "variance")
    assert replace(unet, learned_variance=False).signature.output_names == ("noise",)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [({"schedule": "quadratic"}, "schedule 'quadratic'"), ({"image_size": 0}, "positive"), ({"depth": 3}, "depth")],
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


def test_bundles_of_the_other_kind_are_not_found(bundle: Path, tmp_path: Path, unet: UNetManifest) -> None:
    (tmp_path / "unet.uflow").mkdir()
    (tmp_path / "unet.uflow" / MANIFEST).write_text(unet.to_json())
    assert find_bundle(tmp_path) == bundle
    assert find_bundle(tmp_path, UNetManifest).name == "unet.uflow"


def test_not_a_bundle_at_all(tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(BadInput, match=r"no bundle here .* uflow-export"):
        Bundle.load(tmp_path / "absent.uflow", UFlowManifest)
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

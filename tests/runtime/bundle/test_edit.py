"""An edit of a bundle, stopped at every step, leaves one that loads; edits at the same time lose nothing."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from uflow_edge.runtime.bundle.edit import BundleChanged, editing
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.manifest import BatchRange, Plan
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.storage.files import lock

STEPS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "shutil.rmtree", "fcntl.flock")
OLD, NEW = (OperatingPoint(threshold, "manual") for threshold in (1.0, 2.0))
_watcher: list[Callable[[], None]] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _watcher and event in STEPS:
        watcher = _watcher.pop()  # what it does itself is not watched
        try:
            watcher()
        finally:
            _watcher.append(watcher)


sys.addaudithook(_watch)


@pytest.fixture
def watched() -> Iterator[list[Callable[[], None]]]:
    """Holds what is called before each operation on files."""
    yield _watcher
    _watcher.clear()


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Bundle[UFlowManifest]:
    """With a null model, a report and an engine."""
    folder = Path(shutil.copytree(exported, tmp_path / "copy.uflow"))
    bundle = Bundle.load(folder, UFlowManifest)
    with editing(bundle) as edit:
        edit.add("null_model-1.npz", b"old")
        edit.add("report.html", b"old")
        edit.add("engines/a.plan", b"old")
        graph = bundle.manifest.variants[1]
        plan = Plan(
            "engines/a.plan",
            graph.file,
            bundle.manifest.graph_sha256(graph),
            "tensorrt",
            "10.3",
            "12.6",
            ("8.7",),
            BatchRange(),
            "",
        )
        edit.manifest = replace(edit.manifest, null_model="null_model-1.npz", operating_point=OLD, plans=(plan,))
    return edit.bundle


def calibrate(bundle: Bundle[UFlowManifest]) -> Bundle[UFlowManifest]:
    """Everything that an edit can do: files added, replaced, moved and removed, a graph and its engine replaced."""
    finished = bundle.folder.parent / "finished.npz"
    finished.write_bytes(b"new")
    with editing(bundle) as edit:
        edit.drop("null_model-1.npz", "left-by-a-killed-run")
        edit.add("null_model-2.npz", finished)
        edit.add("report.html", b"new")
        edit.add("engines/b.plan", b"new")
        fp32, fp16 = (bundle.folder / variant.file for variant in bundle.manifest.variants)
        edit.add(fp16.name, fp32.read_bytes())
        plan = replace(edit.manifest.plans[0], file="engines/b.plan")
        edit.drop("engines/a.plan")
        edit.manifest = replace(edit.manifest, null_model="null_model-2.npz", operating_point=NEW, plans=(plan,))
    return edit.bundle


def decision(bundle: Bundle[UFlowManifest]) -> tuple[OperatingPoint, bytes]:
    assert bundle.manifest.null_model is not None
    return bundle.manifest.operating_point, (bundle.folder / bundle.manifest.null_model).read_bytes()


def test_a_bundle_loads_whenever_an_edit_is_killed(
    bundle: Bundle[UFlowManifest], tmp_path: Path, watched: list[Callable[[], None]]
) -> None:
    """What lies on the disk before each operation is what a kill there leaves."""
    moments: list[Path] = []

    def keep_moment() -> None:
        moments.append(tmp_path / f"moment {len(moments)}")
        shutil.copytree(bundle.folder, moments[-1])

    watched.append(keep_moment)
    finished = calibrate(bundle)
    watched.clear()
    found = [Bundle.load(moment, UFlowManifest) for moment in moments]
    decisions = [decision(one) for one in found]
    change = decisions.index((NEW, b"new"))
    assert decisions == [(OLD, b"old")] * change + [(NEW, b"new")] * (len(found) - change)
    assert 10 < change < len(found) - 1
    between = {file for one in found for file in ("report.html", "model.fp16.onnx") if file not in one.manifest.files}
    assert between == {"report.html", "model.fp16.onnx"}  # both are replaced while no manifest lists them
    assert Bundle.load(bundle.folder, UFlowManifest) == finished
    assert decision(finished) == (NEW, b"new")
    there = {path.relative_to(bundle.folder).as_posix() for path in bundle.folder.rglob("*") if path.is_file()}
    assert there == {*finished.manifest.files, "manifest.json"}


def test_a_bundle_loads_wherever_an_edit_fails(
    bundle: Bundle[UFlowManifest], tmp_path: Path, watched: list[Callable[[], None]]
) -> None:
    step, failed = 0, True
    while failed:
        folder = Path(shutil.copytree(bundle.folder, tmp_path / f"{step}.uflow"))
        left = [step]

        def fail(left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == -1:
                raise OSError(28, "No space left on device")

        watched.append(fail)
        try:
            calibrate(Bundle(folder, bundle.manifest))
        except (OSError, BadInput):
            pass
        finally:
            watched.clear()
        failed = left[0] < 0
        assert decision(Bundle.load(folder, UFlowManifest)) in ((OLD, b"old"), (NEW, b"new"))
        step += 1
    assert step > 20


def test_an_exception_changes_nothing(bundle: Bundle[UFlowManifest]) -> None:
    before = {path: path.stat().st_mtime_ns for path in bundle.folder.rglob("*") if path.is_file()}
    with pytest.raises(KeyboardInterrupt), editing(bundle) as edit:
        edit.add("report.html", b"new")
        edit.drop("parity.json")
        raise KeyboardInterrupt
    assert {path: path.stat().st_mtime_ns for path in bundle.folder.rglob("*") if path.is_file()} == before


def test_a_bundle_that_could_not_be_loaded_is_not_written(bundle: Bundle[UFlowManifest]) -> None:
    with pytest.raises(ValueError, match=r"'model\.fp32\.onnx' has no checksum"), editing(bundle) as edit:
        edit.drop("model.fp32.onnx")
    assert Bundle.load(bundle.folder, UFlowManifest) == bundle


def test_edits_at_the_same_time_wait_for_each_other(bundle: Bundle[UFlowManifest]) -> None:
    def note(i: int) -> None:
        with editing(bundle) as edit:
            edit.manifest = replace(edit.manifest, tools={**edit.manifest.tools, f"tool {i}": "1"})
            edit.add(f"note-{i}.txt", b"")
            descriptor = os.open(bundle.folder, os.O_RDONLY)
            assert not lock(descriptor)
            os.close(descriptor)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(note, range(8)))
    manifest = Bundle.load(bundle.folder, UFlowManifest).manifest
    assert {f"tool {i}" for i in range(8)} <= manifest.tools.keys()
    assert {f"note-{i}.txt" for i in range(8)} <= manifest.files.keys()


def test_a_bundle_of_another_checkpoint_is_not_edited(bundle: Bundle[UFlowManifest]) -> None:
    with editing(bundle) as edit:
        edit.manifest = replace(edit.manifest, source=replace(edit.manifest.source, sha256="0" * 64))
    with pytest.raises(BundleChanged, match="exported into it since it was loaded"), editing(bundle):
        pass

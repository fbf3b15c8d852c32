"""Verdicts on an archive: those of a local run, bit for bit, once each, whoever is killed meanwhile."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from extras import extra
from uflow_edge.runtime.archive.cluster import ClusterOptions
from uflow_edge.runtime.archive.inference import Inference, InferenceWork
from uflow_edge.runtime.archive.recipe import InspectorRecipe
from uflow_edge.runtime.archive.records import schema
from uflow_edge.runtime.archive.run import Run, execute
from uflow_edge.runtime.archive.run_folder import RunFolder
from uflow_edge.runtime.engines import Engine, EngineFailed, Outputs
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images.files import find_images, read_image
from uflow_edge.runtime.infer.command import main
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.views import ViewOptions
from waiting import DEADLINE

pyarrow_dataset, ray = extra("pyarrow.dataset"), extra("ray")

Hold = Callable[[Path], Any]
Recipe = Callable[..., InspectorRecipe]
Facts = dict[str, Any]
OF_THE_MOMENT = {"timestamps", "milliseconds"}


def rows_in(folder: Path) -> list[Facts]:
    """All rows, in the order of the images, as people read them."""
    table = pyarrow_dataset.dataset(folder, partitioning="hive").to_table()
    return sorted(table.to_pylist(), key=lambda row: row["frame"])


def facts(rows: list[Facts], *more: str) -> list[Facts]:
    left_out = {*OF_THE_MOMENT, *more}
    return [{name: value for name, value in row.items() if name not in left_out} for row in rows]


def expected_rows(recipe: InspectorRecipe, files: list[Path]) -> list[Facts]:
    """What a plain loop over the files in this process says."""
    inspector, rows = recipe.open(), []
    for i, path in enumerate(files):
        try:
            verdict = inspector.inspect(read_image(path), frame=i, source=str(path)).as_json()
        except BadInput as error:
            rows.append({"frame": i, "source": str(path), "outcome": "unreadable", "error": str(error)})
        else:
            outcome = "anomalous" if verdict["anomalous"] else "good"
            rows.append({**verdict, "outcome": outcome, "error": None})
    return rows


def assert_equal_rows(found: list[Facts], expected: list[Facts]) -> None:
    assert [row["frame"] for row in found] == list(range(len(expected)))
    for one, other in zip(found, expected, strict=True):
        known = {name: value for name, value in other.items() if name not in {*OF_THE_MOMENT, "drift"}}
        assert {name: one[name] for name in known} == known
        if other["outcome"] == "unreadable":
            rest = set(one) - set(known) - {"bundle_sha256", "engine"}
            assert all(one[name] is None for name in rest)


def run_of(folder: Path, recipe: InspectorRecipe, files: list[Path], shard_size: int = 4) -> Run:
    items = [{"path": str(path)} for path in files]
    return Run(folder, {"job": "inference", **recipe.facts()}, items, Inference(recipe), shard_size)


def written_at(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob("outcome=*/*.parquet")}


def test_a_worker_killed_in_the_middle_loses_and_doubles_nothing(
    cluster: ClusterOptions, own_archive: Path, recipe: Recipe, hold: Hold, tmp_path: Path
) -> None:
    files, chosen = list(find_images([own_archive])), recipe(threshold=0.5)
    expected = expected_rows(chosen, files)
    held, results = hold(files[10]), []
    run = run_of(tmp_path / "found", chosen, files)
    thread = threading.Thread(target=lambda: results.append(execute(run, cluster)))
    thread.start()
    killed = held.reader()
    held.release()
    os.kill(killed, signal.SIGKILL)
    thread.join(DEADLINE)
    (done, tally) = results[0]
    assert_equal_rows(rows_in(done.folder), expected)
    assert (tally.captured, tally.inspected, tally.unreadable) == (20, 18, 2)
    workers = {summary.worker.partition("/")[2] for summary in done.summaries()}
    assert done.summary(2).worker.partition("/")[2] != str(killed)
    assert len(workers) >= 2
    assert not list(done.folder.rglob(".*"))


def test_an_interrupted_command_goes_on_where_it_was(
    cluster: ClusterOptions, own_archive: Path, exported: Path, recipe: Recipe, hold: Hold, tmp_path: Path
) -> None:
    files = list(find_images([own_archive]))
    expected = expected_rows(recipe(), files)
    held, folder = hold(files[13]), tmp_path / "found"
    address = ray.get_runtime_context().gcs_address
    options = ["--ray", address, "--ray-workers", 1, "--parquet", folder]
    arguments = [str(argument) for argument in ("--bundle", exported, "--images", *files, *options)]
    code = "from uflow_edge.runtime.infer.command import main; main()"
    with subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True) as first:
        held.reader()
        first.send_signal(signal.SIGINT)
        _, said = first.communicate(timeout=DEADLINE)
    assert first.returncode == 130, said
    assert said.endswith("interrupted\n")
    held.release()
    before = written_at(folder)
    assert before
    exit_code, _, said = run_main(*arguments)
    assert exit_code == 3, said
    assert "complete already" in said
    after = written_at(folder)
    assert {path: after[path] for path in before} == before
    assert_equal_rows(rows_in(folder), expected)


@dataclass(frozen=True)
class Once:
    """A run of the command, and what it said."""

    arguments: list[object]
    folder: Path
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def once(cluster: ClusterOptions, archive: Path, exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Once:
    folder = tmp_path_factory.mktemp("once") / "found"
    arguments = ["--bundle", exported, "--images", archive / "tuesday", archive / "monday", "--threshold", 0.5]
    return Once(arguments, folder, *run_main(*arguments, "--ray", "auto", "--parquet", folder))


def run_main(*arguments: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as exit_info:
        main([str(argument) for argument in arguments])
    return int(exit_info.value.code or 0), out.getvalue(), err.getvalue()


def test_the_command_says_what_the_local_one_says(once: Once, tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    assert run_main(*once.arguments, "--jsonl", lines)[0] == 3
    local = [json.loads(line) for line in lines.read_text().splitlines()]
    assert {line["anomalous"] for line in local} == {True, False}
    found = rows_in(once.folder)
    readable = [row for row in found if row["error"] is None]
    of_one_kind = ("drift", "outcome", "error", "bundle_sha256", "engine", "name", "bundle")
    assert facts(readable, *of_one_kind) == facts(local, *of_one_kind)
    assert [row["frame"] for row in found] == list(range(20))


def test_failed_images_are_listed(once: Once) -> None:
    assert once.code == 3
    anomalous = sum(row["outcome"] == "anomalous" for row in rows_in(once.folder))
    assert f"18 inspected, {anomalous} anomalous, 2 unreadable: {once.folder}" in once.out
    assert once.err.count("unreadable: ") == 2
    broken = pyarrow_dataset.dataset(once.folder / "outcome=unreadable").to_table().to_pylist()
    assert {Path(row["source"]).name for row in broken} == {"005.png", "019.png"}
    assert all("cannot be read as an image" in row["error"] for row in broken)


def test_a_repeated_command_does_nothing_again_and_counts_the_same(once: Once) -> None:
    before = written_at(once.folder)
    code, out, _ = run_main(*once.arguments, "--ray", "127.0.0.1:1", "--parquet", once.folder)
    assert (code, out) == (once.code, once.out)
    assert written_at(once.folder) == before


def test_a_shard_is_done_again_over_what_is_left_of_it(once: Once, tmp_path: Path) -> None:
    folder = shutil.copytree(once.folder, tmp_path / "found")
    whole, before = rows_in(folder), written_at(folder)
    (folder / "_shards" / "000001.json").unlink()
    partition = next(path.parent for path in before if path.name == "part-000001.parquet")
    (partition / "part-000001.parquet").write_bytes(b"half")
    other = next(path for path in folder.glob("outcome=*") if path != partition)
    shutil.copy(next(other.glob("*.parquet")), other / "part-000001.parquet")  # decided otherwise on another machine
    leftover = partition / ".uflow-abc.partial.parquet"
    leftover.write_bytes(b"half")
    code, out, err = run_main(*once.arguments, "--ray", "auto", "--parquet", folder)
    assert (code, out.replace(str(folder), str(once.folder))) == (once.code, once.out)
    assert "20 shards, 19 complete already" in err
    assert facts(rows_in(folder)) == facts(whole)
    assert not leftover.exists()
    changed = {path for path, when in written_at(folder).items() if before[path] != when}
    assert changed == {partition / "part-000001.parquet"}


def test_an_image_that_was_mended_is_read_when_asked_to(
    cluster: ClusterOptions, own_archive: Path, exported: Path, tmp_path: Path
) -> None:
    images = own_archive / "tuesday"
    arguments = ["--bundle", exported, "--images", images, "--ray", "auto", "--parquet", tmp_path / "found"]
    assert run_main(*arguments)[0] == 3
    before = written_at(tmp_path / "found")
    shutil.copy(images / "018.png", images / "019.png")
    assert run_main(*arguments)[0] == 3
    assert run_main(*arguments, "--ray-retry")[0] == 0
    assert [row["error"] for row in rows_in(tmp_path / "found")] == [None] * 8
    after = written_at(tmp_path / "found")
    assert len(before) - len(before.keys() & after.keys()) == 1
    assert all(after[path] == before[path] for path in before.keys() & after.keys())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--threshold", 0.6], "another operating point"),
        (["--tile", 48], "another views"),
        (["--max-frames", 19], "another images"),
        (["--images", "monday", "tuesday"], "another list of images"),
    ],
)
def test_a_folder_of_another_run_is_refused(
    change: list[object], message: str, once: Once, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(archive)
    before = written_at(once.folder)
    code, _, err = run_main(*once.arguments, "--ray", "auto", "--parquet", once.folder, *change)
    assert code == 2
    assert f"{once.folder}: holds a run with {message}" in err
    assert written_at(once.folder) == before


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--images", "monday", "--ray", "auto"], 2, "--ray needs --parquet"),
        (["--images", "monday", "--parquet", "found"], 2, "--parquet needs --ray"),
        (["--images", "monday", "--ray-workers", 2], 2, "--ray-workers needs --ray"),
        (["--camera", "0", "--ray", "auto", "--parquet", "found"], 2, "--ray works with --images only"),
        (
            ["--images", "monday", "--ray", "auto", "--parquet", "found", "--jsonl", "-"],
            2,
            "--jsonl does not work with --ray",
        ),
        (
            ["--images", "monday", "--ray", "auto", "--parquet", "found", "--save-dir", "x"],
            2,
            "--save-dir does not work",
        ),
        (
            ["--images", "monday", "--ray", "auto", "--parquet", "found", "--trigger", "every:9"],
            2,
            "--trigger does not",
        ),
        (["--images", "monday", "--ray", "ray://head:10001", "--parquet", "found"], 2, "ray job submit"),
        (["--images", "monday", "--ray", "auto", "--parquet", "tuesday"], 2, "tuesday: is not empty"),
        (["--images", "absent", "--ray", "auto", "--parquet", "found"], 3, "absent: no such file or folder"),
    ],
)
def test_requests_that_cannot_be_meant(
    options: list[object],
    code: int,
    message: str,
    archive: Path,
    exported: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(archive)
    found, _, err = run_main("--bundle", exported, *options)
    assert (found, message in err) == (code, True), err


def test_what_a_worker_cannot_do_ends_the_run_with_its_message(
    cluster: ClusterOptions, archive: Path, exported: Path, tmp_path: Path
) -> None:
    arguments = ["--bundle", exported, "--images", archive, "--ray", "auto", "--parquet", tmp_path / "found"]
    code, _, err = run_main(*arguments, "--precision", "int8")
    assert code == 2
    assert "error: worker " in err
    assert "the bundle has no int8 graph" in err
    assert "Traceback" not in err


def test_fail_on_anomaly(cluster: ClusterOptions, archive: Path, exported: Path, tmp_path: Path) -> None:
    arguments = ["--bundle", exported, "--images", archive / "monday", "--max-frames", 2, "--threshold", -1e9]
    assert run_main(*arguments, "--ray", "auto", "--parquet", tmp_path / "found", "--fail-on-anomaly")[0] == 1


def test_without_ray_it_is_said_what_to_install(
    archive: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    arguments = ["--bundle", exported, "--images", archive, "--ray", "local", "--parquet", tmp_path / "found"]
    code, _, err = run_main(*arguments)
    assert code == 4
    assert "pip install '.[ray]'" in err


def test_regions_of_interest_beyond_an_image_are_listed(archive: Path, recipe: Recipe, tmp_path: Path) -> None:
    items = [{"path": str(path)} for path in sorted((archive / "monday").iterdir())[:3]]
    run = RunFolder.create(tmp_path, {}, items, 3)
    options = ViewOptions(regions=((0, 0, 500, 50),))
    summary = Inference(recipe(views=options)).open(run)(0, run.items(0))
    assert (summary.images, len(summary.unreadable)) == (0, 3)
    assert all("region of interest" in row["error"] for row in rows_in(tmp_path))


class Failing:
    """An engine that gives up on the frames with these numbers."""

    name, precision = "failing", None

    def __init__(self, engine: Engine, fails_on: range) -> None:
        self._engine, self._fails_on, self._runs = engine, fails_on, 0

    def run(self, *inputs: Any) -> Outputs:
        self._runs += 1
        if self._runs - 1 in self._fails_on:
            raise EngineFailed("the device was lost")
        return self._engine.run(*inputs)

    def close(self) -> None:
        self._engine.close()


def test_an_engine_that_fails_on_one_image_costs_that_image(archive: Path, recipe: Recipe, tmp_path: Path) -> None:
    found = sorted((archive / "monday").glob("0*.png"))
    paths = [path for path in found if path.stat().st_size > 5000][:2] * 8
    run = RunFolder.create(tmp_path, {}, [{"path": str(path)} for path in paths], len(paths))
    inspector = recipe().open()
    work = InferenceWork(run, Inspector(inspector.manifest, Failing(inspector.engine, range(1, 2))), "")
    summary = work(0, run.items(0))
    assert (summary.images, len(summary.unreadable)) == (len(paths) - 1, 1)
    assert [row["frame"] for row in rows_in(tmp_path) if row["error"]] == [1]
    assert summary.unreadable[0].endswith("not judged: the device was lost")
    with pytest.raises(EngineFailed):  # on every image: taken for dead
        InferenceWork(run, Inspector(inspector.manifest, Failing(inspector.engine, range(99))), "")(0, run.items(0))


def test_columns_are_the_fields_of_a_verdict(recipe: Recipe, archive: Path) -> None:
    verdict = recipe().open().inspect(read_image(archive / "monday" / "000.png")).as_json()
    assert set(schema().names) == {*verdict, "error", "bundle_sha256", "engine"} - {"drift"}
    assert str(schema().field("score").type) == "double"
    assert {"x", "area", "log_nfa"} <= {field.name for field in schema().field("regions").type.value_type}
    assert not any("null" in str(column.type) for column in schema())

"""Metrics from a cluster: those of a local run, bit for bit, however the images were parted."""

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from uflow_edge.runtime.archive.cluster import ClusterOptions
from uflow_edge.runtime.archive.recipe import InspectorRecipe
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.training.evaluation.accumulators import Accumulators
from uflow_edge.training.evaluation.archive import evaluate_archive
from uflow_edge.training.evaluation.command import main
from uflow_edge.training.evaluation.evaluate import conclude, evaluate
from uflow_edge.training.evaluation.ground_truth import labelled_images

Recipe = Callable[..., InspectorRecipe]
Hold = Callable[[Path], Any]
THRESHOLD = 40.0


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 good pictures, one of them twice so that scores tie, a file that is none, and 6 with a hole and its mask."""
    from skimage import data

    folder, gravel = tmp_path_factory.mktemp("labelled") / "gravel", data.gravel()
    for kind in ("test/good", "test/hole", "ground_truth/hole"):
        (folder / kind).mkdir(parents=True)
    for i, (y, x) in enumerate(np.random.default_rng(1).integers(0, 416, (10, 2))):
        piece, mask = gravel[y : y + 96, x : x + 96].copy(), np.zeros((96, 96), np.uint8)
        if i < 4:
            Image.fromarray(piece).save(folder / "test" / "good" / f"{i:03d}.png")
            continue
        mask[20 : 30 + 5 * i, 30:65] = 255
        piece[mask > 0] = 0
        Image.fromarray(piece).save(folder / "test" / "hole" / f"{i:03d}.png")
        Image.fromarray(mask).save(folder / "ground_truth" / "hole" / f"{i:03d}_mask.png")
    shutil.copy(folder / "test" / "good" / "000.png", folder / "test" / "good" / "004.png")
    (folder / "test" / "good" / "002b.png").write_bytes(b"not a picture")
    return folder


@pytest.fixture
def own_labelled(labelled: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(labelled, tmp_path / "gravel")


def without_time(evaluation: Any) -> dict[str, Any]:
    return {name: value for name, value in evaluation.as_json().items() if name != "seconds"}


@pytest.fixture(scope="session")
def parts(labelled: Path, exported: Path) -> list[Accumulators]:
    """Each image, measured by itself."""
    from uflow_edge.runtime.inspector import Inspector

    inspector, found = Inspector.load(exported, threads=1), []
    for image in labelled_images(labelled):
        found.append(Accumulators(inspector.operating_point.threshold))
        found[-1].inspect([image], inspector, masks=True)
    return found


@pytest.mark.long
@given(st.lists(st.booleans(), min_size=11, max_size=11))
@settings(deadline=None, max_examples=10)
def test_parts_merged_and_read_back_are_the_whole(
    parts: list[Accumulators], exported: Path, tmp_path_factory: pytest.TempPathFactory, cuts: list[bool]
) -> None:
    file = tmp_path_factory.getbasetemp() / "part.npz"

    def merged(chosen: list[Accumulators]) -> Accumulators:
        total = Accumulators(chosen[0].threshold)
        for part in chosen:
            total.merge(part)
        return total

    shards: list[list[Accumulators]] = [[]]
    for part, cut in zip(parts, [False, *cuts], strict=True):
        shards = [*shards, [part]] if cut and shards[-1] else [*shards[:-1], [*shards[-1], part]]
    read_back = []
    for shard in shards:
        merged(shard).save(file)
        read_back.append(Accumulators.load(file, shard[0].threshold))
    manifest = Bundle.load(exported, UFlowManifest).manifest
    assert conclude("gravel", merged(read_back), manifest, "", 0.0) == conclude(
        "gravel", merged(parts), manifest, "", 0.0
    )


def test_a_worker_killed_in_the_middle_changes_no_bit(
    cluster: ClusterOptions, own_labelled: Path, recipe: Recipe, hold: Hold, tmp_path: Path
) -> None:
    chosen, images, results = recipe(threshold=THRESHOLD), labelled_images(own_labelled), []
    expected = evaluate("gravel", images, chosen.open(), metric_size=64)
    held = hold(own_labelled / "test" / "hole" / "005.png")

    def work() -> None:
        results.append(evaluate_archive("gravel", images, chosen, tmp_path / "state", cluster, 3, metric_size=64))

    thread = threading.Thread(target=work)
    thread.start()
    killed = held.reader()
    held.release()
    os.kill(killed, signal.SIGKILL)
    thread.join(60)
    (found,) = results
    assert without_time(found) == without_time(expected)
    assert found.maps == expected.maps
    assert (found.missed, found.false_alarms) == (expected.missed, expected.false_alarms)


def test_the_command_says_what_the_local_one_says_and_goes_on(
    cluster: ClusterOptions, labelled: Path, exported: Path, tmp_path: Path, exit_code: Callable[..., int], capsys
) -> None:
    arguments = ["--bundle", exported, "--data", labelled, "--threads", 1]
    files = [tmp_path / f"{name}.json" for name in ("local", "ray", "again")]
    pages = [tmp_path / f"{name}.html" for name in ("local", "ray")]
    state = tmp_path / "state"
    assert exit_code(main, *arguments, "--json", files[0], "--report", pages[0]) == 3
    capsys.readouterr()
    on_ray = [*arguments, "--ray", "auto", "--ray-state", state]
    assert exit_code(main, *on_ray, "--json", files[1], "--report", pages[1]) == 3
    assert "002b.png: cannot be read as an image" in capsys.readouterr().out
    kept = {path: path.stat().st_mtime_ns for path in (state / "measured").iterdir()}
    (state / "_shards" / "000003.json").unlink()
    assert exit_code(main, *on_ray, "--json", files[2]) == 3
    assert "complete already" in capsys.readouterr().out
    changed = {path.name for path in kept if path.stat().st_mtime_ns != kept[path]}
    assert changed == {"000003.npz"}
    local, ray, again = (json.loads(file.read_text()) for file in files)
    for found in (local, ray, again):
        del found["categories"][0]["seconds"]
    assert local == ray == again
    assert pages[1].read_text().count("data:image/jpeg") == pages[0].read_text().count("data:image/jpeg") > 0


def test_every_category_has_a_folder_of_its_own(
    cluster: ClusterOptions, labelled: Path, exported: Path, tmp_path: Path, exit_code: Callable[..., int]
) -> None:
    for name in ("fine", "coarse"):
        shutil.copytree(labelled, tmp_path / "data" / name)
        shutil.copytree(exported, tmp_path / "bundles" / f"{name}.uflow")
    arguments = [
        "--all",
        "--data",
        tmp_path / "data",
        "--bundles",
        tmp_path / "bundles",
        "--json",
        tmp_path / "all.json",
    ]
    assert exit_code(main, *arguments, "--ray", "auto", "--ray-state", tmp_path / "state") == 3
    coarse, fine = json.loads((tmp_path / "all.json").read_text())["categories"]
    assert (coarse["category"], fine["category"]) == ("coarse", "fine")
    assert coarse["maps"] == fine["maps"]
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["coarse", "fine"]


def test_a_mask_that_does_not_fit_ends_the_run(
    cluster: ClusterOptions, own_labelled: Path, recipe: Recipe, tmp_path: Path
) -> None:
    Image.new("L", (48, 40), 255).save(own_labelled / "ground_truth" / "hole" / "006_mask.png")
    with pytest.raises(Exception, match=r"006_mask.png: the mask has 48x40 pixels, but .*006.png has 96x96") as failure:
        evaluate_archive("gravel", labelled_images(own_labelled), recipe(), tmp_path / "state", cluster)
    assert failure.value.exit_code == 3


@pytest.mark.parametrize("options", [["--ray", "auto"], ["--ray-state", "x"], ["--ray-workers", "2"]])
def test_options_that_belong_together(
    options: list[str], labelled: Path, exported: Path, exit_code: Callable[..., int]
) -> None:
    assert exit_code(main, "--bundle", exported, "--data", labelled, *options) == 2

"""The eager pipeline against the authors' numbers and against our runtime."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from uflow_edge.benchmarks.studies.gravel import gravel_frames
from uflow_edge.benchmarks.studies.peers.eager import EagerPipeline
from uflow_edge.benchmarks.studies.peers.eager_contest import EagerTimes, assert_same, compared
from uflow_edge.benchmarks.studies.peers.models import Model, PublishedTimes, in_rgb, pictures
from uflow_edge.export.checkpoints.checkpoint import load_checkpoint
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.images.files import read_image
from uflow_edge.runtime.inspector import Inspector

OURS = {"onnxruntime": 20.0, "OpenVINO": 15.0, "OpenVINO in INT8": 10.0}


@pytest.fixture(scope="module")
def authors_pipeline(reference: Path) -> EagerPipeline:
    return EagerPipeline(load_checkpoint(reference / "resnet18_256_s4.ckpt"))


@pytest.mark.parametrize("name", ["good", "defective", "painted"])
def test_picture_to_verdict_is_the_authors(
    reference: Path, end_to_end: dict[str, np.ndarray], authors_pipeline: EagerPipeline, name: str
) -> None:
    picture = in_rgb(read_image(reference / f"{name}.png"))
    assert picture.shape == (300, 300, 3)
    tensor = authors_pipeline.tensor(picture)
    np.testing.assert_allclose(tensor[0].numpy(), end_to_end[f"{name}/input"], atol=1e-6)
    verdict = authors_pipeline.inspect(picture)
    np.testing.assert_allclose(verdict.likelihood, end_to_end[f"{name}/likelihood_256"], atol=1e-4)
    authors = end_to_end[f"{name}/tree_score_256"]
    log_probability = np.abs(authors + float(end_to_end["log10_ntests"]))
    off = np.abs(verdict.score - authors) > 0.1 + 1e-3 * log_probability
    assert off.mean() <= 1e-3  # a near-tie may hand some pixels to another region
    assert verdict.anomalous == (name == "painted") == bool((authors > 0).any())


@pytest.fixture
def inspector(exported: Path) -> Inspector:
    bundle = Bundle.load(exported, UFlowManifest)
    manifest = replace(bundle.manifest, rule="upstream")
    return Inspector(manifest, OnnxRuntimeEngine(bundle.path(manifest.variants[0]), manifest, manifest.variants[0]))


def test_our_runtime_says_the_same(trained: Path, inspector: Inspector) -> None:
    eager, frames = EagerPipeline(load_checkpoint(trained)), pictures(5, (96, 96))
    stray, changes = compared([eager.inspect(in_rgb(frame)) for frame in frames], {"ours": inspector}, frames)
    assert stray <= 1e-2
    assert changes[0].startswith("ours: energies differ by up to ")


def test_disagreement_is_noticed(trained: Path, inspector: Inspector) -> None:
    eager, (frame,) = EagerPipeline(load_checkpoint(trained)), pictures(1, (96, 96))
    one_sided = Inspector(replace(inspector.manifest, rule="per_size"), inspector.engine)
    with pytest.raises(AssertionError, match="scores are"):
        assert_same(eager.inspect(in_rgb(frame)), frame, one_sided)
    cropped = Inspector(replace(inspector.manifest, fit="crop"), inspector.engine)
    with pytest.raises(AssertionError, match="likelihood maps differ by"):
        assert_same(eager.inspect(in_rgb(frame[:, :60].copy())), frame[:, :60].copy(), cropped)


def test_scores_are_compared_on_the_same_energies_and_energies_among_themselves(
    trained: Path, inspector: Inspector
) -> None:
    (frame,) = pictures(1, (96, 96))
    theirs = EagerPipeline(load_checkpoint(trained)).inspect(in_rgb(frame))
    assert_same(theirs, frame, inspector)
    off = tuple(np.float32(1 + 2e-3) * energy for energy in theirs.energies)
    with pytest.raises(AssertionError, match="energies differ by 2"):
        assert_same(replace(theirs, energies=off), frame, inspector)
    with pytest.raises(AssertionError, match="scores are"):
        assert_same(replace(theirs, score=theirs.score + 1), frame, inspector)


def test_a_near_tie_may_change_an_outline_but_not_the_regions(trained: Path, inspector: Inspector) -> None:
    frame = pictures(2, (96, 96))[1]
    theirs = EagerPipeline(load_checkpoint(trained)).inspect(in_rgb(frame))
    assert assert_same(theirs, frame, inspector)[0] == 0
    inside = cv2.erode((theirs.score > 0).astype(np.uint8), np.ones((3, 3)))
    outside = cv2.dilate((theirs.score > 0).astype(np.uint8), np.ones((3, 3)))
    handed_over, new = theirs.score.copy(), theirs.score.copy()
    handed_over[(inside > 0) & (theirs.score < 50)] = 60
    share, _ = assert_same(replace(theirs, score=handed_over), frame, inspector)
    assert share == (handed_over != theirs.score).mean() > 1e-3
    new[outside == 0] = 60
    with pytest.raises(AssertionError, match="regions differ"):
        assert_same(replace(theirs, score=new), frame, inspector)


def test_every_third_picture_is_scratched() -> None:
    frames = pictures(3, (96, 96))
    assert [frame.shape for frame in frames] == [(96, 96, 3)] * 3
    assert [bool((frame >= 235).sum() > 200) for frame in frames] == [False, False, True]


def test_published_figures_are_kept_apart(exported: Path) -> None:
    bundle = Bundle.load(exported, UFlowManifest)
    model = Model("small", exported.parent / "none.ckpt", bundle, PublishedTimes(900, 80))
    outcome = EagerTimes(model, network=40.0, tree=10.0, whole=60.0, ours=OURS)
    assert outcome.row[1:4] == ["40.0 ms", "10.0 ms", "60.0 ms"]
    assert outcome.row[4:] == ["20.0 ms", "3.0", "15.0 ms", "4.0", "–", "–", "10.0 ms", "6.0", "0.00%", "900 ms", "60"]
    assert outcome.remark is not None and outcome.remark.endswith("would take 450 ms here, 30 times ours.")
    unknown = replace(outcome, model=replace(model, published=PublishedTimes(900)), ours={"onnxruntime": 20.0})
    assert unknown.row[6:8] == ["–", "–"]
    assert unknown.row[-2:] == ["900 ms", "45"]
    assert unknown.remark is None


def test_pictures_are_none_of_those_that_were_learnt() -> None:
    learnt = {frame.tobytes() for frame in gravel_frames(48, (64, 64))}
    assert not learnt & {picture.tobytes() for picture in pictures(9, (64, 64))}

"""`uflow-infer` as a person types it."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.engines import EngineFailed
from uflow_edge.runtime.infer.command import main
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.scoring import with_rule


@pytest.fixture
def desk(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with one bundle in it."""
    shutil.copytree(exported, tmp_path / "gravel.uflow")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_in_overlays_and_lines_out(desk: Path, texture_folder: Path, exit_code, capsys) -> None:
    code = exit_code(main, "--images", texture_folder / "test", "--save-dir", "seen", "--jsonl", "seen.jsonl")
    assert code == 0
    lines = [json.loads(line) for line in (desk / "seen.jsonl").read_text().splitlines()]
    assert [Path(line["source"]).parent.name for line in lines] == ["good", "hole"]
    assert [line["frame"] for line in lines] == [0, 1]
    assert cv2.imread(str(desk / "seen" / "hole" / "00.png")).shape[1] >= 360
    assert "2 inspected, " in capsys.readouterr().out


def test_json_on_stdout_is_nothing_but_json(desk: Path, texture_folder: Path, exit_code, capsys) -> None:
    assert exit_code(main, "--images", texture_folder / "test", "--jsonl", "-") == 0
    captured = capsys.readouterr()
    assert len([json.loads(line) for line in captured.out.splitlines()]) == 2
    assert "2 inspected" in captured.err


def test_unreadable_images_are_reported_and_the_rest_goes_on(
    desk: Path, texture_folder: Path, exit_code, capsys
) -> None:
    folder = Path(shutil.copytree(texture_folder / "train" / "good", desk / "parts"))
    (folder / "05.png").write_text("broken")
    assert exit_code(main, "--images", folder, "--jsonl", "out.jsonl") == 3
    captured = capsys.readouterr()
    assert "unreadable: " in captured.err
    assert "05.png: cannot be read as an image" in captured.err
    assert "15 inspected" in captured.out
    frames = [json.loads(line)["frame"] for line in (desk / "out.jsonl").read_text().splitlines()]
    assert frames == [i for i in range(16) if i != 5]


def test_fail_on_anomaly(desk: Path, texture_folder: Path, exit_code) -> None:
    manifest = json.loads((desk / "gravel.uflow" / "manifest.json").read_text())
    for threshold, code in ((-1e9, 1), (1e9, 0)):
        manifest["operating_point"]["threshold"] = threshold
        (desk / "gravel.uflow" / "manifest.json").write_text(json.dumps(manifest))
        assert exit_code(main, "--images", texture_folder / "test", "--fail-on-anomaly") == code
        assert exit_code(main, "--images", texture_folder / "test") == 0


def test_pictures_with_the_likelihood_map(desk: Path, texture_folder: Path, exit_code, capsys) -> None:
    images = ("--images", texture_folder / "test")
    for heat_map in ("nfa", "evidence", "likelihood"):
        assert exit_code(main, *images, "--threshold", 1e9, "--save-dir", heat_map, "--heat-map", heat_map) == 0
    plain, coloured = (cv2.imread(str(Path(folder, "good", "00.png")))[44:] for folder in ("nfa", "likelihood"))
    assert np.ptp(plain, axis=2).max() == 0  # grey, as the frame is
    assert np.ptp(coloured, axis=2).min() > 20
    assert exit_code(main, *images, "--heat-map", "likelihood") == 2
    assert "it needs --save-dir or --mqtt-pictures" in capsys.readouterr().err


def test_the_block_rule_is_for_bundles_that_count_exceedances(
    desk: Path, counting: Path, texture_folder: Path, exit_code, capsys
) -> None:
    images = ("--images", texture_folder / "test", "--rule", "block")
    assert exit_code(main, *images) == 3
    assert "gravel.uflow: the bundle has no exceedance outputs; export it with --block-nfa" in capsys.readouterr().err
    shutil.copytree(counting, "counting.uflow")
    Path("counting.uflow", "manifest.json").write_text(
        Path("counting.uflow", "manifest.json").read_text().replace('"log_nfa_0"', '"manual"')
    )
    assert exit_code(main, *images, "--bundle", "counting.uflow", "--json", "block.jsonl") == 0
    assert "threshold: 0.00 (log_nfa_0)" in capsys.readouterr().out
    lines = [json.loads(line) for line in Path("block.jsonl").read_text().splitlines()]
    with Inspector.load(with_rule(Bundle.load(counting, UFlowManifest), "block")) as inspector:
        scores = [inspector.inspect(cv2.imread(line["source"])).score for line in lines]
    assert [line["score"] for line in lines] == pytest.approx(scores)


def test_a_video(desk: Path, exit_code, capsys) -> None:
    writer = cv2.VideoWriter("belt.avi", cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 64))
    for i in range(5):
        writer.write(np.full((64, 96, 3), 20 * i, np.uint8))
    writer.release()
    assert exit_code(main, "--video", "belt.avi", "--jsonl", "v.jsonl", "--save-dir", "v") == 0
    assert [json.loads(line)["frame"] for line in Path("v.jsonl").read_text().splitlines()] == [0, 1, 2, 3, 4]
    assert sorted(path.name for path in Path("v").iterdir()) == [f"frame-{i:06d}.png" for i in range(5)]
    assert exit_code(main, "--video", "belt.avi", "--max-frames", "2", "--quiet") == 0
    assert "2 inspected" in capsys.readouterr().out


def test_a_camera_that_is_lost_still_gets_its_summary(desk: Path, exit_code, capsys) -> None:
    """A file stands in for a stream: OpenCV opens both by name, and both end."""
    writer = cv2.VideoWriter("stream.avi", cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 64))
    for _ in range(5):
        writer.write(np.full((64, 96, 3), 90, np.uint8))
    writer.release()
    assert exit_code(main, "--camera", "stream.avi", "--policy", "every", "--max-frames", "3") == 0
    assert "3 inspected" in capsys.readouterr().out
    assert exit_code(main, "--camera", "stream.avi", "--policy", "every", "--give-up", "0") == 4
    captured = capsys.readouterr()
    assert "5 inspected" in captured.out
    assert "camera stream.avi stopped delivering after 5 frames" in captured.err


def test_files_of_one_name_keep_apart(desk: Path, texture_folder: Path, exit_code) -> None:
    files = sorted((texture_folder / "test").glob("*/00.png"))
    assert exit_code(main, "--images", *files, "--save-dir", "seen") == 0
    assert sorted(path.name for path in Path("seen").iterdir()) == ["00-2.png", "00.png"]


def test_bad_requests(desk: Path, texture_folder: Path, exit_code, capsys) -> None:
    images = texture_folder / "test"
    cases = [
        (3, ["--images", "absent"], "absent: no such file or folder"),
        (3, ["--images", images, "--bundle", "absent.uflow"], "no bundle here"),
        (3, ["--video", "absent.avi"], "no such video file"),
        (3, ["--video", "gravel.uflow/manifest.json"], "finds no video"),
        (3, ["--images", images, "--jsonl", "gravel.uflow"], "cannot be written"),
        (4, ["--camera", "97"], "camera 97 cannot be opened"),
        (2, ["--images", images, "--camera", "0"], "not allowed with"),
        (2, [], "required"),
        (2, ["--images", images, "--max-frames", "0"], "--max-frames"),
        (2, ["--images", images, "--threads", "-1"], "--threads"),
    ]
    for code, arguments, message in cases:
        assert exit_code(main, *arguments) == code, arguments
        assert message in capsys.readouterr().err
    shutil.copytree("gravel.uflow", "other.uflow")
    assert exit_code(main, "--images", images) == 2
    assert "gravel.uflow, other.uflow" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "much"])
@pytest.mark.parametrize("option", ["--threshold", "--overlap", "--silence", "--exposure"])
def test_a_number_that_is_not_finite_is_a_usage_error(option: str, value: str, exit_code, capsys) -> None:
    assert exit_code(main, "--images", "good", f"{option}={value}") == 2
    assert f"argument {option}: expected a finite number, got '{value}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--camera", "0", "--trigger", "software"], "--trigger software needs --serve"),
        (["a.png", "--camera-fps", "5"], "--camera-fps needs --camera"),
        (["a.png", "--gain", "0"], "--gain needs --camera"),
        (["a.png", "--camera", "0"], "not allowed with"),
        (["a.png", "--threads", "100000"], "threads on this machine"),
        (["a.png", "--jsonl", ""], "expected a value"),
        (["a.png", "--mqtt", ""], "argument --mqtt: expected a value"),
        (
            ["--camera", "rtspx://me:secret@host/"],
            "rtspx://me:***@host/ is unknown: expected 0, /dev/video0, csi://0, rtsp://…, http://…",
        ),
        (["a.png", "--token", "a token without a page"], "--token needs --serve"),
        (["--camera", "synthetic:16384x16384"], "at most 32 megapixels"),
        ([], "one of the arguments --camera PATH --images --watch --video is required"),
    ],
)
def test_bad_requests_are_usage(arguments: list[str], told: str, exit_code, capsys) -> None:
    assert exit_code(main, *arguments) == 2
    assert told in capsys.readouterr().err


def test_a_token_in_the_environment_is_for_runs_that_serve(
    exported: Path, texture_folder: Path, exit_code, monkeypatch
) -> None:
    monkeypatch.setenv("UFLOW_EDGE_TOKEN", "a token of many characters")
    assert exit_code(main, texture_folder / "test" / "good" / "00.png", "--bundle", exported) == 0


def test_a_frame_that_is_not_judged_is_not_good(
    exported: Path, texture_folder: Path, tmp_path: Path, exit_code, monkeypatch, capsys
) -> None:
    Image.new("RGB", (50, 40)).save(tmp_path / "small.png")
    real = Inspector.infer

    def sometimes(self: Inspector, prepared):
        if prepared.size == (40, 50):
            raise EngineFailed("energies are not finite")
        return real(self, prepared)

    monkeypatch.setattr(Inspector, "infer", sometimes)
    pictures = (tmp_path / "small.png", texture_folder / "test" / "good" / "00.png")
    assert exit_code(main, *pictures, "--bundle", exported, "--threshold=1e9") == 3
    told = capsys.readouterr()
    assert f"not judged: {pictures[0]} #0: energies are not finite" in told.err
    assert "1 inspected, 0 anomalous, 0 unreadable, 1 not judged" in told.out

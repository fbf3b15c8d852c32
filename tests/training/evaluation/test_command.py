"""``uflow-evaluate`` from its arguments to tables, JSON and page, and what it says of data that cannot be used."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from uflow_edge.training.evaluation.command import main
from uflow_edge.training.evaluation.ground_truth import labelled_images

Exit = Callable[..., int]


def test_one_category_to_json_and_page(
    labelled_folder: Path, exported: Path, tmp_path: Path, exit_code: Exit, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers, page = tmp_path / "numbers.json", tmp_path / "page.html"
    arguments = ["--bundle", exported, "--data", labelled_folder, "--json", numbers, "--report", page, "--threads", 1]
    assert exit_code(main, *arguments, "--backend", "onnxruntime") == 0
    out = capsys.readouterr().out
    (found,) = (content := json.loads(numbers.read_text()))["categories"]
    assert (found["category"], found["good_images"], found["defective_images"]) == ("gravel", 5, 5)
    assert content["mean"]["nfa"]["aupro"] == found["maps"]["nfa"]["pixels"]["aupro"]
    assert content["mean"]["likelihood"]["pixel_auroc"] > 0.8  # holes in gravel are easily seen
    for value in content["mean"]["likelihood"].values():
        assert f"{value:.4f}" in out
    text, pictures = re.subn(r"data:image/jpeg;base64,[\w+/=]+", "", page.read_text())
    assert pictures == 10
    assert text.count("<polyline") == 9
    assert "Colours: the score, from the threshold upwards" in text
    assert not re.search(r"https?://|<script|\bnan\b|\binf\b", text)


def test_every_category_with_its_own_bundle(
    labelled_folder: Path, exported: Path, tmp_path: Path, exit_code: Exit, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("fine", "coarse"):
        shutil.copytree(labelled_folder, tmp_path / "data" / name)
        shutil.copytree(exported, tmp_path / "bundles" / f"{name}.uflow")
        shutil.move(tmp_path / "data" / name / "ground_truth", tmp_path / "masks" / name)
    (tmp_path / "data" / "no_category").mkdir()
    arguments = ["--all", "--data", tmp_path / "data", "--bundles", tmp_path / "bundles"]
    json_file, page = tmp_path / "all.json", tmp_path / "all.html"
    options = ["--ground-truth", tmp_path / "masks", "--json", json_file, "--report", page, "--threads", 1]
    assert exit_code(main, *arguments, *options) == 0
    content = json.loads(json_file.read_text())
    coarse, fine = content["categories"]
    assert (coarse["category"], fine["category"]) == ("coarse", "fine")
    assert coarse["maps"] == fine["maps"]
    assert content["mean"]["nfa"]["image_auroc"] == pytest.approx(fine["maps"]["nfa"]["image_auroc"])
    assert fine["scoring"] == "one_sided" and fine["checkpoint"]["name"] == "gravel.ckpt"
    for name in ("fine", "coarse"):
        assert page.read_text().count(f'<a href="#{name}">') == 4  # a row for each score, and one of decisions
        assert page.read_text().count(f'<section id="{name}">') == 1
    assert page.read_text().count('<tr class="strong">') == 4
    assert capsys.readouterr().out.count("\nmean ") == 4  # three scores; the operating point is log-NFA 0

    shutil.rmtree(tmp_path / "bundles" / "fine.uflow")
    assert exit_code(main, *arguments, *options) == 3
    assert "fine.uflow: no such bundle" in capsys.readouterr().err


def test_without_masks_images_alone_are_compared(
    own_labelled_folder: Path, exported: Path, tmp_path: Path, exit_code: Exit, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers, page = [tmp_path / f"{name}.json" for name in ("with", "without")], tmp_path / "page.html"
    arguments = ["--bundle", exported, "--data", own_labelled_folder, "--threads", 1]
    assert exit_code(main, *arguments, "--json", numbers[0]) == 0
    shutil.rmtree(own_labelled_folder / "ground_truth")
    reported = ("--no-masks", "--report", page, "--heat-map", "evidence")
    assert exit_code(main, *arguments, "--json", numbers[1], *reported) == 0
    assert re.search(
        r"Colours: the evidence of each pixel, from 2 where it is detected.*<span>8</span>",
        page.read_text(),
        re.DOTALL,
    )
    assert "–" in capsys.readouterr().out
    expected, found = (json.loads(path.read_text())["mean"] for path in numbers)
    for group, of_masks in (
        ("nfa", {"pixel_auroc", "aupro", "oracle_iou"}),
        ("evidence", {"pixel_auroc", "aupro", "oracle_iou"}),
        ("likelihood", {"pixel_auroc", "aupro", "oracle_iou"}),
        ("at_log_nfa_0", {"mean_iou"}),
        ("at_operating_point", {"mean_iou"}),
    ):
        assert found[group] == {name: None if name in of_masks else value for name, value in expected[group].items()}
    assert page.read_text().count("<polyline") == 3


def test_an_unreadable_image_is_listed_and_the_others_count(
    own_labelled_folder: Path, exported: Path, tmp_path: Path, exit_code: Exit, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_labelled_folder / "test" / "good" / "broken.png").write_bytes(b"not a picture")
    numbers, page = tmp_path / "numbers.json", tmp_path / "page.html"
    arguments = ["--bundle", exported, "--data", own_labelled_folder, "--json", numbers, "--report", page]
    assert exit_code(main, *arguments, "--threads", 1) == 3
    assert "unreadable: " in capsys.readouterr().out
    (found,) = json.loads(numbers.read_text())["categories"]
    assert found["good_images"] == 5
    assert "broken.png" in found["unreadable"][0] and "broken.png" in page.read_text()


def test_folder_and_image_names_may_hold_html_and_other_bytes_than_utf8(
    own_labelled_folder: Path, exported: Path, tmp_path: Path, exit_code: Exit
) -> None:
    data = own_labelled_folder.rename(tmp_path / "a <u> \udcff")
    hole = data / "test" / "hole" / "005.png"
    hole.write_bytes((data / "test" / "good" / "000.png").read_bytes())  # missed, so the report shows it
    hole.rename(hole.with_name("<script>\udcfe.png"))
    numbers, page = tmp_path / "numbers.json", tmp_path / "page.html"
    options = ("--no-masks", "--threads", 1, "--json", numbers, "--report", page)
    assert exit_code(main, "--bundle", exported, "--data", data, *options) == 0
    html = page.read_text(encoding="utf-8")
    assert "&lt;script&gt;\\udcfe.png" in html and "<script>" not in html and "<u>" not in html
    assert html.count('href="#a%20%3Cu%3E%20%5Cudcff"') == 4  # of three maps and the decisions
    assert html.count('id="a%20%3Cu%3E%20%5Cudcff"') == 1
    assert json.loads(numbers.read_text())["categories"][0]["category"] == data.name


def test_what_is_measured_is_kept_when_one_category_fails(
    labelled_folder: Path, exported: Path, tmp_path: Path, exit_code: Exit, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "c"):
        shutil.copytree(labelled_folder, tmp_path / "data" / name)
        shutil.copytree(exported, tmp_path / "bundles" / f"{name}.uflow")
    for path in (tmp_path / "data" / "b" / "test" / "good").iterdir():
        path.write_bytes(b"not a picture")
    arguments = ["--all", "--data", tmp_path / "data", "--bundles", tmp_path / "bundles", "--threads", 1]
    json_file, page = tmp_path / "all.json", tmp_path / "all.html"
    assert exit_code(main, *arguments, "--json", json_file, "--report", page) == 3
    said = capsys.readouterr()
    assert said.out.index("004.png") < said.out.index("engine")  # broken images are named before the work
    assert "error: b: b: 0 good and 5 defective images could be read" in said.err
    content = json.loads(json_file.read_text())
    assert [found["category"] for found in content["categories"]] == ["a", "c"]
    assert list(content["failed"]) == ["b"]
    assert page.read_text().count("<section id=") == 2


def test_the_faults_of_all_categories_are_named_at_once(
    labelled_folder: Path, exported: Path, tmp_path: Path, exit_code: Exit, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        shutil.copytree(labelled_folder, tmp_path / "data" / name)
        shutil.copytree(exported, tmp_path / f"{name}.uflow")
        spoil_mask(tmp_path / "data" / name)
    assert exit_code(main, "--all", "--data", tmp_path / "data", "--bundles", tmp_path) == 3
    said = capsys.readouterr()
    assert "a/ground_truth/hole/006_mask.png" in said.err and "b/ground_truth/hole/006_mask.png" in said.err
    assert "engine" not in said.out
    assert exit_code(main, "--bundle", exported, "--data", tmp_path / "data") == 3
    assert "add --all" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json", "--report"])
def test_the_place_of_results_is_tried_first(
    option: str, labelled_folder: Path, exported: Path, tmp_path: Path, exit_code: Exit, capsys
) -> None:
    assert exit_code(main, "--bundle", exported, "--data", labelled_folder, option, tmp_path) == 3
    said = capsys.readouterr()
    assert "is a folder; expected the name of a file" in said.err and "engine" not in said.out


def test_torch_is_not_needed() -> None:
    code = (
        "import sys; from uflow_edge.training.evaluation import command, report; "
        "sys.exit(bool({'torch', 'sklearn', 'timm'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def remove_mask(folder: Path) -> None:
    (folder / "ground_truth" / "hole" / "006_mask.png").unlink()


def shrink_mask(folder: Path) -> None:
    mask = folder / "ground_truth" / "hole" / "006_mask.png"
    Image.open(mask).resize((48, 40)).save(mask)


def blank_mask(folder: Path) -> None:
    Image.new("L", (96, 96)).save(folder / "ground_truth" / "hole" / "006_mask.png")


def spoil_mask(folder: Path) -> None:
    (folder / "ground_truth" / "hole" / "006_mask.png").write_bytes(b"not a picture")


def remove_defects(folder: Path) -> None:
    for kind in ("hole", "spots"):
        shutil.rmtree(folder / "test" / kind)


def remove_good(folder: Path) -> None:
    shutil.rmtree(folder / "test" / "good")


def spoil_good(folder: Path) -> None:
    for path in (folder / "test" / "good").iterdir():
        path.write_bytes(b"not a picture")


def remove_tests(folder: Path) -> None:
    shutil.rmtree(folder / "test")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove_mask, r"test/hole/006.png: it has no mask; expected .*ground_truth/hole/006_mask.png"),
        (shrink_mask, r"006_mask.png: the mask has 48x40 pixels, but .*006.png has 96x96"),
        (blank_mask, r"006_mask.png: marks no pixel"),
        (spoil_mask, r"006_mask.png: cannot be read as an image"),
        (remove_defects, r"test: no defective images"),
        (remove_good, r"test: no good images"),
        (spoil_good, r"gravel: 0 good and 5 defective images could be read, and 5 could not"),
        (remove_tests, r"gravel: it has no folder test"),
        (shutil.rmtree, r"gravel: no such folder"),
    ],
)
def test_data_that_cannot_be_used(
    spoil: Callable[[Path], None],
    message: str,
    own_labelled_folder: Path,
    exported: Path,
    exit_code: Exit,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(own_labelled_folder)
    assert exit_code(main, "--bundle", exported, "--data", own_labelled_folder, "--threads", 1) == 3
    assert re.search(message, capsys.readouterr().err)


def test_all_faulty_masks_are_listed_before_anything_is_inspected(
    own_labelled_folder: Path, exported: Path, exit_code: Exit, capsys: pytest.CaptureFixture[str]
) -> None:
    for copy in range(9):
        for folder, name in (("test/hole", "006.png"), ("ground_truth/hole", "006_mask.png")):
            original = own_labelled_folder / folder / name
            shutil.copy(original, original.with_name(name.replace("006", f"9{copy}")))
    arguments = ["--bundle", exported, "--data", own_labelled_folder, "--threads", 1]
    for mask in (own_labelled_folder / "ground_truth" / "hole").iterdir():
        Image.open(mask).resize((48, 40)).save(mask)
    assert exit_code(main, *arguments) == 3
    said = capsys.readouterr()
    assert said.err.count("the mask has 48x40 pixels, but ") == 12
    assert ". Save each mask without lossy compression, in the size of its image" in said.err
    assert "engine" not in said.out  # nothing was opened
    shutil.rmtree(own_labelled_folder / "ground_truth" / "hole")
    assert exit_code(main, *arguments) == 3
    assert capsys.readouterr().err.count(": it has no mask; expected ") == 12


def test_a_turned_mask_fits_the_turned_picture_alone(
    own_labelled_folder: Path, exported: Path, exit_code: Exit, capsys: pytest.CaptureFixture[str]
) -> None:
    """Headers tell the sides as they are stored; a camera's EXIF rotation exchanges them."""
    picture, mask = (own_labelled_folder / name for name in ("test/hole/006.png", "ground_truth/hole/006_mask.png"))
    arguments = ["--bundle", exported, "--data", own_labelled_folder, "--threads", 1]
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.open(picture).resize((96, 64)).save(picture, exif=exif)
    Image.open(mask).resize((64, 96)).save(mask)
    assert exit_code(main, *arguments) == 0
    Image.open(mask).resize((96, 64)).save(mask)
    assert exit_code(main, *arguments) == 3
    assert "006_mask.png: the mask has 96x64 pixels, but " in capsys.readouterr().err


@pytest.mark.parametrize("ending", [".PNG", "_mask.Png", "_MASK.TIF", "_Mask.png"])
def test_case_of_a_masks_name_does_not_matter(own_labelled_folder: Path, ending: str) -> None:
    expected = {}
    for mask in sorted((own_labelled_folder / "ground_truth").rglob("*_mask.png")):
        name = mask.name.replace("_mask.png", "")
        expected[mask.parent.name, name] = mask.with_name(name + ending)
        Image.open(mask).save(expected[mask.parent.name, name])
        mask.unlink()
    images = labelled_images(own_labelled_folder)
    assert {(image.kind, image.path.stem): image.mask for image in images if not image.is_good} == expected


def test_a_name_with_mask_goes_before_one_without(own_labelled_folder: Path) -> None:
    mask = own_labelled_folder / "ground_truth" / "hole" / "006_mask.png"
    shutil.copy(mask, mask.with_name("006.bmp"))
    assert mask in {image.mask for image in labelled_images(own_labelled_folder)}


def test_masks_may_be_named_like_their_images(own_labelled_folder: Path, exported: Path, exit_code: Exit) -> None:
    for mask in (own_labelled_folder / "ground_truth").rglob("*_mask.png"):
        Image.open(mask).save(mask.with_name(mask.name.replace("_mask.png", ".bmp")))
        mask.unlink()
    assert exit_code(main, "--bundle", exported, "--data", own_labelled_folder, "--threads", 1) == 0


@pytest.mark.parametrize(
    "options", [["--all", "--bundle", "a.uflow"], ["--bundles", "."], ["--no-masks", "--ground-truth", "."]]
)
def test_options_that_exclude_each_other(options: list[str], labelled_folder: Path, exit_code: Exit) -> None:
    assert exit_code(main, "--data", labelled_folder, *options) == 2


def test_no_category_below_data(tmp_path: Path, exit_code: Exit, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(main, "--all", "--data", tmp_path) == 3
    assert "it contains no categories" in capsys.readouterr().err

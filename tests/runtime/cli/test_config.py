"""Configuration files: every command reads its own options, checks them, and writes them back."""

import argparse
import shlex
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers import NEEDED, parser_of
from uflow_edge.runtime.cli.config import config_text
from uflow_edge.runtime.errors import BadInput, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TYPED = {
    "uflow-train": "--data a --out b --weights c 'd e' --bits 12 --crop 0.5 --restart --learning-rate 1e-05",
    "uflow-export": "--ckpt a --batch 1:2:8 --dla-core 0 --trt --compute-capability 8.10 --triton-engine",
    "uflow-calibrate": "--good a b --confidence average --max-false-alarms 0.05 --roi 1,2,3,4 --roi 5,6,7,8",
    "uflow-infer": "--camera 0 --camera csi://0 --camera-size 640x480 --serve --gain 0 --jsonl - --trigger every:50",
    "uflow-evaluate": "--data a --all --bundles c --rule upstream --ray local --ray-gpus 0.5 --json found.json",
    "uflow-bench": "--backend onnxruntime openvino --batch 1 8 --frame-size 32x16 --starts 0",
    "uflow-train-unet": "--data a --out b --channels 8 16 --steps 7 --seed 3",
    "uflow-purify": "--images a b --out c --noise 7 --guide ssim --guide-scale 2 --verbose",
}


def namespace(command: str, *arguments: str) -> dict[str, object]:
    found = vars(parser_of(command).parse_args(arguments))
    return {name: value for name, value in found.items() if name not in ("config", "print_config")}


@pytest.fixture
def config(tmp_path: Path):
    def write(text: str) -> str:
        (tmp_path / "line.toml").write_text(text, encoding="utf-8")
        return str(tmp_path / "line.toml")

    return write


def printed(command: str, *arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        parser_of(command).parse_args([*arguments, "--print-config"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", NEEDED)
def test_what_is_printed_reads_back(command: str, config, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (NEEDED[command], shlex.split(TYPED[command])):
        text = printed(command, *arguments, capsys=capsys)
        assert namespace(command, "--config", config(text)) == namespace(command, *arguments)
        assert printed(command, "--config", config(text), capsys=capsys) == text
    assert printed(command, capsys=capsys)  # an incomplete command line is a beginning


@pytest.mark.parametrize("command", NEEDED)
def test_the_command_line_overrides_the_file(command: str, config) -> None:
    def with_file(text: str, *arguments: str) -> dict[str, object]:
        return namespace(command, "--config", config(text), *arguments)

    typed = shlex.split(TYPED[command])
    assert with_file("verbose = true\nlog-format = 'json'", *typed) == namespace(
        command, "--verbose", "--log-format", "json", *typed
    )
    assert with_file("log-format = 'json'", *typed, "--log-format", "text") == namespace(command, *typed)


def test_repeated_options_replace_those_of_the_file(config) -> None:
    file = config('camera = ["0", "1"]\nroi = ["1,2,3,4"]\n')
    assert namespace("uflow-infer", "--config", file)["camera"] == ["0", "1"]
    mixed = namespace("uflow-infer", "--config", file, "--camera", "2")
    assert (mixed["camera"], mixed["roi"]) == (["2"], ["1,2,3,4"])
    for images in (["--images", "a.png"], ["a.png"]):
        other = namespace("uflow-infer", *images, f"--config={file}")
        assert (other["camera"], other["images"], other["roi"]) == (None, [Path("a.png")], ["1,2,3,4"])


def test_values_without_a_value(config) -> None:
    assert namespace("uflow-infer", "--config", config("camera = 0\nserve = true"))["serve"] == "127.0.0.1:8000"
    assert namespace("uflow-infer", "--config", config("camera = 0\nserve = 8001"))["serve"] == "8001"
    assert namespace("uflow-infer", "--config", config("camera = 0\nserve = false"))["serve"] is None


def test_a_byte_order_mark_is_skipped(config) -> None:
    assert namespace("uflow-infer", "--config", config("\ufeffcamera = 0"))["camera"] == ["0"]


def test_the_example_of_the_page_about_commands(config) -> None:
    page = (Path(__file__).parents[3] / "docs" / "commands.md").read_text()
    found = namespace("uflow-infer", "--config", config(page.split("```toml\n")[1].split("```")[0]))
    assert (found["camera"], found["threshold"], found["serve"]) == (["rtsp://line-1/"], 2.5, "127.0.0.1:8000")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("camra = ['0']", "line.toml: camra: unknown option; did you mean camera?"),
        ("max_frames = 3", "max_frames: unknown option; did you mean max-frames?"),
        ("json = 'a'", "json: unknown option; did you mean jsonl?"),
        ("print-config = true", "print-config: unknown option"),
        ("zzz = 1", "zzz: unknown option; uflow-infer --help lists all options"),
        ("threads = '4'", 'line.toml: threads: expected a number without quotes, found "4"'),
        ("threads = 4.0", "threads: expected a whole number, got '4.0'"),
        ("threads = true", "threads: expected a number or a text, found true"),
        ("threads = [1, 2]", "threads: expected one value, found"),
        ("threads = 0", "threads: expected a number of 1 or more"),
        ("camera = []", "camera: expected one value or more"),
        ("quiet = 1", "quiet: expected true or false, found 1"),
        ("quiet = 'yes'", 'quiet: expected true or false, found "yes"'),
        ("backend = 'cuda'", "backend: invalid choice: 'cuda' (choose from"),
        ("mqtt-topic = 8.10", "mqtt-topic: expected a text in quotes, found 8.1"),
        ("mqtt = ''", "mqtt: expected a value, got an empty text"),
        ("mqtt = 2020-01-01", "mqtt: expected a number or a text, found 2020-01-01"),
        ("[threads]\nmost = 1", "threads: expected a number or a text, found a table"),
        ("camera = ['0']\nvideo = 'a.avi'", "camera and video: only one of them can be given"),
        ("threads = ", "line.toml: is not a TOML file: "),
        ("a = 1\na = 2", "line.toml: is not a TOML file: "),
        ("a = " + "[" * 2000, "line.toml: is not a TOML file: "),
    ],
)
def test_a_wrong_file_is_refused(config, text: str, told: str) -> None:
    with pytest.raises(BadInput) as error:
        namespace("uflow-infer", "a.png", "--config", config(text))
    assert told in str(error.value)
    assert "line.toml: " in str(error.value)


def test_an_option_that_is_the_default_now_is_not_taken_for_its_opposite(config) -> None:
    with pytest.raises(BadInput, match="report: unknown option; it is the default now and can be left out"):
        namespace("uflow-calibrate", "--good", "a", "--config", config("report = true"))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"absent\.toml: cannot be read \(No such file or directory\)"):
        namespace("uflow-bench", "--config", str(tmp_path / "absent.toml"))
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="is not a TOML file"):
        namespace("uflow-bench", "--config", str(tmp_path / "bytes.toml"))
    with pytest.raises(UsageError, match=r"--config line\.yaml: expected a file that ends in \.toml"):
        namespace("uflow-bench", "--config", "line.yaml")


def test_secrets_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    secrets = ["--token", "geheim-0", "--camera", "rtsp://me:geheim-1@host/", "--mqtt", "mqtts://me:geheim-2@broker"]
    text = printed("uflow-infer", *secrets, "--mqtt-key", "key.pem", "--camera", "0", capsys=capsys)
    assert "geheim" not in text
    assert 'mqtt-key = "key.pem"' in text
    assert [line.split()[1] for line in text.splitlines() if line.startswith("#")] == ["camera", "mqtt", "token"]


def test_a_required_option_may_come_from_the_file_only_if_it_is_there(config, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        namespace("uflow-purify", "--config", config("out = 'b'"))
    assert ended.value.code == 2
    assert "the following arguments are required: --images" in capsys.readouterr().err


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip), min_size=1))
def test_any_text_reads_back(texts: list[str]) -> None:
    text = config_text(parser_of("uflow-calibrate"), argparse.Namespace(**{**DEFAULTS, "exclude": texts}))
    if "# exclude" not in text:  # a secret
        assert tomllib.loads(text)["exclude"] == texts


def test_a_name_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(UsageError, match="TOML needs valid Unicode"):
        config_text(parser_of("uflow-calibrate"), argparse.Namespace(**{**DEFAULTS, "exclude": ["caf\udce9"]}))


DEFAULTS = vars(parser_of("uflow-calibrate").parse_args(["--good", "a"]))

"""Logs, run folders, files of flags and command lines that are damaged, or are not ours."""

import json
from pathlib import Path

from uflow_edge.export.unet.flags import read_flags
from uflow_edge.runtime.archive.run_folder import RunFolder
from uflow_edge.runtime.errors import UsageError
from uflow_edge.runtime.infer.arguments import parser
from uflow_edge.runtime.sinks.json_lines import repair
from uflow_edge.runtime.sources import CameraOptions, parse_camera

LINE = json.dumps({"frame": 0, "source": "a.png", "anomalous": False, "score": -1.5, "regions": []}).encode() + b"\n"


def test_logs(tmp_path: Path, times: int, attacks, mutations) -> None:
    """Whatever is done to a log, whole lines stay, and a file that is not ours stays as it is."""
    trials, path = attacks("logs of verdicts"), tmp_path / "seen.jsonl"
    for seed in range(20 * times):
        content = mutations(seed).of_bytes(LINE * 3, None if seed % 2 else 40)
        path.write_bytes(content)

        def is_kept(_: object, content: bytes = content) -> bool:
            found = path.read_bytes()
            return found.startswith(content[: content.rfind(b"\n") + 1]) and found[-1:] in (b"\n", b"")

        if trials.attempt(seed, lambda: repair(path), is_kept) == "refused":
            assert path.read_bytes() == content


def test_run_folders(tmp_path: Path, times: int, attacks, mutations) -> None:
    trials, items = attacks("run folders"), [{"path": f"{i}.png"} for i in range(5)]
    asked = {"job": "inference", "threshold": 0.5}
    RunFolder.create(tmp_path / "run", asked, items, 2)
    run = tmp_path / "run" / "_run.json"
    whole = json.loads(run.read_text())
    for seed in range(10 * times):
        change = mutations(seed)
        text = json.dumps(change.of_json(whole)).encode()
        run.write_bytes(text if seed % 3 else change.of_bytes(text))
        trials.attempt(seed, lambda: RunFolder.resume(tmp_path / "run", asked, items), lambda found: found is not None)


def test_flags(tmp_path: Path, times: int, attacks, mutations) -> None:
    trials, path = attacks("flags of UNets, YAML"), tmp_path / "parameters.yaml"
    text = b"image_size: 256\nnum_channels: 64\nchannel_mult: 1,2\nlearn_sigma: true\nattention_resolutions: 16,8\n"
    odd = (
        b"*a",
        b"&a [*a, *a]",
        b"!!python/object/apply:os.system [x]",
        b"1e999",
        b"2001-99-99",
        b"[" * 400,
        b"9" * 5000,
    )
    for seed in range(15 * times):
        change = mutations(seed)
        lines = text.split(b"\n")
        at = change.random.randrange(len(lines) - 1)
        lines[at] = lines[at].split(b":")[0] + b": " + change.random.choice(odd)
        path.write_bytes(b"\n".join(lines) if seed % 2 else change.of_bytes(text))
        trials.attempt(seed, lambda: read_flags(path))


def test_addresses_and_options(times: int, attacks, mutations) -> None:
    """Nothing is opened: a command line is read, and its cameras are named."""
    trials = attacks("command lines")
    cameras = ("synthetic:64x48@30", "csi://0", "genicam:123", "/dev/video0", "gst:videotestsrc", "notes://a:b@c/d")
    values = {"--threshold": "1.5", "--roi": "1,2,3,4", "--tile": "64", "--threads": "1", "--save-quota": "10"}
    for seed in range(20 * times):
        change = mutations(seed)
        option = change.random.choice(list(values))
        value = change.of_bytes(values[option].encode()).decode("utf-8", "surrogateescape")
        camera = change.of_bytes(change.random.choice(cameras).encode()).decode("utf-8", "surrogateescape")

        def read(option: str = option, value: str = value, camera: str = camera) -> None:
            try:
                parser().parse_args(["--camera", camera, f"{option}={value}"])
            except SystemExit as error:
                raise UsageError(f"left with {error.code}") from error
            parse_camera(camera, CameraOptions())

        trials.attempt((seed, option, value, camera), read)

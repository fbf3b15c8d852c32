"""Flags of guided-diffusion as people write them."""

import pytest

from uflow_edge.export.unet.flags import StatedFlags, read_flags
from uflow_edge.runtime.errors import BadInput


def test_flags_are_read_as_diff_cf_writes_them(diffcf_reference) -> None:
    flags = read_flags(diffcf_reference / "parameters.yaml")
    assert flags.channel_mult == (1, 1, 2, 2)
    assert flags.attention_resolutions == (32, 16, 8)
    assert (flags.num_head_channels, flags.learn_sigma, flags.noise_schedule) == (16, True, "linear")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("channel_mult: [1, 2]\nnum_channels: '32'", StatedFlags(channel_mult=(1.0, 2.0), num_channels=32)),
        ("channel_mult: ''\nattention_resolutions: 16", StatedFlags(attention_resolutions=(16,))),
        ("class_cond: 'False'\nimage_size:", StatedFlags(class_cond=False)),
        ("noise_schedule: cosine\ndropout: 0.1", StatedFlags(noise_schedule="cosine")),
    ],
    ids=["a list", "an empty text", "words", "passed over"],
)
def test_flags_in_other_forms(tmp_path, text: str, expected: StatedFlags) -> None:
    (tmp_path / "a.yaml").write_text(text)
    assert read_flags(tmp_path / "a.yaml") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_head_channel: 32", "unknown flags num_head_channel; known are .*num_head_channels"),
        ("image_size: large", "image_size cannot be 'large'; expected int"),
        ("image_size: 25.5", "image_size cannot be 25.5"),
        ("image_size: true", "image_size cannot be True"),
        ("image_size: .inf", "image_size cannot be inf"),
        ("learn_sigma: 2", "learn_sigma cannot be 2"),
        ("noise_schedule: sqrt", "noise_schedule cannot be 'sqrt'; expected .*"),
        ("attention_resolutions: 16,x", "attention_resolutions cannot be '16,x'"),
        ("- image_size", "expected lines such as .*, found list"),
        ("a: [", "is not YAML"),
        ("!!python/object/apply:os.system ['false']", "is not YAML"),
        ("\udcff", "is not YAML"),
    ],
)
def test_flags_that_cannot_be_meant(tmp_path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadInput, match=f"a.yaml: {message}"):
        read_flags(tmp_path / "a.yaml")


def test_no_file_of_flags(tmp_path) -> None:
    with pytest.raises(BadInput, match="no.yaml: no such file"):
        read_flags(tmp_path / "no.yaml")

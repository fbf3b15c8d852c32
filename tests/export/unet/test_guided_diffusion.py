"""guided-diffusion's networks become diffusers' number by number, and whatever is not such a network is refused."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from guided_diffusion import PUBLISHED, SMALL, GuidedUNet, State, oracle
from uflow_edge.export.unet.flags import GuidedDiffusionFlags, StatedFlags, read_flags
from uflow_edge.export.unet.guided_diffusion import convert, split_qkv, unet_config
from uflow_edge.export.unet.inferred_flags import settle_flags
from uflow_edge.runtime.errors import BadInput


@pytest.fixture
def small() -> State:
    return oracle(SMALL).state_dict()


@pytest.fixture
def reference_state(diffcf_reference: Path) -> State:
    return torch.load(diffcf_reference / "unet.pt", weights_only=True)


def stated(flags: GuidedDiffusionFlags, **changed: object) -> StatedFlags:
    """Everything that can be said of a network."""
    known = {name: value for name, value in asdict(flags).items() if name in StatedFlags.__dataclass_fields__}
    resolutions = tuple(flags.image_size >> level for level in flags.attention_levels)
    return StatedFlags(**{**known, "attention_resolutions": resolutions, **changed})


def run(network: nn.Module, x: np.ndarray, steps: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        found = network(torch.from_numpy(x), torch.from_numpy(steps).float())
    return (found if isinstance(found, Tensor) else found.sample).numpy()


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_the_authors_numbers(reference_state, diffcf_reference) -> None:
    flags = settle_flags(reference_state, read_flags(diffcf_reference / "parameters.yaml"))
    network = convert(reference_state, flags)
    expected = np.load(diffcf_reference / "unet_eval.npz")
    steps = torch.from_numpy(expected["t"])
    sinusoid = network.time_proj(steps)
    assert_close(sinusoid.numpy(), expected["sinusoid"])
    assert_close(network.time_embedding(sinusoid).numpy(), expected["time_embed"])
    found = run(network, expected["x"], expected["t"])
    assert_close(found[:, :3], expected["eps"])
    assert_close(found[:, 3:], expected["variance_channels"])


def test_the_oracle_is_the_authors_network(reference_state, diffcf_reference) -> None:
    network = GuidedUNet(settle_flags(reference_state, read_flags(diffcf_reference / "parameters.yaml"))).eval()
    network.load_state_dict(reference_state)
    expected = np.load(diffcf_reference / "unet_eval.npz")
    found = run(network, expected["x"], expected["t"])
    assert_close(found, np.concatenate([expected["eps"], expected["variance_channels"]], 1))


VARIANTS = {
    "as published": {},
    "convolutions change the resolution": {"resblock_updown": False},
    "the time only shifts": {"use_scale_shift_norm": False},
    "the new order of attention": {"use_new_attention_order": True},
    "no learned variance": {"learn_sigma": False},
    "no attention but in the middle": {"attention_levels": ()},
    "attention everywhere": {"attention_levels": (0, 1, 2)},
    "one block a level": {"num_res_blocks": 1},
    "one level": {"channel_mult": (1,), "attention_levels": (0,), "resblock_updown": False},
    "grey": {"image_channels": 1},
    "a channel_mult that is no whole number": {"channel_mult": (1, 1.5), "num_channels": 64},
    "none of the published choices": {
        "resblock_updown": False,
        "use_scale_shift_norm": False,
        "use_new_attention_order": True,
        "learn_sigma": False,
        "num_head_channels": 32,
    },
}


@pytest.mark.parametrize("changed", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_variant_computes_the_same(changed) -> None:
    flags = replace(SMALL, **changed)
    expected = oracle(flags)
    state = expected.state_dict()
    hidden = {"num_head_channels": flags.num_head_channels, "use_new_attention_order": flags.use_new_attention_order}
    settled = settle_flags(state, StatedFlags(image_size=flags.image_size, **hidden))
    assert settled == flags == settle_flags(state, stated(flags))
    network = convert(state, settled)
    random = np.random.default_rng(0)
    x = random.standard_normal((2, flags.image_channels, 32, 32)).astype(np.float32)
    steps = np.array([3.0, 871.0])
    assert_close(run(network, x, steps), run(expected, x, steps))


def test_the_published_network_needs_no_flags() -> None:
    with torch.device("meta"):
        state = GuidedUNet(PUBLISHED).state_dict()
    assert sum(value.numel() for value in state.values()) == 552_814_086
    flags = settle_flags(state)
    assert flags == PUBLISHED
    assert sum(value.numel() for value in convert(state, flags).parameters()) == 552_814_086
    assert unet_config(flags)["block_out_channels"] == (256, 256, 512, 512, 1024, 1024)


def test_half_precision_weights_are_taken(small) -> None:
    network = convert({name: value.half() for name, value in small.items()}, SMALL)
    assert {value.dtype for value in network.parameters()} == {torch.float32}
    assert torch.equal(network.conv_in.weight, small["input_blocks.0.0.weight"].half().float())


def test_float32_weights_are_not_copied(small) -> None:
    network = convert(small, SMALL)
    assert network.conv_in.weight.data_ptr() == small["input_blocks.0.0.weight"].data_ptr()


@pytest.mark.parametrize("new_order", [False, True], ids=["head by head", "new order"])
def test_rows_of_queries_keys_and_values(new_order: bool) -> None:
    flags = replace(SMALL, use_new_attention_order=new_order)
    heads, size = 2, flags.num_head_channels
    tags = torch.arange(3 * heads * size)
    q, k, v = split_qkv(tags, flags)
    assert [int(part[size]) for part in (q, k, v)] == ([16, 48, 80] if new_order else [48, 64, 80])  # of head 1


WRONG_FLAGS = {
    "num_channels": (64, "num_channels is stated as 64, but time_embed.0.weight says 32"),
    "num_res_blocks": (1, "num_res_blocks is stated as 1, but output_blocks.2.1.in_layers.2.weight says 2"),
    "channel_mult": ((1.0, 2.0, 2.0), r"channel_mult\[2\] × num_channels .* 64, but input_blocks.7.0.out_layers.3.*96"),
    "channel_mult, too short": ((1.0, 2.0), "number of levels in channel_mult is stated as 2, but .* says 3"),
    "attention_resolutions": (
        (8,),
        "attention_resolutions .* as 8, .* must not be a tensor input_blocks.4.1.qkv.weight",
    ),
    "attention_resolutions, one more": ((16, 8), "image_size 32 there must be a tensor input_blocks.7.1.qkv.weight"),
    "image_size": (64, "attention_resolutions is stated as 16, but with image_size 64 .* input_blocks.4.1.qkv.weight"),
    "image_size, none": (0, "image_size"),
    "image_size, odd": (33, "image_size is 33, which cannot be halved 2 times"),
    "num_head_channels": (48, "num_head_channels: heads of 48 channels do not divide the 64, 96 .* qkv.weight"),
    "learn_sigma": (False, "learn_sigma is stated as False, but out.2.weight says True"),
    "use_scale_shift_norm": (False, "use_scale_shift_norm .* but input_blocks.1.0.emb_layers.1.weight says True"),
    "resblock_updown": (False, "resblock_updown is stated as False, but input_blocks.3.0.op.weight says True"),
    "class_cond": (True, "class_cond: the network is told a class"),
    "predict_xstart": (True, "predict_xstart: .* only those that predict the noise"),
    "diffusion_steps": (0, "diffusion_steps is 0"),
}


@pytest.mark.parametrize("case", WRONG_FLAGS)
def test_a_wrong_flag_is_named_with_its_tensor(small, case: str) -> None:
    value, message = WRONG_FLAGS[case]
    with pytest.raises(BadInput, match=message):
        settle_flags(small, stated(SMALL, **{case.split(",")[0]: value}))


@pytest.mark.parametrize("name", ["time_embed.0.weight", "input_blocks.0.0.weight", "out.2.weight"])
@pytest.mark.parametrize("shape", [(), (128,), (0, 0), (128, 0, 3, 3)])
def test_a_tensor_of_any_shape_is_refused_and_nothing_worse(small, name: str, shape: tuple[int, ...]) -> None:
    small[name] = torch.zeros(shape)
    with pytest.raises(BadInput):
        convert(small, settle_flags(small, StatedFlags(image_size=32, num_head_channels=16)))


def test_times_may_be_rescaled_by_one_only(small) -> None:
    assert settle_flags(small, stated(SMALL, rescale_timesteps=True)) == SMALL
    with pytest.raises(BadInput, match="rescale_timesteps: .* diffusion_steps 1000 only"):
        settle_flags(small, stated(SMALL, rescale_timesteps=True, diffusion_steps=4000))


def test_heads_may_be_counted_where_all_are_alike() -> None:
    flags = replace(SMALL, channel_mult=(1, 2, 2))
    counted = stated(flags, num_head_channels=-1, num_heads=4)
    assert settle_flags(oracle(flags).state_dict(), counted) == flags
    with pytest.raises(BadInput, match="num_heads is 4 without num_head_channels, over 64, 96 channels"):
        settle_flags(oracle(SMALL).state_dict(), stated(SMALL, num_head_channels=-1, num_heads=4))
    with pytest.raises(BadInput, match="num_heads is 4 .* different sizes"):
        settle_flags(oracle(flags).state_dict(), replace(counted, num_heads_upsample=2))


def test_what_shapes_cannot_tell_must_be_stated(small) -> None:
    with pytest.raises(BadInput, match="image_size cannot be told .* --unet-config"):
        settle_flags(small)
    with pytest.raises(BadInput, match="heads of 64 channels do not divide the 64, 96 .* state num_head_channels"):
        settle_flags(small, StatedFlags(image_size=32))


FAULTS: dict[str, tuple[Callable[[State], object], str]] = {
    "missing": (
        lambda s: s.pop("middle_block.0.in_layers.0.bias"),
        "1 tensors missing: middle_block.0.in_layers.0.bias",
    ),
    "left over": (lambda s: s.update(more=torch.zeros(1)), "1 tensors unexpected: more"),
    "of another shape": (
        lambda s: s.update({"out.0.bias": torch.zeros(5)}),
        r"of another shape .*: out.0.bias \(5,\) instead of \(32,\)",
    ),
    "whole numbers": (
        lambda s: s.update({"out.0.bias": torch.zeros(32, dtype=torch.int64)}),
        "not floating-point .*out.0",
    ),
    "not a number": (lambda s: s["out.2.bias"].fill_(torch.nan), "1 tensors not finite: out.2.bias"),
    "no time": (lambda s: s.pop("time_embed.0.weight"), "has no tensor time_embed.0.weight"),
    "a scalar": (lambda s: s.update({"out.2.weight": torch.tensor(1.0)}), "learn_sigma .* out.2.weight says False"),
    "classes": (lambda s: s.update({"label_emb.weight": torch.zeros(1000, 128)}), "class_cond: .*label_emb.weight"),
    "a classifier": (
        lambda s: [s.pop(name) for name in list(s) if name.startswith("output_blocks.")],
        "no output_blocks, so it is a classifier",
    ),
    "super-resolution": (
        lambda s: s.update({"input_blocks.0.0.weight": torch.zeros(32, 6, 3, 3)}),
        "input_blocks.0.0.weight: .* more than a picture",
    ),
    "no index": (lambda s: s.update({"input_blocks.x": torch.zeros(1)}), "unexpected: input_blocks.x"),
    "a huge index": (
        lambda s: s.update({"input_blocks.999999999.0.x": torch.zeros(1)}),
        "has input_blocks.999999999 but only .* tensors",
    ),
    "no channels": (lambda s: s.update({"time_embed.0.weight": torch.zeros(128)}), "time_embed.0.weight says 0"),
    "a half first level": (
        lambda s: s.update({"time_embed.0.weight": torch.zeros(128, 64)}),
        "num_channels .* time_embed.0.weight says 64",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_faulty_state_dict_is_refused(small, case: str) -> None:
    damage, message = FAULTS[case]
    damage(small)
    with pytest.raises(BadInput, match=message):
        convert(small, settle_flags(small, stated(SMALL)))


def test_a_first_level_unlike_num_channels_is_refused() -> None:
    with pytest.raises(BadInput, match="channel_mult begins with 0.5"):
        replace(PUBLISHED, image_size=512, channel_mult=(0.5, 1, 1, 2, 2, 4, 4))

"""The reference arrays of Diff-CF, and the network they were made with."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="session")
def diffcf() -> Path:
    """The folder of reference arrays; without it the test is skipped, or fails where it is required (CI)."""
    folder = Path(os.environ.get("UFLOW_EDGE_REFERENCE", ROOT.parent / "shared" / "reference")) / "diffcf"
    if not folder.is_dir():
        if os.environ.get("UFLOW_EDGE_REQUIRE_REFERENCE"):
            pytest.fail(f"the reference arrays are required, but {folder} does not exist")
        pytest.skip(f"no reference arrays in {folder}")
    return folder


@pytest.fixture(scope="session")
def arrays(diffcf: Path) -> Callable[[str], Arrays]:
    """Read one of its files."""
    return lambda name: dict(np.load(diffcf / f"{name}.npz"))


@pytest.fixture(scope="session")
def predict(diffcf: Path):
    """The reference network as a `NoisePredictor`, in torch."""
    import torch

    network = reference_network(diffcf / "unet.pt")

    def run(sample: np.ndarray, timestep: np.ndarray) -> tuple[np.ndarray, ...]:
        assert sample.dtype == timestep.dtype == np.float32
        with torch.inference_mode():
            output = network(torch.from_numpy(sample), torch.from_numpy(timestep)).sample.numpy()
        return output[:, :3], output[:, 3:]

    return run


def reference_network(path: Path):
    """guided-diffusion's state dict in diffusers' UNet."""
    import torch
    from diffusers import UNet2DModel

    network = UNet2DModel(
        sample_size=64,
        in_channels=3,
        out_channels=6,
        layers_per_block=1,
        block_out_channels=(32, 32, 64, 64),
        down_block_types=("ResnetDownsampleBlock2D", *["AttnDownBlock2D"] * 3),
        up_block_types=(*["AttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"),
        downsample_type="resnet",
        upsample_type="resnet",
        attention_head_dim=16,
        norm_num_groups=32,
        attn_norm_num_groups=32,
        norm_eps=1e-5,
        resnet_time_scale_shift="scale_shift",
        flip_sin_to_cos=True,
        freq_shift=0,
    )
    state = torch.load(path, weights_only=True)
    network.load_state_dict(dict(pair for name, tensor in state.items() for pair in renamed(name, tensor)))
    return network.eval()


# In the order of guided-diffusion's flat lists of blocks; one residual block a level, two on the way up.
BLOCKS = {"input_blocks.0.0": "conv_in", "middle_block.0": "mid_block.resnets.0"}
BLOCKS |= {"middle_block.1": "mid_block.attentions.0", "middle_block.2": "mid_block.resnets.1"}
BLOCKS |= {"time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2"}
BLOCKS |= {"out.0": "conv_norm_out", "out.2": "conv_out"}
for level in range(4):
    BLOCKS[f"input_blocks.{2 * level + 1}.0"] = f"down_blocks.{level}.resnets.0"
    BLOCKS[f"input_blocks.{2 * level + 1}.1"] = f"down_blocks.{level}.attentions.0"
    BLOCKS[f"input_blocks.{2 * level + 2}.0"] = f"down_blocks.{level}.downsamplers.0"
    for k in range(2):
        BLOCKS[f"output_blocks.{2 * level + k}.0"] = f"up_blocks.{level}.resnets.{k}"
        BLOCKS[f"output_blocks.{2 * level + k}.1"] = f"up_blocks.{level}.attentions.{k}"
    BLOCKS[f"output_blocks.{2 * level + 1}.2"] = f"up_blocks.{level}.upsamplers.0"
BLOCKS["output_blocks.7.1"] = "up_blocks.3.upsamplers.0"
LAYERS = {"in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2"}
LAYERS |= {"out_layers.3": "conv2", "skip_connection": "conv_shortcut", "norm": "group_norm", "proj_out": "to_out.0"}


def renamed(name: str, tensor):
    block, layer, kind = re.fullmatch(r"((?:\w+_blocks\.\d+|\w+)\.\d+)\.?(.*?)\.?(weight|bias)", name).groups()
    if layer == "qkv":
        for part, which in zip(tensor.reshape(-1, 3, 16, *tensor.shape[1:2]).unbind(1), "qkv", strict=True):
            yield f"{BLOCKS[block]}.to_{which}.{kind}", part.reshape(-1, *tensor.shape[1:2])
    else:
        target = ".".join(filter(None, [BLOCKS[block], LAYERS.get(layer, layer), kind]))
        yield target, tensor.squeeze(-1) if layer == "proj_out" else tensor

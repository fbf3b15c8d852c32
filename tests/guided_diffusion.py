"""guided-diffusion's UNet, with its parts named and ordered as by its authors, to compare converted networks with."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from uflow_edge.export.unet.flags import GuidedDiffusionFlags

State = dict[str, Tensor]

SMALL = GuidedDiffusionFlags(
    image_size=32,
    num_channels=32,
    num_res_blocks=2,
    channel_mult=(1, 2, 3),
    attention_levels=(1,),
    num_head_channels=16,
    learn_sigma=True,
    use_scale_shift_norm=True,
    resblock_updown=True,
)
PUBLISHED = GuidedDiffusionFlags(256, 256, 2, (1, 1, 2, 2, 4, 4), (3, 4, 5), 64, True, True, True)


class Residual(nn.Module):
    """guided-diffusion's block, written anew from the paper's appendix and the names in its state dicts."""

    def __init__(self, channels: int, result: int, flags: GuidedDiffusionFlags, resample: float = 1) -> None:
        super().__init__()
        rows = 2 * result if flags.use_scale_shift_norm else result
        self.in_layers = nn.Sequential(nn.GroupNorm(32, channels), nn.SiLU(), nn.Conv2d(channels, result, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(4 * flags.num_channels, rows))
        convolution = nn.Conv2d(result, result, 3, padding=1)
        self.out_layers = nn.Sequential(nn.GroupNorm(32, result), nn.SiLU(), nn.Dropout(0.1), convolution)
        self.skip_connection = nn.Identity() if channels == result else nn.Conv2d(channels, result, 1)
        self.resample, self.scale_shift = resample, flags.use_scale_shift_norm

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.in_layers[1](self.in_layers[0](x))
        h = self.in_layers[2](resampled(h, self.resample))
        moved = self.emb_layers(time)[:, :, None, None]
        if self.scale_shift:
            scale, shift = moved.chunk(2, 1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + moved)
        return self.skip_connection(resampled(x, self.resample)) + h


def resampled(x: Tensor, factor: float) -> Tensor:
    if factor < 1:
        return functional.avg_pool2d(x, 2)
    return functional.interpolate(x, scale_factor=2, mode="nearest") if factor > 1 else x


class Attention(nn.Module):
    def __init__(self, channels: int, flags: GuidedDiffusionFlags) -> None:
        super().__init__()
        self.norm, self.qkv = nn.GroupNorm(32, channels), nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out, self.flags = nn.Conv1d(channels, channels, 1), flags

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        n, c, h, w = x.shape
        size = self.flags.num_head_channels
        rows = self.qkv(self.norm(x).reshape(n, c, h * w))
        if self.flags.use_new_attention_order:  # all queries, all keys, all values
            q, k, v = (part.reshape(n, c // size, size, h * w) for part in rows.split(c, 1))
        else:  # head by head
            q, k, v = rows.reshape(n, c // size, 3 * size, h * w).split(size, 2)
        weight = torch.softmax(torch.einsum("nhct,nhcs->nhts", q, k) / size**0.5, -1)
        mixed = torch.einsum("nhts,nhcs->nhct", weight, v).reshape(n, c, h * w)
        return x + self.proj_out(mixed).reshape(n, c, h, w)


class Down(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.op(x)


class Up(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.conv(resampled(x, 2))


class First(nn.Conv2d):
    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return super().forward(x)


class Chain(nn.Sequential):
    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        for part in self:
            x = part(x, time)
        return x


class GuidedUNet(nn.Module):
    """The oracle: what the tests hold conversions against. It is itself held against the authors' numbers below."""

    def __init__(self, flags: GuidedDiffusionFlags) -> None:
        super().__init__()
        width, last = flags.num_channels, len(flags.channel_mult) - 1
        self.width = width
        self.time_embed = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))
        self.input_blocks = nn.ModuleList([Chain(First(flags.image_channels, width, 3, padding=1))])
        kept, channels = [width], width
        for level, result in enumerate(flags.level_channels):
            for _ in range(flags.num_res_blocks):
                parts = [Residual(channels, result, flags)]
                parts += [Attention(result, flags)] if level in flags.attention_levels else []
                self.input_blocks.append(Chain(*parts))
                channels = result
                kept.append(channels)
            if level < last:
                smaller = Residual(channels, channels, flags, 0.5) if flags.resblock_updown else Down(channels)
                self.input_blocks.append(Chain(smaller))
                kept.append(channels)
        middle = (Residual(channels, channels, flags), Attention(channels, flags), Residual(channels, channels, flags))
        self.middle_block = Chain(*middle)
        self.output_blocks = nn.ModuleList()
        for level, result in reversed(list(enumerate(flags.level_channels))):
            for i in range(flags.num_res_blocks + 1):
                parts = [Residual(channels + kept.pop(), result, flags)]
                parts += [Attention(result, flags)] if level in flags.attention_levels else []
                if level and i == flags.num_res_blocks:
                    parts.append(Residual(result, result, flags, 2) if flags.resblock_updown else Up(result))
                self.output_blocks.append(Chain(*parts))
                channels = result
        outputs = flags.image_channels * (2 if flags.learn_sigma else 1)
        self.out = nn.Sequential(nn.GroupNorm(32, channels), nn.SiLU(), nn.Conv2d(channels, outputs, 3, padding=1))

    def forward(self, x: Tensor, steps: Tensor) -> Tensor:
        half = self.width // 2
        angles = steps[:, None] * torch.exp(-np.log(10000) * torch.arange(half) / half)
        time = self.time_embed(torch.cat([angles.cos(), angles.sin()], 1))
        kept = []
        for block in self.input_blocks:
            x = block(x, time)
            kept.append(x)
        x = self.middle_block(x, time)
        for block in self.output_blocks:
            x = block(torch.cat([x, kept.pop()], 1), time)
        return self.out(x)


def oracle(flags: GuidedDiffusionFlags) -> GuidedUNet:
    """A network with seeded weights, none at its initial value."""
    torch.manual_seed(0)
    network = GuidedUNet(flags)
    for value in network.parameters():
        value.data += 0.05 * torch.randn_like(value)
    return network.eval().requires_grad_(False)

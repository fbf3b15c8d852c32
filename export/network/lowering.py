"""The flow rewritten for inference: the same latents, without FrEIA, Jacobian, global affines and permutations.

A flow block applies a coupling, then one gain and one offset per channel, then a permutation. All but the coupling is
affine per channel, so it need not be computed: channels stay where they are, and their meaning is tracked as

    value = gain * stored + offset

one such `Affine` per channel, from where it enters the flow (the affine end of a feature normalisation) to where
it leaves it (a latent). Gains and offsets then fold into the weights that read the channel. Two readers cannot take an
offset: the product with exp(s) in the next coupling, and the energy. But every coupling's translation has a bias, and
so has the normalisation; "no offset here" is traced back to the last bias before it. What remains are the offsets that
3x3 convolutions read. No bias replaces those, for zeros are read beyond the border: they are added to the channels.

Only the order of the latents' channels is lost, which energies do not depend on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import FrEIA.framework as ff
import FrEIA.modules as fm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uflow_edge.export.network.architecture import Architecture, Coupling, upward_channels
from uflow_edge.export.network.channels import Affine, Selection

_SUBNET_SCALE = 0.1  # FrEIA multiplies the results of a subnet by it
_UPSAMPLING = 2


class LoweredCoupling(nn.Module):
    """An affine coupling (Dinh et al., Real NVP, eq. 7), or an additive one (NICE, eq. 10) if all scales are one."""

    offset: Tensor | None

    def __init__(
        self,
        passive: Selection,
        active: Selection,
        offset: Tensor | None,
        hidden: nn.Conv2d,
        output: nn.Conv2d,
        clamp: float | None,
    ) -> None:
        super().__init__()
        self.passive, self.active = passive, active
        self.register_buffer("offset", offset)  # of the passive channels, (C, 1, 1)
        # Log-scales and translations in one convolution, for two of half the width take onnxruntime 3 % longer.
        self.hidden, self.output = hidden, output
        self.clamp = clamp  # None: all scales are one, and the output is the translations alone

    def forward(self, stored: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape: passive channels first, then active ones."""
        passive, active = self.passive(stored), self.active(stored)
        output = self.output(F.relu(self.hidden(passive if self.offset is None else passive + self.offset)))
        if self.clamp is None:
            return torch.cat([passive, active + output], dim=1)
        log_scale, translation = output.chunk(2, dim=1)
        return torch.cat([passive, active * torch.exp(self.clamp * torch.tanh(log_scale)) + translation], dim=1)


class LoweredStage(nn.Module):
    """All couplings at one scale, then the channels that go up and those that stay as latents."""

    def __init__(self, couplings: Sequence[LoweredCoupling], upward: Sequence[int], latent: Sequence[int]) -> None:
        super().__init__()
        self.couplings = nn.Sequential(*couplings)
        self.upward = Selection(upward) if upward else None
        self.latent = Selection(latent)

    def forward(self, stored: Tensor) -> tuple[Tensor | None, Tensor]:
        """(N, C, H, W) to the upward channels, (N, C_up / 4, 2 H, 2 W) or None at the finest scale, and the latent."""
        stored = self.couplings(stored)
        if self.upward is None:
            return None, stored
        return F.pixel_shuffle(self.upward(stored), _UPSAMPLING), self.latent(stored)


class LoweredFlow(nn.Module):
    """Computes latents from features, like the GraphINN of `build_flow`, but in another order of their channels.

    Attributes:
        entering: how the features of each scale must be stored, finest first.
    """

    def __init__(self, flow: ff.GraphINN, architecture: Architecture) -> None:
        super().__init__()
        features, latents = architecture.features, architecture.latents
        blocks = [module for module in flow.module_list if isinstance(module, fm.AllInOneBlock)]
        stages, entering = [], []
        leaving = Affine.identity(latents[0].channels)
        # From the finest scale to the coarsest and, within each, from where latents leave to where features enter.
        for level, feature in enumerate(features):
            start = (len(features) - 1 - level) * architecture.flow_steps
            stage, required = _lower_stage(
                blocks[start : start + architecture.flow_steps],
                leaving,
                upward_channels(leaving.gain.numel()) if level > 0 else 0,
                architecture.coupling,
            )
            stages.append(stage)
            entering.append(required[: feature.channels])
            if level + 1 < len(features):
                upsampled = required[feature.channels :].repeat(_UPSAMPLING**2)
                leaving = Affine.join(upsampled, Affine.identity(latents[level + 1].channels))
        self.stages = nn.ModuleList(stages)
        self.entering = tuple(entering)

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        """Features (N, C_i, H_i, W_i), stored as `entering` says, to latents, both finest first."""
        latents: list[Tensor] = []
        upward = None
        for stage, feature in zip(reversed(self.stages), reversed(features), strict=True):
            stored = feature if upward is None else torch.cat([feature, upward], dim=1)
            upward, latent = stage(stored)
            latents.append(latent)
        return tuple(reversed(latents))


@torch.no_grad()
def lower_flow(flow: ff.GraphINN, architecture: Architecture) -> LoweredFlow:
    """Rewrite a flow of `build_flow`, with hard permutations, for inference; the original does not change."""
    return LoweredFlow(flow, architecture).eval().requires_grad_(False)


@dataclass(frozen=True, slots=True)
class _Routing:
    """Which channels a coupling takes, as FrEIA numbers them and where they are stored, in the order it reads them."""

    passive: list[int]
    active: list[int]
    passive_places: list[int]
    active_places: list[int]


def _lower_stage(
    blocks: Sequence[fm.AllInOneBlock], leaving: Affine, upward: int, coupling: Coupling
) -> tuple[LoweredStage, Affine]:
    """One stage, and what it requires of the channels that enter it, given what is required of those that leave."""
    layout = list(range(leaving.gain.numel()))  # the channels as FrEIA numbers them, in the order they are stored
    routings: list[_Routing | None] = []
    for block in blocks:
        moved = _destinations(block).tolist()
        if _is_identity(block):
            routings.append(None)
            layout = [moved[channel] for channel in layout]
            continue
        passive = [place for place, channel in enumerate(layout) if channel < block.splits[0]]
        active = [place for place, channel in enumerate(layout) if channel >= block.splits[0]]
        routings.append(_Routing([layout[p] for p in passive], [layout[p] for p in active], passive, active))
        layout = [moved[layout[place]] for place in passive + active]
    couplings = []
    required = leaving
    for block, routing in reversed(list(zip(blocks, routings, strict=True))):
        required = _before_permutation(block, required)
        if routing is not None:
            lowered, required = _lower_coupling(block, routing, required, coupling)
            couplings.append(lowered)
    places = [place for _, place in sorted(zip(layout, range(len(layout)), strict=True))]
    return LoweredStage(couplings[::-1], places[:upward], sorted(places[upward:])), required


def _is_identity(block: fm.AllInOneBlock) -> bool:
    """Whether the coupling changes nothing, as before the first step of a training."""
    return not any(bool(parameter.any()) for parameter in block.subnet[2].parameters())


def _before_permutation(block: fm.AllInOneBlock, leaving: Affine) -> Affine:
    """What a block requires of its channels after the coupling, before gains, offsets and the permutation."""
    gain = block.global_scale_activation(block.global_scale.double()).flatten()
    permuted = leaving[_destinations(block)]
    return Affine(permuted.gain / gain, (permuted.offset - block.global_offset.double().flatten()) / gain)


def _lower_coupling(
    block: fm.AllInOneBlock, routing: _Routing, coupled: Affine, coupling: Coupling
) -> tuple[LoweredCoupling, Affine]:
    entering = Affine(coupled.gain, coupled.offset.clone())
    entering.offset[routing.active] = 0  # exp(s) multiplies them: an offset there would cost an addition
    produced, read = coupled[torch.tensor(routing.active)], entering[torch.tensor(routing.passive)]

    reads, writes = block.subnet[0], block.subnet[2]
    pointwise = reads.kernel_size == (1, 1)
    hidden = reads.weight.double()[:, routing.passive] * read.gain.view(1, -1, 1, 1)
    bias, offset = reads.bias.double(), (read.offset / read.gain).view(-1, 1, 1)
    if pointwise:
        bias = F.conv2d(offset, hidden, bias).flatten()

    # What the subnet's outputs are stored as: log-scales over the clamp that the newer formula divides them by.
    scales = block.splits[1]
    additive = not (writes.weight[:scales].any() or writes.bias[:scales].any())
    numbers = torch.tensor(routing.active) - block.splits[0]
    stored, rows = produced, numbers + scales
    if not additive:
        divisor = coupling.clamp if coupling.formula == "clamp_tanh_ratio" else 1.0
        log_scale = Affine(torch.full_like(produced.gain, divisor), torch.zeros_like(produced.offset))
        stored, rows = Affine.join(log_scale, produced), torch.cat([numbers, rows])
    weight, shift = (_SUBNET_SCALE * values.double()[rows] for values in (writes.weight, writes.bias))
    lowered = LoweredCoupling(
        Selection(routing.passive_places),
        Selection(routing.active_places),
        None if pointwise else offset.float(),
        _convolution(hidden, bias),
        _convolution(weight / stored.gain.view(-1, 1, 1, 1), (shift - stored.offset) / stored.gain),
        None if additive else coupling.clamp,
    )
    return lowered, entering


def _destinations(block: fm.AllInOneBlock) -> Tensor:
    """Where the block's permutation sends each channel, (C,) int64."""
    return cast(Tensor, block.w_perm.flatten(1).argmax(dim=0))


def _convolution(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    channels_out, channels_in, side = weight.shape[:3]
    convolution = nn.Conv2d(channels_in, channels_out, side, padding="same")
    convolution.weight.data, cast(Tensor, convolution.bias).data = weight.float(), bias.float()
    return convolution

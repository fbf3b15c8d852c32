"""The channels of a lowered flow: what those that are stored mean, and which of them an operation reads."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Affine:
    """The meaning of stored channels: value = gain * stored + offset, (C,) float64 each."""

    gain: Tensor
    offset: Tensor

    @classmethod
    def identity(cls, channels: int) -> "Affine":
        """Channels that are stored as they are."""
        return cls(torch.ones(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64))

    @classmethod
    def join(cls, *parts: "Affine") -> "Affine":
        """All channels of all parts, in their order."""
        return cls(torch.cat([part.gain for part in parts]), torch.cat([part.offset for part in parts]))

    def __getitem__(self, channels: Tensor | slice) -> "Affine":
        return Affine(self.gain[channels], self.offset[channels])

    def repeat(self, times: int) -> "Affine":
        """Each channel repeated ``times`` times in a row."""
        return Affine(self.gain.repeat_interleave(times), self.offset.repeat_interleave(times))


class Selection(nn.Module):
    """Selects channels of a tensor, by a slice if they are neighbours."""

    indices: Tensor | None

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.start, self.length = channels[0], len(channels)
        neighbours = list(channels) == list(range(self.start, self.start + self.length))
        self.register_buffer("indices", None if neighbours else torch.tensor(channels))

    def forward(self, stored: Tensor) -> Tensor:
        """(N, C, H, W) to (N, length, H, W)."""
        if self.indices is None:
            return stored.narrow(1, self.start, self.length)
        return stored.index_select(1, self.indices)

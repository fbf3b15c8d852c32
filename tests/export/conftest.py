"""What the tests of checkpoints share."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from uflow_edge.export.network.architecture import Architecture
from uflow_edge.training.train import seeded_network

SMALL = Architecture("resnet18", 64, 2, (1, 2, 3), 1)


@pytest.fixture(scope="session")
def small_state() -> Callable[[Architecture], dict[str, Tensor]]:
    """The state dict of a network, under the authors' names, with every flow weight far from where it starts."""

    def make(architecture: Architecture = SMALL) -> dict[str, Tensor]:
        network = seeded_network(architecture, 3)
        random = torch.Generator().manual_seed(4)
        for name, value in network.flow.named_parameters():
            if "perm" not in name and "kernel" not in name:
                value.data += 0.3 * torch.randn(value.shape, generator=random)
        return {"model." + name: value for name, value in network.state_dict().items()}

    return make

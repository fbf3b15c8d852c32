"""What tests of studies must leave as it was."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def threads_of_torch() -> Iterator[None]:
    """Studies choose how many threads torch uses, and results depend on it in their last bits."""
    import torch

    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)

"""Networks without weights: their names and shapes at no cost, to compare with a checkpoint or to fill from one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_INITIALIZERS = {Tensor.uniform_, Tensor.normal_, Tensor.erfinv_, Tensor.mul_, Tensor.add_, Tensor.clamp_, Tensor.fill_}


class _WithoutInitialization(TorchFunctionMode):
    """Skips initialisation of tensors without data, which would take 20 seconds for `mcait`."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _INITIALIZERS and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def without_weights() -> Iterator[None]:
    """Modules created within have parameters and buffers of the right shape and type, but without data."""
    with torch.device("meta"), _WithoutInitialization():
        yield

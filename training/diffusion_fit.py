"""Fits a UNet to the noise in noisy patches (Ho et al., 2020, equation 14); the fit can be interrupted and resumed."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor

from uflow_edge.runtime.cli.interrupts import deferred_interrupts
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.numeric import FloatMap
from uflow_edge.training.diffusion_network import noised
from uflow_edge.training.diffusion_options import DiffusionOptions
from uflow_edge.training.diffusion_patches import Patches
from uflow_edge.training.progress import Progress
from uflow_edge.training.resume import read_state, write_state

HELD_OUT_PATCHES = 32
_WARM_UP = 50
_LARGEST_GRADIENT = 1.0
_HELD_OUT_DRAW = 1 << 32  # beyond any step


@dataclass(slots=True)
class _UNetState:
    step: int
    model: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Any]
    held_out: list[float]


def fit_unet(
    model: UNet2DModel,
    fit: Patches,
    held_out: Patches,
    options: DiffusionOptions,
    run: dict[str, Any],
    resume_file: Path,
    on_step: Callable[[Progress], None],
) -> tuple[float, ...]:
    """Train the model in place; at the end it holds the averaged weights.

    Args:
        model: on the device of the fit.
        fit, held_out: patches to learn from, and held-out patches.
        run: everything that decides the result; the state of another run is refused.
        resume_file: file for the state, written every ``report_every`` steps and on Ctrl-C.

    Returns:
        Mean squared error of the predicted noise at each evaluation on the held-out patches.

    Raises:
        BadInput: the state belongs to another run, or the fit diverges.
        KeyboardInterrupt: on Ctrl-C, after the state was saved.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=options.learning_rate)
    fresh = _UNetState(0, _copy(model), _copy(model), optimizer.state_dict(), [])
    state = read_state(resume_file, run, _UNetState) or fresh
    model.load_state_dict(state.model)
    optimizer.load_state_dict(state.optimizer)
    state.average = {name: value.to(model.device) for name, value in state.average.items()}
    with deferred_interrupts() as interrupted:
        while state.step < options.steps:
            loss = _train_step(model, optimizer, fit, options, state.step)
            state.step += 1
            if not math.isfinite(loss):
                raise BadInput(f"the loss is no longer finite after {state.step} steps; lower the learning rate")
            _average(state.average, model, min(options.average, state.step / (state.step + 10)))
            if state.step % options.report_every == 0 or state.step == options.steps:
                state.held_out.append(_held_out_loss(model, state.average, held_out, options))
                _save(resume_file, run, state, model, optimizer)
            held_out_loss = state.held_out[-1] if state.held_out else None
            on_step(Progress(state.step, options.steps, loss, held_out_loss))
            if interrupted():
                _save(resume_file, run, state, model, optimizer)
                raise KeyboardInterrupt
    model.load_state_dict(state.average)
    return tuple(state.held_out)


def _train_step(
    model: UNet2DModel, optimizer: torch.optim.Optimizer, fit: Patches, options: DiffusionOptions, step: int
) -> float:
    """Learn from patches and noise that depend only on seed and step; returns the loss."""
    random = np.random.default_rng((options.seed, step))
    for group in optimizer.param_groups:
        group["lr"] = options.learning_rate * _rate(step, options.steps)
    loss = _loss(model, fit.draw(options.batch_size, random), options.noisiest_step, random)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), _LARGEST_GRADIENT)
    optimizer.step()
    return float(loss.detach())


def _rate(step: int, steps: int) -> float:
    """Factor of the learning rate: linear warm-up, then a cosine."""
    return min((step + 1) / _WARM_UP, 1.0) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _loss(model: UNet2DModel, clean: FloatMap, noisiest_step: int, random: np.random.Generator) -> Tensor:
    steps = torch.from_numpy(random.integers(noisiest_step + 1, size=len(clean)))
    noisy, noise = noised(torch.from_numpy(clean), steps, random)
    noisy, steps, noise = (tensor.to(model.device) for tensor in (noisy, steps, noise))
    return F.mse_loss(model(noisy, steps).sample, noise)


def _held_out_loss(
    model: UNet2DModel, average: dict[str, Tensor], patches: Patches, options: DiffusionOptions
) -> float:
    """The loss of the averaged weights, with the same patches and noise at every evaluation."""
    trained = _copy(model)
    model.load_state_dict(average)
    random = np.random.default_rng((options.seed, _HELD_OUT_DRAW))
    with torch.no_grad():
        loss = _loss(model, patches.draw(HELD_OUT_PATCHES, random), options.noisiest_step, random)
    model.load_state_dict(trained)
    return float(loss)


def _average(average: dict[str, Tensor], model: UNet2DModel, kept: float) -> None:
    for name, value in model.state_dict().items():
        average[name].lerp_(value, 1 - kept)


def _copy(model: UNet2DModel) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _save(
    path: Path, run: dict[str, Any], state: _UNetState, model: UNet2DModel, optimizer: torch.optim.Optimizer
) -> None:
    state.model, state.optimizer = model.state_dict(), optimizer.state_dict()
    write_state(path, run, state)

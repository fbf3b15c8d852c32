"""Fits the flow by maximum likelihood (paper, section 3.2); can be interrupted, resumed and repeated."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from FrEIA.modules import AllInOneBlock
from torch import Tensor

from uflow_edge.export.network.uflow import UFlow
from uflow_edge.runtime.cli.interrupts import deferred_interrupts
from uflow_edge.runtime.errors import BadInput
from uflow_edge.training.features import Features
from uflow_edge.training.options import TrainingOptions
from uflow_edge.training.progress import Epoch, Progress
from uflow_edge.training.resume import read_state, write_state

WEIGHT_DECAY = 1e-5
FINAL_RATE = 0.4
"""Factor of the learning rate at the last step, reached linearly, as upstream does."""


@dataclass(slots=True)
class _FlowState:
    step: int
    flow: dict[str, Tensor]
    optimizer: dict[str, Any]
    best_flow: dict[str, Tensor]
    epochs: list[Epoch]
    loss: float  # of the epoch so far, summed over its images
    seconds: float  # that the epoch took so far

    def __post_init__(self) -> None:
        self.epochs = [Epoch(*row) for row in self.epochs]


@dataclass(frozen=True, slots=True)
class Fit:
    """The result of a fit; the network holds the weights of the best epoch.

    Attributes:
        epochs: what was measured before the first step, and after each epoch.
    """

    steps: int
    epochs: tuple[Epoch, ...]

    @property
    def best(self) -> Epoch:
        """The epoch whose weights were kept."""
        return self.epochs[self.epochs[-1].best]


def negative_log_likelihood(network: UFlow, features: tuple[Tensor, ...]) -> Tensor:
    """The negative log-likelihood of each image, (N,), in nats, without the constant of the normal law.

    Args:
        features: standardised features per scale, finest first.
    """
    latents, log_jacobian = network.latents(features, jac=True)
    energy = sum(z.square().sum(dim=(1, 2, 3)) for z in latents)
    return 0.5 * energy - log_jacobian


def standardized(network: UFlow, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Features of `Features.batch` as the flow takes them, on the network's device."""
    device = next(network.flow.parameters()).device
    extractor = network.feature_extractor
    return extractor.standardize(extractor.prepare([feature.to(device) for feature in features]))


def fit_flow(
    network: UFlow,
    fit: Features,
    held_out: Features,
    options: TrainingOptions,
    *,
    resume_file: Path,
    run: dict[str, Any],
    judge: Callable[[], float] | None = None,
    on_step: Callable[[Progress], None] = lambda progress: None,
    on_epoch: Callable[[Sequence[Epoch]], None] = lambda epochs: None,
) -> Fit:
    """Train the flow; the extractor and its standardisation do not change.

    The flow is judged before the first step and after every epoch, and ends with its best weights, which may be those
    before the first step. After every epoch, and on Ctrl-C, the state is written to ``resume_file``. A run that finds
    the file continues from there and ends with the same weights as without the interruption. The file stays, because
    the caller has not written the weights yet.

    Args:
        network: on the device of the fit; the flow's weights are changed in place.
        fit, held_out: features of the images to fit, and of held-out images.
        run: everything that decides the weights, the judge included; a resume file of another run is refused.
        judge: measures the network as it is at the call; lower is better. It must always give the same number for the
            same weights, and must not draw from global random states. By default, the negative log-likelihood of the
            held-out images, in nats per latent.
        on_epoch: called with all epochs so far when one ends.

    Raises:
        BadInput: the resume file belongs to another run, or the likelihood is no longer finite.
        KeyboardInterrupt: after the state was saved.
    """
    fitting = _Fitting(network, fit, held_out, options, resume_file, run)
    state = fitting.state

    def end_epoch() -> None:
        fitting.end_epoch(judge)
        on_epoch(state.epochs)

    with deferred_interrupts() as interrupted:
        if not state.epochs:
            end_epoch()
        while state.step < fitting.steps and state.epochs[-1].epoch - state.epochs[-1].best < options.patience:
            loss = fitting.take_step()
            if state.step % fitting.steps_per_epoch == 0:
                end_epoch()
            on_step(Progress(state.step, fitting.steps, loss, state.epochs[-1].held_out))
            if interrupted():
                fitting.save()
                raise KeyboardInterrupt
    network.flow.load_state_dict(state.best_flow)
    return Fit(state.step, tuple(state.epochs))


class _Fitting:
    """A fit between two steps."""

    def __init__(
        self,
        network: UFlow,
        fit: Features,
        held_out: Features,
        options: TrainingOptions,
        resume_file: Path,
        run: dict[str, Any],
    ) -> None:
        network.to(next(network.flow.parameters()).device)  # what standardisation has added, too
        if options.couplings == "additive":
            start_at_identity(network)
            hold_scales_at_one(network)
        parameters = [p for p in network.flow.parameters() if p.requires_grad]
        self._network, self._fit, self._held_out, self._options = network, fit, held_out, options
        self._resume_file, self._run = resume_file, run
        self._optimizer = torch.optim.Adam(parameters, lr=options.learning_rate, weight_decay=WEIGHT_DECAY)
        self.state = read_state(resume_file, run, _FlowState) or _initial_state(network, self._optimizer)
        network.flow.load_state_dict(self.state.flow)
        self._optimizer.load_state_dict(self.state.optimizer)
        self.steps_per_epoch = -(-len(fit) // options.batch_size)
        self.steps = self.steps_per_epoch * options.epochs
        self._latents = sum(scale.channels * scale.side**2 for scale in network.architecture.latents)
        self._started = time.perf_counter() - self.state.seconds

    def take_step(self) -> float:
        """Learn from the next batch; returns its loss."""
        state, options = self.state, self._options
        epoch, position = divmod(state.step, self.steps_per_epoch)
        order = np.random.default_rng((options.seed, epoch)).permutation(len(self._fit))
        indices = order[position * options.batch_size : (position + 1) * options.batch_size]
        for group in self._optimizer.param_groups:
            group["lr"] = options.learning_rate * (1 - (1 - FINAL_RATE) * state.step / self.steps)
        batch = standardized(self._network, self._fit.batch(indices, epoch))
        loss = negative_log_likelihood(self._network, batch).mean()
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        state.step += 1
        if not torch.isfinite(loss):
            raise BadInput(f"the likelihood is no longer finite after {state.step} steps; lower the learning rate")
        of_batch = float(loss.detach()) / self._latents
        state.loss += of_batch * len(indices)
        return of_batch

    def end_epoch(self, judge: Callable[[], float] | None) -> None:
        """Judge the weights, keep them if they are the best so far, and save the state."""
        state = self.state
        held_out = _mean_likelihood(self._network, self._held_out, self._options.batch_size) / self._latents
        judged = held_out if judge is None else judge()
        loss = state.loss / len(self._fit) if state.epochs else None
        number = best = len(state.epochs)
        if state.epochs and not judged < state.epochs[state.epochs[-1].best].judged:
            best = state.epochs[-1].best
        else:
            state.best_flow = _copy(self._network.flow.state_dict())
        now = time.perf_counter()
        state.epochs.append(Epoch(number, loss, held_out, judged, best, now - self._started))
        state.loss, self._started = 0.0, now
        self.save()

    def save(self) -> None:
        """Write the state, for a run that continues from here."""
        self.state.flow, self.state.optimizer = self._network.flow.state_dict(), self._optimizer.state_dict()
        self.state.seconds = time.perf_counter() - self._started
        write_state(self._resume_file, self._run, self.state)


def start_at_identity(network: UFlow) -> None:
    """Set the subnets' last convolutions to zero: the flow starts as the normal law of its standardised features.

    As in Kingma and Dhariwal, "Glow", 2018, section 3.3.
    """
    for block in network.flow.module_list:
        if isinstance(block, AllInOneBlock):
            for parameter in block.subnet[-1].parameters():
                parameter.data.zero_()


def hold_scales_at_one(network: UFlow) -> None:
    """Set the subnets' first half of outputs, the logarithms of the scales, to zero, and exclude it from training."""
    for block in network.flow.module_list:
        if isinstance(block, AllInOneBlock):
            last = block.subnet[-1]
            scales = last.out_channels // 2
            for parameter in (last.weight, last.bias):
                parameter.data[:scales] = 0
                parameter.register_hook(partial(_without_first, count=scales))


def _without_first(gradient: Tensor, count: int) -> Tensor:
    return torch.cat([torch.zeros_like(gradient[:count]), gradient[count:]])


def _mean_likelihood(network: UFlow, features: Features, batch_size: int) -> float:
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(features), batch_size):
            indices = np.arange(start, min(start + batch_size, len(features)))
            batch = standardized(network, features.batch(indices, epoch=0))
            total += float(negative_log_likelihood(network, batch).sum(dtype=torch.float64))
    return total / len(features)


def _copy(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in weights.items()}


def _initial_state(network: UFlow, optimizer: torch.optim.Optimizer) -> _FlowState:
    weights = _copy(network.flow.state_dict())
    return _FlowState(0, weights, optimizer.state_dict(), weights, [], 0.0, 0.0)

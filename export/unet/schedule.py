"""The noise schedule of a network, read from a ``scheduler_config.json`` of diffusers."""

from collections.abc import Mapping
from math import isclose
from pathlib import Path
from typing import Any

from uflow_edge.export.unet.flags import DEFAULT_STEPS, MOST_STEPS
from uflow_edge.export.wording import brief
from uflow_edge.runtime.bundle.unet import ScheduleName
from uflow_edge.runtime.errors import BadInput

_NAMES: Mapping[str, ScheduleName] = {"linear": "linear", "squaredcos_cap_v2": "cosine"}
_LINEAR = {"beta_start": 1e-4, "beta_end": 0.02}  # with 1000 steps; with fewer, larger in proportion
_LEARNED = "learned_range"
_SCHEDULERS = (
    *("DDPM", "DDPMParallel", "DDIM", "DDIMParallel", "DDIMInverse", "PNDM", "RePaint", "UniPCMultistep"),
    *("DPMSolverMultistep", "DPMSolverMultistepInverse", "DPMSolverSinglestep", "DPMSolverSDE", "DEISMultistep"),
    *("EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete"),
    *("LMSDiscrete", "SASolver"),
)
"""Schedulers that describe the noise in training in the same way and differ only in sampling."""

NOISIEST_STEP = "noisiest_step"
"""Our own entry: index of the last step that the network has learned, if it is not the schedule's last."""


def read_schedule(path: Path, config: Mapping[str, Any], learned_variance: bool) -> tuple[ScheduleName, int]:
    """The noise schedule and its number of steps.

    Args:
        learned_variance: whether the network returns a variance.

    Raises:
        BadInput: the schedule is another one, the network does not predict noise, or the file and the network disagree
            about the variance.
    """
    steps = config.get("num_train_timesteps", DEFAULT_STEPS)
    if not isinstance(steps, int) or isinstance(steps, bool) or not 1 <= steps <= MOST_STEPS:
        raise BadInput(
            f"{path}: num_train_timesteps is {brief(steps)}; expected a whole number above 0 and at most {MOST_STEPS}"
        )
    schedule = config.get("beta_schedule", "linear")
    name = _NAMES.get(schedule) if isinstance(schedule, str) else None
    variance = config.get(
        "variance_type"
    )  # schedulers other than DDPM's have none, and take no notice of the network's
    wrong = {
        "_class_name": config.get("_class_name", "DDPMScheduler") not in [f"{name}Scheduler" for name in _SCHEDULERS],
        "beta_schedule": name is None,
        "trained_betas": config.get("trained_betas") is not None,
        "rescale_betas_zero_snr": bool(config.get("rescale_betas_zero_snr")),
        "prediction_type": config.get("prediction_type", "epsilon") != "epsilon",
        "variance_type": (variance is not None and (variance == _LEARNED) != learned_variance) or variance == "learned",
    }
    if name == "linear":
        for bound, usual in _LINEAR.items():
            value = config.get(bound, usual)
            wrong[bound] = not isinstance(value, int | float) or not isclose(value, usual * 1000 / steps, rel_tol=1e-6)
    for flag, applies in wrong.items():
        if applies:
            raise BadInput(
                f"{path}: {flag} is {brief(config.get(flag))}; supported are schedulers such as DDPM "
                "and DDIM, the schedules linear (0.0001 to 0.02 at 1000 steps) and "
                f"squaredcos_cap_v2, prediction_type epsilon, and variance_type {_LEARNED} "
                "if and only if the network returns a variance"
            )
    assert name is not None
    return name, steps


def read_noisiest_step(path: Path, config: Mapping[str, Any], steps: int) -> int | None:
    """The last step that the network has learned; None if it has learned all.

    Raises:
        BadInput: the schedule has no such step.
    """
    found = config.get(NOISIEST_STEP)
    if found is None:
        return None
    if not isinstance(found, int) or isinstance(found, bool) or not 0 < found < steps:
        raise BadInput(f"{path}: {NOISIEST_STEP} is {brief(found)}; expected a whole number from 1 to {steps - 1}")
    return found

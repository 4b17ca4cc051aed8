"""The mathematics of schedulers, read off their state without changing it: noise level, stage, predicted x0."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["NoiseLevel", "noise_level", "predict_x0"]


@dataclass(frozen=True, slots=True)
class NoiseLevel:
    """Where a scheduler stands: the sample it was given is ``alpha * x0 + scale * noise``."""

    alpha: float
    scale: float
    sigma: float
    """The noise level as it is usually quoted: scale / alpha (Karras et al. 2022), by which schedulers of different
    families compare, and infinite for pure noise; for flow matching the scale itself, from 1 down to 0."""
    stage: int
    """1 in the second model evaluation of a two-stage solver, else 0."""


def noise_level(scheduler: Any, timestep: Any) -> NoiseLevel | None:  # noqa: PLR0911 — one line a family
    """The noise level of the sample a scheduler is about to step from, or None when it has no known schedule."""
    stage = 0 if getattr(scheduler, "state_in_first_order", True) else 1
    sigmas = getattr(scheduler, "sigmas", None)
    if isinstance(sigmas, Tensor):
        index = _index(scheduler, timestep)
        if index is None or not 0 <= index < len(sigmas):
            return None
        between = getattr(scheduler, "sigmas_interpol", None)  # KDPM2 evaluates its second stage between two levels
        if stage and isinstance(between, Tensor):
            is_ancestral = hasattr(scheduler, "sigmas_down")  # whose levels in between are counted from the one above
            sigma = float(between[index - 1] if is_ancestral else between[index])
        else:
            sigma = float(sigmas[index])
        if _is_flow(scheduler):
            return NoiseLevel(1 - sigma, sigma, sigma, stage)
        if hasattr(scheduler, "_sigma_to_alpha_sigma_t") and not _is_edm(
            scheduler
        ):  # DPM-Solver and kin keep the sample variance-preserving
            alpha = 1 / math.sqrt(1 + sigma**2)
            return NoiseLevel(alpha, sigma * alpha, sigma, stage)
        return NoiseLevel(1.0, sigma, sigma, stage)
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if isinstance(alphas, Tensor):
        at = _place(scheduler, int(timestep))
        if at < 0 and (cleanest := getattr(scheduler, "initial_alpha_cumprod", None)) is not None:
            signal = float(cleanest)
        elif 0 <= at < len(alphas):
            signal = float(alphas[at])
        else:
            return None
        ratio = math.sqrt((1 - signal) / signal) if signal else math.inf
        return NoiseLevel(math.sqrt(signal), math.sqrt(1 - signal), ratio, stage)
    return None


def predict_x0(scheduler: Any, level: NoiseLevel, model_output: Tensor, sample: Tensor) -> Tensor | None:
    """The clean sample that the model output implies.

    With ``x = alpha x0 + s eps`` (Kingma et al. 2021, eq. 1), and ``r² = alpha² + s²``, which is 1 unless the schedule
    lets the variance explode::

        epsilon      x0 = (x - s eps) / alpha
        v            x0 = (alpha x / r - s v) / r       (Salimans & Ho 2022, for the sample scaled to unit variance)
        flow         x0 = x - s u                       with u = eps - x0 (Lipman et al. 2023)
        sample       x0 = model output

    In schedulers that precondition as EDM does, with d the deviation of data, both signs of the second being in use::

        EDM          x0 = (d² x ± d s output r) / r²    with r² = s² + d² (Karras et al. 2022, eq. 7 and table 1)

    Returns:
        A tensor like `sample`, or None when the prediction type is unknown or the shapes do not fit.
    """
    if model_output.shape != sample.shape:
        if model_output.dim() > 1 and model_output.shape[1] == 2 * sample.shape[1]:  # learned variance
            model_output = model_output[:, : sample.shape[1]]
        else:
            return None
    kind = getattr(scheduler.config, "prediction_type", "flow" if _is_flow(scheduler) else None)
    sample, model_output = sample.float(), model_output.float()
    if _is_edm(scheduler):
        deviation, sign = scheduler.config.sigma_data, {"epsilon": 1, "v_prediction": -1}.get(kind or "", 0)
        size = math.hypot(level.scale, deviation)
        skip, out = (deviation / size) ** 2, sign * level.scale * deviation / size
        return skip * sample + out * model_output if sign else None
    if _is_flow(scheduler) or kind == "flow_prediction":
        return sample - level.scale * model_output
    if kind == "epsilon" and level.alpha:
        return (sample - level.scale * model_output) / level.alpha
    if kind == "v_prediction":
        size = math.hypot(level.alpha, level.scale)
        return (level.alpha * sample / size - level.scale * model_output) / size
    return model_output.clone() if kind == "sample" else None


def _is_edm(scheduler: Any) -> bool:
    return hasattr(scheduler, "precondition_outputs")


def _is_flow(scheduler: Any) -> bool:
    config = getattr(scheduler, "config", {})
    return (
        "FlowMatch" in type(scheduler).__name__
        or bool(config.get("use_flow_sigmas", False))
        or config.get("prediction_type") == "flow_prediction"
    )


def _place(scheduler: Any, timestep: int) -> int:
    """The place in `alphas_cumprod` of the sample given, which DDIM's inverse names by the level it goes up to."""
    if not hasattr(scheduler, "initial_alpha_cumprod"):
        return timestep
    count: int = scheduler.config.num_train_timesteps
    return int(min(timestep - count // scheduler.num_inference_steps, count - 1))


def _index(scheduler: Any, timestep: Any) -> int | None:
    """The position in `sigmas`, as the scheduler itself will find it on its first step."""
    index = getattr(scheduler, "step_index", None)
    if index is None:
        index = getattr(scheduler, "begin_index", None)
    if index is None and hasattr(scheduler, "index_for_timestep"):
        index = scheduler.index_for_timestep(timestep)
    elif index is None and isinstance(timesteps := getattr(scheduler, "timesteps", None), Tensor):
        places = (timesteps == timestep).nonzero()
        index = places[:2][-1] if len(places) else None  # of repeated timesteps the second, as all schedulers have it
    return None if index is None else int(index)

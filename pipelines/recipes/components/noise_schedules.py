"""Noise levels over the steps of every scheduler there is."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import diffusers
import numpy as np
import torch
from diffusers import EulerDiscreteScheduler

from diffusion_xray.tracer.schedule import NoiseLevel, noise_level

from ..figures import curves, new_figure
from ..lab import Lab
from ..latent_diffusion import require_unet
from ..option_types import Between

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["noise_schedules"]

_SPACINGS: dict[str, dict[str, Any]] = {
    "trailing": {"timestep_spacing": "trailing"},
    "leading": {"timestep_spacing": "leading"},
    "linspace": {"timestep_spacing": "linspace"},
    "Karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
}
"""Ways to spread the steps of a scheduler, as its configuration has them."""

_ON_THE_CURVE = 0.02
"""So far, relatively, σ may lie from the model's own at the same timestep; two-stage solvers interpolate otherwise."""


@torch.no_grad()
def noise_schedules(lab: Lab, *, steps: Annotated[int, Between(4, 50)] = 20) -> None:
    """Noise levels over the steps of every scheduler of diffusers.

    A model is trained with one noise schedule, ᾱ_t, the share of variance that is signal at timestep t. A scheduler
    chooses at which levels the model is asked on the way down; the level is quoted as noise over signal:

      σ² = (1 − ᾱ) / ᾱ

      Karras, Aittala, Aila, Laine 2022, Elucidating the Design Space of Diffusion-Based Generative Models, table 1
      (ᾱ_t = s(t)²); https://arxiv.org/abs/2206.00364. For flow matching, x = (1 − σ) x0 + σ ε: Lipman, Chen,
      Ben-Hamu, Nickel, Le 2023, Flow Matching for Generative Modeling, example II; https://arxiv.org/abs/2210.02747

    Every scheduler that can be told the model's betas, and those of flow matching, is stepped with a model that
    predicts nothing, and its level read off before each step. Most share one curve and differ in what they do on it;
    how the steps are spread (Karras, beta, ...) matters more than the scheduler's name. Two-stage solvers ask twice
    at a level or in between, inverse ones go up, RePaint jumps back.

    Left out are schedulers with noise levels of their own, such as those of EDM, of consistency models and of tokens
    that are masked. In the trace: records.sigma.NAME and records.alpha_bar.NAME, a number each step, so that the mean
    is the curve.

    Args:
        steps: Denoising steps asked for; PNDM has four at least, LCM fifty at most.
    """
    pipe = require_unet(lab.pipeline())
    config = pipe.scheduler.config
    courses: dict[str, list[tuple[float, NoiseLevel]]] = {}
    left_out: dict[str, list[str]] = {}
    for name in sorted(name for name in dir(diffusers) if name.endswith("Scheduler")):
        kind = getattr(diffusers, name)
        if reason := _why_not(kind):
            left_out.setdefault(reason, []).append(name)
        else:
            courses[name.removesuffix("Scheduler")] = _course(kind.from_config(config), steps)
    sigmas = {name: np.array([level.sigma for _, level in course]) for name, course in courses.items()}
    alpha_bars = {
        name: np.array([level.alpha**2 / (level.alpha**2 + level.scale**2) for _, level in course])
        for name, course in courses.items()
    }

    with lab.trace(pipe, capture="statistics") as tracer:
        for step in range(2 * steps):  # two-stage solvers need as many; RePaint, which needs more, is cut off
            tracer.step(step)
            for name in courses:
                if step < len(sigmas[name]):
                    tracer.record(f"sigma.{name}", torch.tensor(sigmas[name][step : step + 1]))
                    tracer.record(f"alpha_bar.{name}", torch.tensor(alpha_bars[name][step : step + 1]))

    trained = pipe.scheduler.alphas_cumprod.double().numpy()
    flow = {name for name in courses if name.startswith("FlowMatch")}
    moved = {name: _distance(course, trained) for name, course in courses.items() if name not in flow}
    own = {name for name, distance in moved.items() if distance > _ON_THE_CURVE}
    falling = [name for name, values in sigmas.items() if (values[1:] <= 1.0001 * values[:-1]).all()]
    rising = [name for name, values in sigmas.items() if (values[1:] >= values[:-1]).all()]
    lab.found("schedulers", len(courses))
    lab.found("left out", sum(map(len, left_out.values())))
    lab.found("never go up", len(falling))
    lab.found("never go down: inverse ones", len(rising))
    lab.found("follow the model's own curve", len(moved) - len(own))
    lab.found("largest distance of these from it", max(moved[name] for name in moved.keys() - own))

    spread = {
        name: [level.sigma for _, level in _course(EulerDiscreteScheduler.from_config(config, **how), steps)]
        for name, how in _SPACINGS.items()
    }
    lab.figure(
        "overview",
        _overview(trained, {name: sigmas[name] for name in falling if name not in flow | own}, spread),
        "Left: what the model was trained with. Middle: the levels at which schedulers ask it, most of them the same; "
        "two-stage solvers ask twice as often, PNDM more often at first. Right: one scheduler, its steps spread "
        "otherwise, which changes more.",
    )
    reasons = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in left_out.items())
    lab.figure(
        "schedulers",
        _one_each(sigmas, alpha_bars),
        "Every scheduler: σ in front of each step in blue, on a logarithmic scale (for flow matching the share of "
        f"noise), ᾱ in red, from 0 at the bottom to 1 at the top. Moved away from the model's own curve: "
        f"{', '.join(sorted(own)) or 'none'}. Left out: {reasons}.",
    )


def _why_not(kind: Any) -> str:
    """Why a scheduler cannot be told the model's noise schedule; "" where it can."""
    if lacking := [name for name in getattr(kind, "_backends", ()) if importlib.util.find_spec(name) is None]:
        return f"needs {' and '.join(lacking)}"  # diffusers has a stand-in of that name then
    is_told = "beta_start" in inspect.signature(kind.__init__).parameters
    return "" if is_told or kind.__name__.startswith("FlowMatch") else "has noise levels of its own"


def _course(scheduler: Any, steps: int) -> list[tuple[float, NoiseLevel]]:
    """Timestep and noise level in front of each step of a loop whose model predicts nothing."""
    scheduler.set_timesteps(steps)
    sample = torch.zeros(1, 4, 2, 2)
    course = []
    with torch.random.fork_rng(devices=[]):  # some add noise
        for t in scheduler.timesteps:
            level = noise_level(scheduler, t)
            assert level is not None, f"{type(scheduler).__name__} has betas or sigmas"
            course.append((float(t), level))
            if hasattr(scheduler, "sigmas"):  # counts its steps, some of two stages; others go by the timestep alone
                if hasattr(scheduler, "scale_model_input"):
                    sample = scheduler.scale_model_input(sample, t)
                sample = scheduler.step(torch.zeros_like(sample), t, sample).prev_sample
    return course


def _distance(course: Sequence[tuple[float, NoiseLevel]], alpha_bars: Any) -> float:
    """How far σ is from that of the model's training at the same timestep, relatively, at most."""
    trained = np.sqrt((1 - alpha_bars) / alpha_bars)
    expected = np.interp([t for t, _ in course], np.arange(len(trained)), trained)
    return float(np.abs(np.array([level.sigma for _, level in course]) / expected - 1).max())


def _overview(trained: Any, sigmas: Mapping[str, Any], spread: Mapping[str, Any]) -> Figure:
    """What the model was trained with, where the schedulers ask it, and how their steps can be spread."""
    figure, axes = new_figure(1, 3, size=(12.0, 3.8))
    t = np.arange(len(trained))
    lines: dict[str, Any] = {"ᾱ, signal": (t, trained), "1 − ᾱ, noise": (t, 1 - trained)}
    curves(lines, x_label="timestep t", y_label="share of variance", title="training", axes=axes[0, 0])
    alike: dict[tuple[Any, ...], list[str]] = {}
    for name in sorted(sigmas, key=len):
        alike.setdefault(tuple(sigmas[name].round(4)), []).append(name)
    lines = {
        names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else ""): (np.arange(len(values)), values)
        for values, names in sorted(alike.items(), key=lambda it: -len(it[1]))
    }
    curves(lines, x_label="step", y_label="σ", title="schedulers", logarithmic=True, axes=axes[0, 1])
    lines = {name: (np.arange(len(values)), values) for name, values in spread.items()}
    curves(lines, x_label="step", y_label="σ", title="Euler, steps spread", logarithmic=True, axes=axes[0, 2])
    return figure


def _one_each(sigmas: Mapping[str, Any], alpha_bars: Mapping[str, Any]) -> Figure:
    """A small plot for each scheduler."""
    columns = 6
    rows = -(-len(sigmas) // columns)
    figure, axes = new_figure(rows, columns, size=(1.9 * columns, 1.35 * rows))
    for axis in axes.flat[len(sigmas) :]:
        axis.axis("off")
    for axis, name in zip(axes.flat, sorted(sigmas, key=str.lower), strict=False):
        axis.plot(sigmas[name], color="#0969da", marker=".", markersize=3, linewidth=1)
        axis.plot(alpha_bars[name], color="#cf222e", linewidth=1, transform=axis.get_xaxis_transform())
        axis.set_yscale("log")
        axis.set_title(name, fontsize=7)
        axis.tick_params(labelsize=6)
        axis.minorticks_off()
    return figure

"""The linear multistep method on the probability-flow ODE, the loop written out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from diffusers import LMSDiscreteScheduler
from numpy.polynomial import Polynomial
from numpy.typing import NDArray
from torch import Tensor

from ..figures import new_figure, picture_grid
from ..lab import Lab
from ..latent_diffusion import decode, encode_prompts, noise_and_x0, predict, require_unet, starting_noise
from ..option_types import Steps

__all__ = ["coefficients", "lms"]

_ORDER = 4


@torch.no_grad()
def lms(
    lab: Lab,
    *,
    prompt: str = "a red circle left of a blue square on white",
    steps: Steps = 25,
    guidance: float = 3.0,
    seed: int = 0,
    compared: tuple[Steps, ...] = (8, 16, 32, 64),
    exact: Steps = 200,
) -> None:
    """LMS: the same ODE as Euler, with a memory of four directions.

    Euler goes straight on in the direction it has now. A linear multistep method draws the polynomial through the
    last directions d and integrates it up to the next noise level, which costs no further call of the UNet:

      x ← x + Σ_j c_j d_j          c_j = ∫ from σ to σ' of Π_k≠j (τ − σ_k) / (σ_j − σ_k) dτ

      the Adams-Bashforth method for uneven steps, as sample_lms of k-diffusion (Katherine Crowson 2022) has it. On
      multistep methods for diffusion: Liu, Ren, Lin, Zhao 2022, Pseudo Numerical Methods for Diffusion Models on
      Manifolds; https://arxiv.org/abs/2202.09778. The ODE: dxray run euler --help.

    records.coefficients are the c_j of each step, newest first: their sum is the step σ' − σ, and those of older
    directions have alternating signs. The second figure has the error against a run of very many steps.

    Args:
        prompt: What to draw.
        steps: Denoising steps.
        guidance: Guidance scale; compared with diffusers from 1 on, below which it has none.
        seed: Of the starting noise.
        compared: Numbers of steps for which methods of order 1 (Euler) to 4 are compared.
        exact: Steps of the run that counts as the exact solution.
    """
    pipe = require_unet(lab.pipeline())
    pipe.scheduler = LMSDiscreteScheduler.from_config(pipe.scheduler.config)
    pipe.scheduler.set_timesteps(steps)
    timesteps, sigmas = pipe.scheduler.timesteps, pipe.scheduler.sigmas  # one more σ than t: the last is 0
    start = starting_noise(pipe, 1, lab.generator(seed))
    x = start.float() * pipe.scheduler.init_noise_sigma
    film, derivatives = [], list[Tensor]()

    with lab.trace(pipe) as tracer:
        condition, unconditional = encode_prompts(pipe, prompt), encode_prompts(pipe, "")
        for step, t in enumerate(lab.progress(timesteps, "lms")):
            sigma = sigmas[step]
            tracer.step(step, timestep=t, sigma=sigma)
            scaled = (x / (sigma**2 + 1).sqrt()).to(start.dtype)
            prediction = predict(pipe, scaled, t, condition, unconditional=unconditional, guidance=guidance)
            _, denoised = noise_and_x0(pipe, prediction.float(), scaled.float(), 1 / (sigma**2 + 1))
            derivatives = [(x - denoised) / sigma, *derivatives][:_ORDER]  # newest first
            weights = coefficients(sigmas, step, len(derivatives))
            following = x + sum(weight * derivative for weight, derivative in zip(weights, derivatives, strict=True))
            tracer.record_latents(x, model_output=prediction, next_latents=following, x0=denoised)
            tracer.record("unet_input", scaled)
            tracer.record("derivative", derivatives[0])
            tracer.record("coefficients", torch.tensor(weights + [0.0] * (_ORDER - len(weights))))
            film.append((scaled, denoised))
            x = following
        tracer.step(None)
        tracer.record_images(decode(pipe, x))

    if guidance >= 1:  # below, diffusers draws without guidance
        options = {"guidance_scale": guidance, "output_type": "latent"}
        theirs = pipe(prompt, num_inference_steps=steps, latents=start, **options).images
        lab.found("largest difference to diffusers' latents", float((x - theirs).abs().max()))
    shown = sorted({round(place * (steps - 1) / 7) for place in range(8)})
    figure = picture_grid(
        [[decode(pipe, film[step][row].to(start.dtype))[0] for step in shown] for row in (0, 1)],
        row_titles=["x / sqrt(σ² + 1)", "D(x; σ)"],
        column_titles=[f"σ = {float(sigmas[step]):.3g}" for step in shown],
    )
    lab.figure("film", figure, "What the UNet is given above, and the denoised picture D(x; σ) at which it aims below.")

    table = (1 / pipe.scheduler.alphas_cumprod - 1).sqrt().log().numpy()  # log σ of t = 0, 1, 2, ...

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        t = float(np.interp(float(sigma.log()), table, range(len(table))))
        scaled = (x / (sigma**2 + 1).sqrt()).to(start.dtype)
        prediction = predict(pipe, scaled, t, condition, unconditional=unconditional, guidance=guidance)
        return noise_and_x0(pipe, prediction.float(), scaled.float(), 1 / (sigma**2 + 1))[1]

    solution = _solve(denoise, start, _spaced(table, exact), _ORDER)
    errors = {}
    for order in lab.progress(range(1, _ORDER + 1), "orders"):
        found = [_solve(denoise, start, _spaced(table, count), order) for count in compared]
        errors[order] = [100 * float((latents - solution).norm() / solution.norm()) for latents in found]
        for count, error in zip(compared, errors[order], strict=True):
            lab.found(f"error of order {order} in {count} steps", error, "%")
    figure, axes = new_figure(size=(5.6, 3.6))
    for order, values in errors.items():
        name = "order 1, Euler" if order == 1 else f"order {order}"
        axes[0, 0].loglog(compared, values, "o-", label=name, linewidth=1.6, markersize=4)
    axes[0, 0].set_xticks(compared, map(str, compared))
    ticks = (0.1, 0.2, 0.5, 1, 2, 5, 10)
    axes[0, 0].set_yticks(ticks, map(str, ticks))
    axes[0, 0].minorticks_off()
    axes[0, 0].set(xlabel="steps, each one call of the UNet", ylabel="error of the final latents, %")
    axes[0, 0].legend(fontsize=8, frameon=False)
    low, high = (bound(itertools.chain(*errors.values())) for bound in (min, max))
    axes[0, 0].set_ylim(low / 1.3, high * 1.3)
    lab.figure(
        "orders",
        figure,
        f"What a memory is worth: distance from the solution in {exact} steps. All runs have their noise levels spaced "
        "alike, from the largest of the schedule to its smallest (Karras et al. 2022, eq. 5).",
    )


def coefficients(sigmas: Tensor, step: int, order: int) -> list[float]:
    """Weights of the last `order` directions, newest first, for the step from ``sigmas[step]`` to the next.

    Each is the integral of a Lagrange polynomial, which is 1 at its own noise level and 0 at the others.
    """
    here = float(sigmas[step])
    nodes = [float(sigmas[step - back]) - here for back in range(order)]
    weights = []
    for own, node in enumerate(nodes):
        others = nodes[:own] + nodes[own + 1 :]
        basis = Polynomial.fromroots(others) if others else Polynomial([1.0])
        integral = basis.integ()  # from 0, which is here
        weights.append(float(integral(float(sigmas[step + 1]) - here) / basis(node)))
    return weights


def _spaced(table: NDArray[np.float32], steps: int) -> Tensor:
    """Noise levels of the whole schedule, spaced as Karras et al. 2022, eq. 5 with ρ = 7, has them."""
    low, high = (math.exp(float(table[place]) / 7) for place in (0, -1))
    return torch.linspace(high, low, steps + 1, dtype=torch.float64) ** 7


def _solve(denoise: Callable[[Tensor, Tensor], Tensor], start: Tensor, sigmas: Tensor, order: int) -> Tensor:
    """The loop above, untraced, for any noise levels and any order."""
    x, derivatives = start.float() * float(sigmas[0]), list[Tensor]()
    for step, sigma in enumerate(sigmas[:-1].float()):
        derivatives = [(x - denoise(x, sigma)) / sigma, *derivatives][:order]
        weights = coefficients(sigmas, step, len(derivatives))
        x = x + sum(weight * derivative for weight, derivative in zip(weights, derivatives, strict=True))
    return x

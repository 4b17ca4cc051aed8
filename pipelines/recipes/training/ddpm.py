"""Denoising diffusion of pictures: the noise levels, the way to noise, and the way back.

Ho, Jain, Abbeel 2020, Denoising Diffusion Probabilistic Models; https://arxiv.org/abs/2006.11239
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_xray.tracer import Tracer

__all__ = ["cosine_alpha_bars", "draw", "noised"]


def cosine_alpha_bars(timesteps: int) -> Tensor:
    """ᾱ_t, the share of variance that is signal, of the timesteps 0 to `timesteps` − 1.

    Nichol, Dhariwal 2021, Improved Denoising Diffusion Probabilistic Models, eq. 17; https://arxiv.org/abs/2102.09672.
    The linear schedule of Ho et al. destroys small pictures too early. β is at most 0.999, as there.
    """
    t = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
    f = ((t + 0.008) / 1.008 * math.pi / 2).cos() ** 2
    betas = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    return (1 - betas).cumprod(0).float()


def noised(x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_t = sqrt(ᾱ_t) x0 + sqrt(1 − ᾱ_t) ε (Ho et al., eq. 4).

    Args:
        x0: Clean pictures (batch, 1, y, x) in [-1, 1].
        noise: ε, as `x0`.
        alpha_bar: ᾱ_t of each, (batch,).
    """
    alpha_bar = alpha_bar[:, None, None, None]
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise


@torch.no_grad()
def draw(
    predict: Callable[[Tensor, Tensor], Tensor],
    alpha_bars: Tensor,
    shape: tuple[int, ...],
    random: torch.Generator,
    tracer: Tracer | None = None,
) -> Tensor:
    """Draw pictures from noise (Ho et al., algorithm 2).

    A step samples from q(x_{t−1} | x_t, x0) with the x0 that the predicted noise implies (eq. 7 and 9), kept to the
    range that pictures have.

    Args:
        predict: The noise in x_t (batch, 1, y, x) at the times t / T (batch,).
        alpha_bars: Of all timesteps.
        shape: Of the pictures, (batch, 1, y, x).
        random: Of the starting noise and of that added at each step.
        tracer: Is told of every step.

    Returns:
        Pictures in [0, 1].
    """
    device = alpha_bars.device
    last = len(alpha_bars) - 1
    x = torch.randn(shape, generator=random).to(device)
    for t in range(last, -1, -1):
        if tracer is not None:
            tracer.step(last - t, timestep=t)
        before = alpha_bars[t - 1] if t else torch.ones_like(alpha_bars[0])
        alpha_bar = alpha_bars[t]
        alpha = alpha_bar / before
        noise = predict(x, torch.full(shape[:1], t / len(alpha_bars), device=device))
        x0 = ((x - (1 - alpha_bar).sqrt() * noise) / alpha_bar.sqrt()).clamp(-1, 1)
        mean = (before.sqrt() * (1 - alpha) * x0 + alpha.sqrt() * (1 - before) * x) / (1 - alpha_bar)
        spread = ((1 - before) / (1 - alpha_bar) * (1 - alpha)).sqrt()
        following = mean + spread * torch.randn(shape, generator=random).to(device)
        if tracer is not None:
            tracer.record_latents(x, model_output=noise, next_latents=following, x0=x0)
        x = following
    pictures = (x / 2 + 0.5).clamp(0, 1)
    if tracer is not None:
        tracer.step(None)
        tracer.record_images(pictures.expand(-1, 3, -1, -1))
    return pictures

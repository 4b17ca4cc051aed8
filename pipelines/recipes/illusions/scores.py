"""Which of several prompts does a picture show? The denoiser itself is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..latent_diffusion import encode_pictures, encode_prompts, noise_and_x0, predict

__all__ = ["prompt_errors"]


@torch.no_grad()
def prompt_errors(
    pipe: Any,
    pictures: Tensor,
    prompts: Sequence[str],
    generator: torch.Generator,
    *,
    timesteps: Sequence[int] = range(50, 1000, 100),
    draws: int = 2,
) -> Tensor:
    """How badly noisy copies of pictures are denoised under each prompt: the less, the better it describes them.

    Noise is added to the encoded picture and taken away again by the UNet, without guidance; all pictures and prompts
    are given the same noise:

      E_ε [ |ε̂(x_t, prompt) − ε|² + |x̂0(x_t, prompt) − x0|² ]

      Li et al. 2023, Your Diffusion Model is Secretly a Zero-Shot Classifier, https://arxiv.org/abs/2303.16203, where
      it is the first of the two terms alone; their sum is the error of the velocity, with which the timesteps at which
      a picture's layout is decided count no less than those at which its details are.

    Args:
        pipe: For its text encoder, UNet, VAE and scheduler.
        pictures: (picture, 3, height, width) in [0, 1].
        prompts: To choose from.
        generator: Of the noise.
        timesteps: How noisy the copies are.
        draws: Copies of each picture at each timestep.

    Returns:
        Mean squared errors (timestep, picture, prompt), float32 on the CPU.
    """
    x0 = encode_pictures(pipe, pictures)
    conditions = [encode_prompts(pipe, [prompt] * len(x0)) for prompt in prompts]
    errors = torch.zeros(len(timesteps), len(x0), len(prompts))
    for row, t in enumerate(timesteps):
        alpha_bar = pipe.scheduler.alphas_cumprod[t]
        for _ in range(draws):
            noise = torch.randn(x0.shape[1:], generator=generator).to(x0)
            latents = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise
            for column, condition in enumerate(conditions):
                found = noise_and_x0(pipe, predict(pipe, latents, t, condition), latents, alpha_bar)
                squares = (found[0] - noise).square() + (found[1] - x0).square()
                errors[row, :, column] += squares.float().mean(dim=(1, 2, 3)).cpu() / draws
    return errors

"""Noise levels, the way to noise, and the way back."""

from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from diffusion_xray.pipelines.recipes.training.ddpm import cosine_alpha_bars, draw, noised
from diffusion_xray.tracer import Tracer


def theirs(timesteps: int) -> DDPMScheduler:
    """The scheduler of diffusers with the same noise levels."""
    return DDPMScheduler(timesteps, beta_schedule="squaredcos_cap_v2", clip_sample=True)


def guess(x: Tensor, t: Tensor) -> Tensor:
    """Stands for a network: some prediction that depends on both."""
    return (x * (1 + t[:, None, None, None])).tanh()


def test_noise_levels() -> None:
    """They are those of diffusers, from nearly clean to nearly nothing but noise."""
    alpha_bars = cosine_alpha_bars(100)
    torch.testing.assert_close(alpha_bars, theirs(100).alphas_cumprod, rtol=1e-4, atol=1e-7)
    assert alpha_bars[0] > 0.999 and alpha_bars[-1] < 1e-6


def test_the_way_to_noise() -> None:
    """Pictures are noised as diffusers noises them, each to its own time."""
    random = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 3, 1, 8, 8, generator=random)
    t = torch.tensor([0, 50, 99])
    expected = theirs(100).add_noise(x0, noise, t)
    torch.testing.assert_close(noised(x0, noise, cosine_alpha_bars(100)[t]), expected, rtol=1e-4, atol=1e-5)


def test_the_way_back() -> None:
    """The steps are those of diffusers' scheduler with the same predictions and the same noise."""
    scheduler, random = theirs(20), torch.Generator().manual_seed(0)
    scheduler.set_timesteps(20)
    x = torch.randn(2, 1, 8, 8, generator=random)
    for t in scheduler.timesteps:
        x = scheduler.step(guess(x, torch.full((2,), int(t) / 20)), t, x, generator=random).prev_sample
    expected = (x / 2 + 0.5).clamp(0, 1)
    drawn = draw(guess, cosine_alpha_bars(20), (2, 1, 8, 8), torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn, expected, rtol=1e-4, atol=1e-4)


def test_who_knows_the_picture_draws_it() -> None:
    """With the noise there truly is in x_t as the prediction, the way back ends at the picture."""
    picture = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    alpha_bars = cosine_alpha_bars(50)

    def known(x: Tensor, t: Tensor) -> Tensor:
        alpha_bar = alpha_bars[(t * 50).round().long()][:, None, None, None]
        return (x - alpha_bar.sqrt() * (2 * picture - 1)) / (1 - alpha_bar).sqrt()

    drawn = draw(known, alpha_bars, (1, 1, 8, 8), torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn, picture, rtol=0, atol=1e-3)


def test_each_step_is_in_the_trace(tmp_path: Path) -> None:
    """Timesteps descend, each step begins where the last one ended, and the picture is there; drawing is the same."""

    class Network(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return guess(x, t)

    with Tracer(network := Network(), tmp_path / "run.zarr") as tracer:
        drawn = draw(network, cosine_alpha_bars(5), (2, 1, 8, 8), torch.Generator().manual_seed(0), tracer)
    assert torch.equal(drawn, draw(guess, cosine_alpha_bars(5), (2, 1, 8, 8), torch.Generator().manual_seed(0)))
    trace = tracer.trace
    assert trace.timestep.tolist() == [4, 3, 2, 1, 0]
    steps = trace.steps
    np.testing.assert_array_equal(steps["next_latents"].values[:-1], steps["latents"].values[1:])
    assert trace.images is not None and trace.images.shape == (2, 8, 8, 3)
    np.testing.assert_allclose(np.asarray(trace.images)[..., 0], drawn[:, 0].numpy(), atol=1 / 255)

"""How noisy each timestep is, and the steps of DDIM and DDPM from one to a less noisy one.

x_t = sqrt(ᾱ_t) x0 + sqrt(1 − ᾱ_t) ε, where ε is standard normal and ᾱ_t is the share of variance that is signal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diffusion_xray.tracer.errors import RecipeError

__all__ = ["Predicts", "Schedule", "Spacing"]

Predicts = Literal["epsilon", "v_prediction"]
Spacing = Literal["leading", "trailing"]


@dataclass(frozen=True)
class Schedule:
    """How much noise there is at each timestep that a model was trained for, and which of them are visited."""

    alpha_bars: Tensor
    """ᾱ_t, shape (timestep,), float32 on the CPU."""
    last_alpha_bar: Tensor
    """What DDIM arrives at."""
    predicts: Predicts = "epsilon"
    """The noise ε, or the velocity v = sqrt(ᾱ) ε − sqrt(1 − ᾱ) x0 (Salimans & Ho 2022)."""
    spacing: Spacing = "leading"
    """Whether the first or the last of each stretch of timesteps is visited (Lin et al. 2024, table 2)."""
    offset: int = 0
    """Added to the timesteps of "leading"."""

    def timesteps(self, steps: int) -> Tensor:
        """The timesteps visited, int64 (steps,), from noise to signal."""
        count = len(self.alpha_bars)
        if not 1 <= steps <= count:
            raise RecipeError(f"{steps} steps: this model was trained for 1 to {count}")
        if self.spacing == "trailing":
            return torch.arange(count, 0, -count / steps, dtype=torch.float64).round().long() - 1
        return torch.arange(steps).flip(0) * (count // steps) + self.offset

    def add_noise(self, x0: Tensor, noise: Tensor, t: int) -> Tensor:
        """x_t of clean latents."""
        alpha_bar = self.alpha_bars[t].to(x0.dtype)
        return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise

    def noise_and_x0(self, prediction: Tensor, latents: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """The two parts that the network takes x_t to be made of."""
        alpha_bar = self.alpha_bars[t]
        signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        if self.predicts == "epsilon":
            return prediction, (latents - noise * prediction) / signal
        return signal * prediction + noise * latents, signal * latents - noise * prediction

    def ddim(self, noise: Tensor, x0: Tensor, s: int) -> Tensor:
        """x_s for a lower noise level s (Song, Meng, Ermon 2021, eq. 12 with σ = 0); s < 0 is the end."""
        alpha_bar = self.alpha_bars[s] if s >= 0 else self.last_alpha_bar
        return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise

    def ddpm(self, latents: Tensor, x0: Tensor, t: int, s: int, z: Tensor) -> Tensor:
        """x_s drawn with the noise z from q(x_s | x_t, x0) (Ho, Jain, Abbeel 2020, eq. 6 and 7); s < 0 is the end."""
        alpha_bar_t = self.alpha_bars[t]
        alpha_bar_s = self.alpha_bars[s] if s >= 0 else torch.tensor(1.0)
        alpha = alpha_bar_t / alpha_bar_s
        x0_share = alpha_bar_s.sqrt() * (1 - alpha) / (1 - alpha_bar_t)
        latents_share = alpha.sqrt() * (1 - alpha_bar_s) / (1 - alpha_bar_t)
        deviation = ((1 - alpha_bar_s) / (1 - alpha_bar_t) * (1 - alpha)).sqrt()
        return x0_share * x0 + latents_share * latents + deviation * z

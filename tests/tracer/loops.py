"""Small pipelines whose loops differ in what a tracer has to find out."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

__all__ = ["Blind", "Coder", "Pipeline", "ddim"]


class Blind(nn.Module):
    """A denoiser that takes the time under a name that nobody knows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, hidden_states: Tensor, moment: Tensor | None = None) -> Tensor:
        """Predict the noise."""
        noise: Tensor = self.conv(hidden_states)
        return noise


class Coder(nn.Module):
    """Makes pictures of latents; called as a whole, as an encoder is, or through its decoder, as that of a VAE is."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.decoder = nn.Sequential(nn.Conv2d(3, 3, 1), nn.SiLU())

    def forward(self, picture: Tensor) -> Tensor:
        """Shrink it."""
        return picture * 0.5


def ddim(**options: Any) -> Any:
    """The scheduler of most loops here."""
    return DDIMScheduler(clip_sample=False, **options)


class Pipeline:
    """Parts, and a loop over them given as a function of the pipeline."""

    def __init__(self, loop: Callable[[Any], Any], **parts: Any) -> None:
        self.components = parts
        self._loop = loop
        for name, part in parts.items():
            setattr(self, name, part)

    @torch.no_grad()
    def __call__(self) -> Any:
        """Run the loop."""
        return self._loop(self)

    def denoise(
        self,
        model: Callable[[Tensor, Tensor], Tensor],
        *,
        timesteps: slice = slice(None),
        count: int = 4,
        after: Callable[[int, Tensor], Tensor | None] = lambda *_: None,
        schedulers: Sequence[Any] = (),
    ) -> Tensor:
        """The usual loop: latents after the last of the given timesteps.

        Args:
            model: Called with latents and timestep.
            timesteps: Those iterated over.
            count: Those prepared.
            after: Called after each step with its number and latents; may return others.
            schedulers: Further ones that step with the same prediction on latents of their own.
        """
        scheduler: Any = self.scheduler  # type: ignore[attr-defined]
        scheduler.set_timesteps(count)
        latents = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        others = [latents * 2 for _ in schedulers]
        for index, timestep in enumerate(scheduler.timesteps[timesteps]):
            noise = model(latents, timestep)
            latents = scheduler.step(noise, timestep, latents).prev_sample
            others = [
                other.step(noise, timestep, sample).prev_sample
                for other, sample in zip(schedulers, others, strict=True)
            ]
            changed = after(index, latents)
            latents = latents if changed is None else changed
        return latents

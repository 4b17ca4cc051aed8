"""The training loop that the autoencoder and the denoiser share: AdamW, averaged weights, checkpoints, progress."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

__all__ = ["Schedule", "generator_for", "train"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to train.

    The learning rate climbs linearly for the first `warmup` share of the steps, stays at `peak`, and falls as a half
    cosine to zero over the last `decay` share. Further cycles do the same in steps of their own, and each peaks at half
    of the one before.
    """

    steps: int
    peak: float
    warmup: float
    decay: float
    average: float
    """Decay of the exponential moving average of the weights; the averaged weights are what is shipped."""
    further: tuple[int, ...] = ()
    """Lengths in steps of further cycles."""

    @property
    def total(self) -> int:
        """Steps of all cycles together."""
        return self.steps + sum(self.further)

    def rate(self, step: int) -> float:
        """Learning rate of one step."""
        peak, length = self.peak, self.steps
        for following in self.further:
            if step < length:
                break
            step, peak, length = step - length, peak / 2, following
        left = min(1.0, (length - step) / max(length * self.decay, 1.0))
        return peak * min(1.0, (step + 1) / max(length * self.warmup, 1.0)) * 0.5 * (1 - math.cos(math.pi * left))


def generator_for(seed: int, step: int) -> torch.Generator:
    """The random numbers of one step, the same whether or not training was interrupted before it."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def train(
    model: nn.Module,
    loss: Callable[[int], Tensor],
    schedule: Schedule,
    checkpoint: Path,
    *,
    title: str,
    rates: Mapping[str, float] | None = None,
    save_every: int = 250,
) -> nn.Module:
    """Train `model` in place, resuming from `checkpoint` where it exists, and load the averaged weights at the end.

    Args:
        model: What is trained.
        loss: The loss of a step, a scalar tensor; must draw its randomness from `generator_for`.
        schedule: Number of steps and learning rate.
        checkpoint: File the state is saved to every `save_every` steps, atomically.
        title: Label of the progress bar.
        rates: Children of `model` that learn at a multiple of the schedule's rate.
        save_every: Steps between two checkpoints.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        multiple = (rates or {}).get(name.partition(".")[0], 1.0)
        groups.setdefault(multiple, []).append(parameter)
    parts = [{"params": parameters, "multiple": multiple} for multiple, parameters in groups.items()]
    optimizer = torch.optim.AdamW(parts, betas=(0.9, 0.99), weight_decay=0.01)
    average = {name: value.clone() for name, value in model.state_dict().items()}
    first, smooth = 0, math.nan
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, first, smooth = state["average"], state["step"], state["loss"]
    model.train()
    bar = tqdm(range(first, schedule.total), initial=first, total=schedule.total, desc=title, mininterval=1.0)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step) * group["multiple"]
        value = loss(step)
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        decay = min(schedule.average, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, weight in model.state_dict().items():
                average[name].lerp_(weight, 1 - decay) if weight.is_floating_point() else average[name].copy_(weight)
        smooth = value.item() if math.isnan(smooth) else 0.99 * smooth + 0.01 * value.item()
        bar.set_postfix(loss=f"{smooth:.4f}", refresh=False)
        if (step + 1) % save_every == 0 or step + 1 == schedule.total:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            state |= {"average": average, "step": step + 1, "loss": smooth}
            partial = checkpoint.with_suffix(".partial")
            torch.save(state, partial)
            partial.replace(checkpoint)
    model.load_state_dict(average)
    return model.eval()

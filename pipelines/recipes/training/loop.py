"""The loop in which a network learns, and what of it goes into a trace."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from diffusion_xray.tracer import Tracer

from ..lab import Lab

__all__ = ["Training"]

N = TypeVar("N", bound=nn.Module)

_LARGEST_GRADIENT = 1.0
_AVERAGED = 0.99


class Training(Generic[N]):
    """A network that learns, and of which every n-th step is traced.

    ::

        training = Training(network, steps=1000, rate=4e-3, every=40)
        with lab.trace({"unet": training.traced}) as tracer:
            for pictures, labels in training.steps(lab, batches, tracer):
                training.learn(some_loss(training(pictures), labels))

    AdamW, its rate rising to `rate` and falling to nothing (`OneCycleLR`; Smith & Topin 2018,
    https://arxiv.org/abs/1708.07120), gradients clipped to a norm of 1.

    A step of the trace is a traced step of the training, and its timestep is that step's number. Beside what the
    network's modules return it holds the records ``loss``; ``gradient.<layer>``, before clipping; and
    ``weight.<layer>``, which that loss is of. Their L2 norms and all other statistics are recorded with them.

    Args:
        network: What learns.
        steps: How long.
        rate: Highest learning rate.
        every: Trace each step whose number it divides, and the last.
        also: Trace these steps, too.
    """

    def __init__(self, network: N, *, steps: int, rate: float, every: int, also: tuple[int, ...] = ()) -> None:
        self.network = network
        self.traced = _twin(network)
        """The network once more, with the very same weights. Only this one is traced and it is called at traced steps
        only, so that those between cost nothing."""
        self.average = copy.deepcopy(network).requires_grad_(False)
        """Moving average of the network over the steps: what it has learned, without the jitter of the last steps."""
        self.losses: list[float] = []
        self.step = 0
        """Number of the step that the loop is at."""
        self._steps = steps
        self._chosen = {*range(0, steps, every), steps - 1, *also}
        self._tracer: Tracer | None = None
        self._bar: Any = None
        self._optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.99), fused=True)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, rate, total_steps=steps, cycle_momentum=False
        )

    def steps(
        self, lab: Lab, batches: Iterator[tuple[Tensor, Tensor]], tracer: Tracer | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """A batch for each step, a progress bar with the loss beside it.

        Args:
            lab: Shows the bar.
            batches: As many as there are steps, or more.
            tracer: Of `traced`; None is not to trace.
        """
        self._bar = lab.progress(range(self._steps), "training")
        index = 0
        for step, batch in zip(self._bar, batches, strict=False):
            self.step = step
            self._tracer = tracer if step in self._chosen else None
            if self._tracer is not None:
                self._tracer.step(index, timestep=step)
                index += 1
            yield batch

    def __call__(self, *args: Tensor) -> Tensor:
        """What the network makes of a batch."""
        made: Tensor = (self.network if self._tracer is None else self.traced)(*args)
        return made

    def record(self, **tensors: Tensor) -> None:
        """Put tensors into the trace, where this step is traced."""
        if self._tracer is not None:
            for name, tensor in tensors.items():
                self._tracer.record(name, tensor.detach())

    def learn(self, loss: Tensor) -> None:
        """Go down the gradient of a loss, a step."""
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self._tracer is not None:
            _record(self._tracer, self.network, loss)
        nn.utils.clip_grad_norm_(self.network.parameters(), _LARGEST_GRADIENT)
        self._optimizer.step()
        self._schedule.step()
        kept = min(_AVERAGED, (1 + self.step) / (10 + self.step))  # at first there is nothing worth to be kept
        with torch.no_grad():
            for mean, weight in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(weight, 1 - kept)
        self.losses.append(float(loss.detach()))
        self._bar.set_postfix(loss=f"{self.losses[-1]:.4f}", refresh=False)


def _twin(network: N) -> N:
    return copy.deepcopy(network, {id(weight): weight for weight in network.parameters()})


def _record(tracer: Tracer, network: nn.Module, loss: Tensor) -> None:
    tracer.record("loss", loss.detach())
    for name, module in network.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter):
            tracer.record(f"weight.{name}", weight.detach())
            if weight.grad is not None:
                tracer.record(f"gradient.{name}", weight.grad)

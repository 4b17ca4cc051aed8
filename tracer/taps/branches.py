"""Which branches of guidance the calls of one step are, told by what they were given and what was made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..attention.roles import CONDITIONAL, UNCONDITIONAL
from ..recording.batches import DenoiserCall, named
from ..recording.guidance_fit import conditional_part
from .given_texts import Seen

__all__ = ["are_doubtful", "branches_stepped", "by_result", "by_texts", "is_doubled"]


def by_texts(listed: Sequence[Seen], entries: int) -> list[DenoiserCall]:
    """Name the calls of one denoiser in one step by the texts they were given.

    Args:
        listed: The calls.
        entries: Of the batch of the latents, 0 where nobody said.
    """
    return named(_calls(listed, entries), _twins(listed))


def by_result(listed: Sequence[Seen], entries: int, latents: Tensor, guided: Tensor) -> list[DenoiserCall] | None:
    """Name them by what guidance made of their outputs, too; None where that does not tell.

    Args:
        listed: The calls.
        entries: Of the batch of the latents, 0 where nobody said.
        latents: What the loop works on.
        guided: What it makes the step with.
    """
    calls = _calls(listed, entries)
    chosen = _chosen(listed, calls, latents, guided)
    return None if chosen is None else named(calls, _twins(listed), chosen)


def branches_stepped(listed: Sequence[Seen], latents: Tensor, guided: Tensor) -> int:
    """How many copies of the same latents the loop works on, one for each branch; 1 where it works on one.

    A loop may repeat the result of guidance for all branches, and make the step with the whole batch. That is proven
    where all copies are alike to the bit, before the denoiser and after guidance, and predictions are not.

    Args:
        listed: The calls of one denoiser in a step.
        latents: What the loop works on.
        guided: What it makes the step with.
    """
    entries, predicted = latents.shape[0], listed[0].output
    if len(listed) > 1 or predicted is None or listed[0].batch != entries or entries % 2:
        return 1
    if predicted.dim() != guided.dim() or len(predicted) != entries or len(guided) != entries:
        return 1
    shown = _narrowed(predicted, guided.shape)
    once, again = shown.chunk(2)
    if bool((once == again).all()):
        return 1
    return 2 if all(bool(torch.equal(*whole.chunk(2))) for whole in (latents, guided)) else 1


def are_doubtful(calls: Sequence[DenoiserCall]) -> bool:
    """Whether there are branches of which it is not known which is which."""
    return any(len(calls) + call.parts > 2 and _is_unproven(call) for call in calls)


def is_doubled(seen: Seen, earlier: Sequence[Seen]) -> bool:
    """Whether a call of this step has the same texts and perhaps the same latents: one would be a perturbed one."""
    own = set(seen.call.roles)
    others = [other.first for other in earlier if set(other.call.roles) == own]
    return any(first is None or (seen.first is not None and _same(first, seen.first)) for first in others)


def _calls(listed: Sequence[Seen], entries: int) -> list[DenoiserCall]:
    return [replace(seen.call, parts=_parts(seen, entries)) for seen in listed]


def _parts(seen: Seen, entries: int) -> int:
    """How many branches share the batch of a call."""
    if entries and seen.batch > entries and not seen.batch % entries:
        return seen.batch // entries
    roles = seen.call.roles
    if not entries and set(roles) == {CONDITIONAL, UNCONDITIONAL} and not len(roles) % 2:
        return 2
    return 1


def _twins(listed: Sequence[Seen]) -> list[int]:
    """Calls that were given the same latents as another."""
    if len(listed) < 2:
        return []
    first = listed[0].first
    return [seen.call.number for seen in listed if first is not None and _same(seen.first, first)]


def _same(one: Tensor | None, other: Tensor) -> bool:
    return one is other or (one is not None and one.shape == other.shape and bool((one == other).all()))


def _is_unproven(call: DenoiserCall) -> bool:
    return not call.labels or any(label.startswith(("part ", "call ")) for label in call.labels)


def _chosen(listed: Sequence[Seen], calls: Sequence[DenoiserCall], latents: Tensor, guided: Tensor) -> int | None:
    """The part or call that the result of guidance lies beyond."""
    outputs = [seen.output for seen in listed]
    if any(output is None for output in outputs):
        return None
    whole = [output for output in outputs if output is not None]
    if len(calls) == 1:
        if whole[0].shape[0] % calls[0].parts:
            return None
        whole = list(whole[0].chunk(calls[0].parts))
    elif any(call.parts > 1 for call in calls):
        return None
    shape = [min(sizes) for sizes in zip(guided.shape, latents.shape, strict=False)]
    if len(shape) != guided.dim() or any(part.dim() != guided.dim() for part in whole):
        return None
    fitted = [_narrowed(part, shape) for part in (*whole, guided)]  # without predicted variances
    return conditional_part(fitted[:-1], fitted[-1])


def _narrowed(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    for axis, size in enumerate(shape):
        if axis and tensor.shape[axis] > size:
            tensor = tensor.narrow(axis, 0, size)
    return tensor

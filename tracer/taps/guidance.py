"""Follows the calls of denoisers, and tells what each of them and each entry of its batch is conditioned on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..attention.roles import CONDITIONAL, UNCONDITIONAL
from ..recording.batches import without_doubles
from ..recording.device import own_copy
from ..recording.guidance_notes import GuidanceNotes
from .branches import are_doubtful, branches_stepped, by_result, by_texts, is_doubled
from .containers import tensors_in
from .given_texts import Given, GivenTexts, Seen
from .protocol import Emit

__all__ = ["Guidance"]

_BRANCHES = {
    "cond": CONDITIONAL,
    "uncond": UNCONDITIONAL,
    "pred_cond": CONDITIONAL,
    "pred_uncond": UNCONDITIONAL,
}
_ATTEMPTS = 3
"""Steps in which to look at results, where nothing else tells the branches."""


def _harmless(method: Callable[..., str | None]) -> Callable[..., str]:
    """An error costs the names of branches, and neither the steps nor the run."""

    @functools.wraps(method)
    def guarded(self: Guidance, *args: Any) -> str:
        if self.failed:
            return ""
        try:
            return method(self, *args) or ""
        except Exception as error:  # noqa: BLE001 — reported at the end of the run
            self.failed = True
            self._emit.report("guidance", error)
            return ""

    return guarded


class Guidance:
    """Follows the denoisers of a run, and describes their batches in the trace."""

    def __init__(self, emit: Emit) -> None:
        self.failed = False
        self._emit = emit
        self._texts = GivenTexts(emit.provenance)
        self._notes = GuidanceNotes(emit.describe)
        self._arguments: dict[str, Any] = {}
        self._fresh_run = False
        self._step = -1
        self._seen: dict[str, list[Seen]] = {}
        self._others: dict[str, Seen] = {}
        """The latest call of components that are not known to be denoisers."""
        self._made: dict[str, int] = {}
        """Calls of each denoiser in this step."""
        self._heard: set[str] = set()
        """Denoisers of this step of which it was said what was made of their results."""
        self._settled: set[str] = set()
        self._attempts: dict[str, int] = {}

    @_harmless
    def run_begins(self, arguments: Mapping[str, Any]) -> None:
        """The pipeline is called."""
        self.close()
        self._arguments = dict(arguments)
        self._attempts.clear()
        self._fresh_run = True
        self._texts.run_begins(self._arguments)

    @_harmless
    def denoiser_starts(self, name: str, step: int, context: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """A denoiser is called: look at what it is given where that is not what it was given before.

        Returns:
            The branch of this call, where it is one of its own.
        """
        if step != self._step:
            self._settle_last()
            self._step = step
            self._made.clear()
        if self._fresh_run:
            self._fresh_run = False
            self._notes.run(step, self._arguments)
        number = self._made.get(name, 0)
        self._made[name] = number + 1
        context = _BRANCHES.get(context, context)
        listed = self._seen.setdefault(name, [])
        given = Given.of(args, kwargs)
        if number >= len(listed) or not self._texts.are_as_before(listed[number], given, step):
            listed[number:] = [self._texts.look(number, given)]
            self._settled.discard(name)
        seen = listed[number]
        seen.call = replace(seen.call, context=context)
        seen.first = given.latents if name not in self._settled else None
        self._emit.clock.denoiser_call = number
        return context or self._own_branch(name, seen)

    @_harmless
    def component_starts(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A component is called that may prove to be a denoiser, as long as none is known."""
        if self._step < 0:
            self._others[name] = self._texts.look(0, Given.of(args, kwargs))

    @_harmless
    def is_denoiser(self, name: str, step: int) -> None:
        """A component has proved to be one: its latest call was the first of this step."""
        if name in self._others:
            self._step = step
            self._seen[name], self._made[name] = [self._others.pop(name)], 1
            self._others.clear()

    @_harmless
    def denoiser_ends(self, name: str, output: Any) -> None:
        """A denoiser returned: keep what it said until the scheduler is given the result of guidance."""
        number = self._made.get(name, 0) - 1
        listed = self._seen.get(name, [])
        if name in self._settled or not 0 <= number < len(listed):
            return
        predicted = next((tensor for _, tensor in tensors_in(output) if tensor.dim() > 1), None)
        listed[number].output = None if predicted is None else own_copy(predicted)

    @_harmless
    def latents_are(self, latents: Tensor, guided: Tensor | None) -> None:
        """What the loop works on and what it makes the step with: tells how many branches share a batch."""
        entries = latents.shape[0] if latents.dim() > 1 else 0
        for name, count in self._made.items():
            if name not in self._settled:
                self._settle(name, self._seen[name][:count], entries, latents, guided)
            self._heard.add(name)

    @_harmless
    def close(self) -> None:
        """The run is over: say what is known by now."""
        self._settle_last()
        for name, listed in self._seen.items():
            for seen in listed:
                changed = [step for step, same in seen.unsure if not bool(same)]
                if changed:
                    self._notes.unknown(name, seen.call.number, min(changed))
        self._seen.clear()
        self._made.clear()
        self._settled.clear()

    def _settle_last(self) -> None:
        """A step is over that no scheduler made, so that nobody said how large the batch of the latents is."""
        for name, count in self._made.items():
            if name not in self._settled | self._heard and name in self._seen:
                self._settle(name, self._seen[name][:count], 0, None, None)
        self._heard.clear()

    def _settle(
        self, name: str, listed: Sequence[Seen], entries: int, latents: Tensor | None, guided: Tensor | None
    ) -> None:
        if latents is not None and guided is not None and entries:
            copies = branches_stepped(listed, latents, guided)
            entries //= copies
            latents, guided = latents[:entries], guided[: len(guided) // copies]
        found = by_texts(listed, entries)
        done = latents is None or not are_doubtful(found)
        if are_doubtful(found):
            self._attempts[name] = self._attempts.get(name, 0) + 1
            if latents is not None and guided is not None:
                better = by_result(listed, entries, latents, guided)
                found, done = better or found, better is not None
        if done or self._attempts[name] >= _ATTEMPTS:
            self._settled.add(name)
        for seen in listed:
            seen.output = seen.first = None
        self._notes.calls(name, self._step, without_doubles(found, self._notes.labels(name)))

    def _own_branch(self, name: str, seen: Seen) -> str:
        """The branch of a call that is made before it is known how many follow."""
        number = seen.call.number
        labels = self._notes.labels(name)
        if name in self._settled and number < len(labels):
            return labels[number][0] if len(labels[number]) == 1 else ""
        own = set(seen.call.roles)
        if len(own) != 1 or not (number or self._texts.branches() - own):
            return ""
        if is_doubled(seen, self._seen[name][:number]):
            return ""
        return own.pop()

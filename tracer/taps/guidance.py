"""What each call of a denoiser and each entry of its batch is conditioned on, found from values while the run goes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..attention.roles import CONDITIONAL, UNCONDITIONAL, roles_of
from ..recording.batches import DenoiserCall, named, without_doubles
from ..recording.guidance_fit import conditional_part
from ..recording.provenance import Origin, Placement, Provenance
from .containers import tensors_in
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
_LARGEST = 1 << 26
"""Elements of an argument that is still looked at for texts."""


@dataclass(slots=True, eq=False)
class _Seen:
    """The latest call of a denoiser with one number within the step."""

    call: DenoiserCall
    batch: int
    watched: tuple[int, ...]
    """Which of the arguments hold texts."""
    given: tuple[Tensor, ...]
    """Those; kept, so that their memory is not used again and their versions tell whether they are the same."""
    versions: tuple[Any, ...]
    first: Tensor | None = None
    """The latents that were given."""
    output: Tensor | None = None
    unsure: list[tuple[int, Tensor]] = field(default_factory=list)
    """Steps at which the texts were another tensor, and whether its values are the same, still on the device."""


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
        self._known: Provenance = emit.provenance
        self._arguments: dict[str, Any] = {}
        self._roles: dict[Origin, str] = {}
        self._roles_of = -1
        self._seen: dict[str, list[_Seen]] = {}
        self._step = -1
        self._others: dict[str, _Seen] = {}
        """The latest call of components that are not known to be denoisers."""
        self._made: dict[str, int] = {}
        """Calls of each denoiser in this step."""
        self._heard: set[str] = set()
        """Denoisers of this step of which it was said what was made of their results."""
        self._settled: set[str] = set()
        self._labels: dict[str, list[tuple[str, ...]]] = {}
        """As described last, by the number of the call."""
        self._attempts: dict[str, int] = {}
        self._batches: dict[str, list[dict[str, Any]]] = {}
        self._guidance: dict[str, dict[str, Any]] = {}
        self._runs: list[dict[str, Any]] = []
        self._fresh_run = False

    @_harmless
    def run_begins(self, arguments: Mapping[str, Any]) -> None:
        """The pipeline is called."""
        self.close()
        self._arguments = dict(arguments)
        self._roles_of = -1
        self._attempts.clear()
        self._fresh_run = True
        for name, value in self._arguments.items():
            for path, tensor in tensors_in(value):
                if "embed" in name and not path:
                    self._known.note([tensor], [(Origin(name, -1, row),) for row in range(len(tensor))])

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
            plain = {key: value for key, value in self._arguments.items() if _is_plain(value)}
            self._runs.append({"step": step, "call": plain})
            self._emit.describe({"runs": list(self._runs)})
        number = self._made.get(name, 0)
        self._made[name] = number + 1
        context = _BRANCHES.get(context, context)
        listed = self._seen.setdefault(name, [])
        first, given = _given(args, kwargs)
        batch = _batch(first, args, kwargs)
        seen = self._as_before(listed[number], batch, given, step) if number < len(listed) else None
        if seen is None:
            seen = self._look(number, batch, given)
            listed[number:] = [seen]
            self._settled.discard(name)
        seen.call = replace(seen.call, context=context)
        seen.first = first if name not in self._settled else None
        self._emit.clock.denoiser_call = number
        return context or self._own_branch(name, seen)

    @_harmless
    def component_starts(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A component is called that may prove to be a denoiser, as long as none is known."""
        if self._step >= 0:
            return
        first, given = _given(args, kwargs)
        self._others[name] = self._look(0, _batch(first, args, kwargs), given)

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
        listed[number].output = None if predicted is None else predicted.detach().clone()

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
                    number = seen.call.number
                    labels = self._labels.get(name, [])
                    own = _unproven(number, labels[number] if number < len(labels) else ())
                    self._append(name, [DenoiserCall(number, 1, labels=own).described(min(changed))])
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
        self, name: str, listed: Sequence[_Seen], entries: int, latents: Tensor | None, guided: Tensor | None
    ) -> None:
        calls = [replace(seen.call, parts=_parts(seen, entries)) for seen in listed]
        found = named(calls, _twins(listed))
        unproven = [call for call in found if len(calls) + call.parts > 2 and _is_unproven(call)]
        chosen = None
        if unproven:
            self._attempts[name] = self._attempts.get(name, 0) + 1
        if unproven and guided is not None and latents is not None:
            chosen = _chosen(listed, calls, latents, guided)
            found = named(calls, _twins(listed), chosen)
        if name in self._labels:
            found = without_doubles(found, self._labels[name])
        done = latents is None or not unproven or chosen is not None or self._attempts.get(name, 0) >= _ATTEMPTS
        if done:
            self._settled.add(name)
        for seen in listed:
            seen.output = seen.first = None
        self._labels[name] = [call.labels for call in found]
        self._say(name, found)

    def _say(self, name: str, calls: Sequence[DenoiserCall]) -> None:
        self._append(name, [call.described(self._step) for call in calls])
        guidance = self._guidance.setdefault(name, {})
        labelled = [call for call in calls if call.labels]
        if any(call.parts > 1 for call in labelled):
            guidance["batch"] = list(next(call.labels for call in labelled if call.parts > 1))
        elif labelled:
            guidance["calls"] = [call.labels[0] for call in labelled]
        else:
            if not guidance:
                del self._guidance[name]
            return
        guidance["evidence"] = next((call.evidence for call in labelled if call.evidence), "")
        self._emit.describe({"guidance": {key: dict(value) for key, value in self._guidance.items()}})

    def _append(self, name: str, fresh: Sequence[dict[str, Any]]) -> None:
        """Add what is new to the description; what holds from the same step on replaces what was said before."""
        known = self._batches.setdefault(name, [])
        changed = False
        for entry in fresh:
            last = next((old for old in reversed(known) if old["call"] == entry["call"]), None)
            if last is not None and {**last, "step": 0} == {**entry, "step": 0}:
                continue
            if last is not None and _refines(last, entry):
                known[known.index(last)] = {**entry, "step": last["step"]}
            else:
                known.append(entry)
            changed = True
        if changed:
            self._emit.describe({"batches": {key: list(value) for key, value in self._batches.items()}})

    def _as_before(self, seen: _Seen, batch: int, given: Sequence[_Rows], step: int) -> _Seen | None:
        """The call of the step before, if this one is given the same texts."""
        if seen.batch != batch or max(seen.watched, default=-1) >= len(given):
            return None
        now = tuple(tensor for at in seen.watched for tensor in given[at])
        same = seen.versions == self._versions(now) or _defers(seen, now, step)
        return seen if same else None

    def _versions(self, given: Sequence[Tensor]) -> tuple[Any, ...]:
        """What changes when the texts do; where none was found, when there are more to be found."""
        held = [(tensor.data_ptr(), tensor.shape, tensor.stride(), _version(tensor)) for tensor in given]
        return (*held,) if held else (len(self._known.texts),)

    def _look(self, number: int, batch: int, given: Sequence[_Rows]) -> _Seen:
        """Match what a denoiser is given to what the texts became."""
        call, watched = DenoiserCall(number, 1), []
        if self._known:
            self._learn_roles()
            for at, rows in enumerate(given):
                found = [placements for part in rows for placements in self._known.find(part)]
                if any(found):
                    watched.append(at)
                    call = self._with_texts(call, rows, found)
        held = tuple(tensor for at in watched for tensor in given[at])
        return _Seen(call, batch, tuple(watched), held, self._versions(held))

    def _with_texts(self, call: DenoiserCall, rows: _Rows, found: Sequence[tuple[Placement, ...]]) -> DenoiserCall:
        """Add what one argument tells."""
        own = [self._role(placements) for placements in found]
        if len(rows) == 1:  # where a text is left out there are zeros
            blank = [not placements and not bool(rows[0][at].any()) for at, placements in enumerate(found)]
            own = [UNCONDITIONAL if empty else role for empty, role in zip(blank, own, strict=True)]
        if len(call.roles) == len(own):
            own = [known or fresh for known, fresh in zip(call.roles, own, strict=True)]
        roles = call.roles if call.roles and all(call.roles) else tuple(own)
        given = all(placement.origins[-1].call < 0 for placements in found for placement in placements)
        evidence = call.evidence or ("" if not any(roles) else "arguments" if given else "embeddings")
        call = replace(call, roles=roles, evidence=evidence)
        if not any(placement.tokens for placements in found for placement in placements):
            return call
        length = rows[0].shape[-2] if len({row.shape[-2] for row in rows}) == 1 else 0
        return call.with_texts(found, length)

    def _learn_roles(self) -> None:
        """Tell prompts from negative ones, for each encoder."""
        texts = dict(self._known.texts)
        if self._roles_of == len(texts):
            return
        self._roles_of = len(texts)
        by_encoder: dict[str, list[Origin]] = {}
        for origin in texts:
            by_encoder.setdefault(origin.source, []).append(origin)
        for origins in by_encoder.values():
            own = roles_of([texts[origin] for origin in origins], self._arguments)
            self._roles.update(zip(origins, own, strict=True))

    def _role(self, placements: Sequence[Placement]) -> str:
        roles = set()
        for placement in placements:
            named = {
                self._roles.get(origin, "") if origin.call >= 0 else _role_of_argument(origin.source)
                for origin in placement.origins
            }
            roles.add(named.pop() if len(named) == 1 else "")
        roles.discard("")
        return roles.pop() if len(roles) == 1 else ""

    def _own_branch(self, name: str, seen: _Seen) -> str:
        """The branch of a call that is made before it is known how many follow."""
        labels = self._labels.get(name, [])
        number = seen.call.number
        if name in self._settled and number < len(labels):
            return labels[number][0] if len(labels[number]) == 1 else ""
        own = set(seen.call.roles)
        if len(own) != 1 or not (number or ({role for role in self._roles.values() if role} - own)):
            return ""
        earlier = [other.first for other in self._seen[name][:number] if set(other.call.roles) == own]
        if any(first is None or (seen.first is not None and _same(first, seen.first)) for first in earlier):
            return ""  # one of them would be a perturbed one
        return own.pop()


_Rows = tuple[Tensor, ...]
"""An argument that may hold texts: one tensor with a row for each entry of the batch, or a tensor for each."""


def _given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor | None, list[_Rows]]:
    """The latents, and what may hold texts."""
    first = next((tensor for _, tensor in tensors_in((args, kwargs)) if tensor.dim() > 1), None)
    found: list[_Rows] = []
    for value in (*args, *kwargs.values()):
        if isinstance(value, list) and value and all(isinstance(row, Tensor) and row.dim() == 2 for row in value):
            found.append(tuple(row[None] for row in value))
        else:
            found.extend((tensor,) for _, tensor in tensors_in(value) if tensor is not first and tensor.dim() in (2, 3))
    return first, [rows for rows in found if all(row.is_floating_point() and row.numel() < _LARGEST for row in rows)]


def _batch(first: Tensor | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Entries of the batch: of a tensor, or of a list with one tensor for each."""
    value = next((value for value in (*args, *kwargs.values()) if isinstance(value, list) or value is first), None)
    if isinstance(value, list) and value and all(isinstance(entry, Tensor) for entry in value):
        return len(value)
    return 0 if first is None else first.shape[0]


def _version(tensor: Tensor) -> int:
    try:
        return tensor._version
    except RuntimeError:  # an inference tensor keeps none
        return -1


def _defers(before: _Seen, given: Sequence[Tensor], step: int) -> bool:
    """Whether texts in new memory on an accelerator hold what they held, as far as the host can tell without waiting.

    They are compared where they are, and looked at when the run is over.
    """
    if not given or not before.given or any(tensor.device.type == "cpu" for tensor in given):
        return False
    if [tensor.shape for tensor in given] != [tensor.shape for tensor in before.given]:
        return False
    same = torch.stack([(now == then).all() for now, then in zip(given, before.given, strict=True)]).all()
    before.unsure.append((step, same))
    return True


def _parts(seen: _Seen, entries: int) -> int:
    """How many branches share the batch of a call."""
    if entries and seen.batch > entries and not seen.batch % entries:
        return seen.batch // entries
    roles = seen.call.roles
    if not entries and set(roles) == {CONDITIONAL, UNCONDITIONAL} and not len(roles) % 2:
        return 2
    return 1


def _twins(listed: Sequence[_Seen]) -> list[int]:
    """Calls that were given the same latents as another."""
    if len(listed) < 2:
        return []
    first = listed[0].first
    return [seen.call.number for seen in listed if first is not None and _same(seen.first, first)]


def _same(one: Tensor | None, other: Tensor) -> bool:
    return one is other or (one is not None and one.shape == other.shape and bool((one == other).all()))


def _unproven(number: int, labels: Sequence[str]) -> tuple[str, ...]:
    """Names for what is no longer known."""
    return (
        tuple(f"part {part}" for part in range(len(labels))) if len(labels) > 1 else (f"call {number}",) * len(labels)
    )


def _is_unproven(call: DenoiserCall) -> bool:
    return not call.labels or any(label.startswith(("part ", "call ")) for label in call.labels)


def _chosen(listed: Sequence[_Seen], calls: Sequence[DenoiserCall], latents: Tensor, guided: Tensor) -> int | None:
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


def _refines(last: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    """Whether the same texts are now better known: found at the same step, or from what the scheduler was given."""
    same = all(last[key] == entry[key] for key in ("texts", "length")) and len(last["parts"]) == len(entry["parts"])
    return bool(same and last["parts"] and not last["evidence"]) or last["step"] == entry["step"]


def _role_of_argument(name: str) -> str:
    """The branch of embeddings that the user gave, by the name of the argument."""
    return UNCONDITIONAL if "negative" in name or "uncond" in name else CONDITIONAL if "prompt" in name else ""


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(isinstance(entry, str | int | float) for entry in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | bool | int)

"""Which of the maps that can be recomputed the run really used, step by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..recording.attention_calls import AttentionCall
from ..recording.edits import deviation, largest_error, rows_of

__all__ = ["Usage", "Usages"]


Place = tuple[bool, int]
"""Whether a call was in the loop, and its number within the step."""


@dataclass(slots=True)
class Usage:
    """Of one call of a module: whether its shares were used as they were handed out."""

    verdicts: dict[int, bool] = field(default_factory=dict)
    """By step, 0 outside of the loop: true where they were, false where they were edited."""
    deviation: float = 0.0
    """The largest where they were edited."""
    reason: str = ""
    """Why it cannot be told, where it could not."""

    def judge(self, step: int, deviation: float, largest_error: float) -> None:
        """Take down one comparison; of several at a step the worst counts."""
        if math.isnan(deviation):
            self.reason = "the result is not finite, or zero whatever the shares"
            self.verdicts.pop(step, None)
        elif deviation > largest_error:
            self.verdicts[step] = False
            self.deviation = max(self.deviation, min(deviation, 1e9))  # of an infinite one JSON knows nothing
        else:
            self.verdicts.setdefault(step, True)

    def facts(self) -> dict[str, Any]:
        """As JSON, see `docs/format.md`."""
        proven, edited = (sorted(at for at, held in self.verdicts.items() if held is kept) for kept in (True, False))
        facts: dict[str, Any] = {"proven": _ranges(proven), "edited": _ranges(edited)}
        return facts | ({"deviation": self.deviation} if edited else {}) | ({"why": self.reason} if self.reason else {})


class Usages:
    """Of all calls whose shares were handed out; comparisons on an accelerator are looked at when the run is over."""

    def __init__(self, tell: Callable[[str, Place, dict[str, Any]], None]) -> None:
        """`tell` is given a module, the place of a call, and its facts, whenever those are of another kind."""
        self._tell = tell
        self._known: dict[tuple[str, Place], Usage] = {}
        self._told: dict[tuple[str, Place], tuple[Any, ...]] = {}
        self._pending: list[tuple[str, Place, int, Tensor, float]] = []

    def called(self, name: str, place: Place, step: int | None, call: AttentionCall, *, first: bool) -> None:
        """A call was made; `first` where none was before it at its place.

        What a kernel computed was used by construction. It is worth a note where another step of the same call went
        through a function that hands its shares out.
        """
        known = self._known.get((name, place))
        if call.foreign:
            self.cannot_tell(name, place, f"{call.foreign} computed it", first=first, step=step)
        elif call.shares is not None:
            self._of(name, place, first=first, step=step)
        elif known is not None:
            known.judge(step or 0, 0.0, 0.0)

    def compare(  # noqa: PLR0917 — the tensors of one product
        self, name: str, place: Place, step: int | None, call: AttentionCall, values: Tensor, result: Tensor
    ) -> None:
        """Compare the result of a call with the shares that were handed out."""
        assert call.shares is not None
        allowed = largest_error(call.shares, values, result)
        found = deviation(call.shares, values, result[:, :, rows_of(call.query.shape[2], step or 0)])
        if found.is_cpu:
            self._known[name, place].judge(step or 0, float(found), allowed)
            self._tell_change(name, place)
        else:
            self._pending.append((name, place, step or 0, found, allowed))

    def cannot_tell(
        self, name: str, place: Place, reason: str, *, first: bool = False, step: int | None = None
    ) -> None:
        """A call whose result could not be compared."""
        self._of(name, place, first=first, step=step).reason = reason
        self._tell_change(name, place)

    def finish(self) -> None:
        """Look at what is still on an accelerator, and tell all there is."""
        pending, self._pending = self._pending, []
        for device in {entry[3].device for entry in pending}:
            own = [entry for entry in pending if entry[3].device == device]
            found = torch.stack([entry[3] for entry in own]).tolist()
            for (name, place, step, _, allowed), value in zip(own, found, strict=True):
                self._known[name, place].judge(step, value, allowed)
        for (name, place), usage in self._known.items():
            self._tell(name, place, usage.facts())

    def _of(self, name: str, place: Place, *, first: bool, step: int | None) -> Usage:
        known = self._known.get((name, place))
        if known is None:
            before = {} if first else dict.fromkeys(range(step or 0), True)  # kernels computed them
            known = self._known[name, place] = Usage(before)
        return known

    def _tell_change(self, name: str, place: Place) -> None:
        """Tell a reader of a growing trace, once for each change of mind and not at each step."""
        usage = self._known[name, place]
        kind = (*dict.fromkeys(reversed(usage.verdicts.values())), usage.reason)
        if self._told.get((name, place)) != kind:
            self._told[name, place] = kind
            self._tell(name, place, usage.facts())


def _ranges(numbers: Iterable[int]) -> list[list[int]]:
    """Ascending numbers as first and last of each run without gaps."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found

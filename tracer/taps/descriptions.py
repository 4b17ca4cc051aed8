"""What a trace says of the attention calls of one module: its attribute ``attention``."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..recording.attention_calls import AttentionCall
from ..recording.edits import multiplied_in
from ..recording.sequence import Part
from ..recording.sites import Source
from .protocol import Emit

__all__ = ["Descriptions"]

_Place = tuple[bool, int]
"""Whether a call was in the loop, and its number within the step."""
_MakeParts = Callable[[], tuple[list[Part], list[Part]]]
_PARTS = ("query_parts", "key_parts")
_OF_PLACE = frozenset({"call", "stepped", "step", "denoiser_call", "door", "used"})
_MOST = 1024
"""Descriptions of one place: of a cache that grows each step is another."""


@dataclass(slots=True)
class Descriptions:
    """Numbers and describes the calls of one module. A description holds until another is made for the same place."""

    source: Source
    _entries: dict[_Place, list[dict[str, Any]]] = field(default_factory=dict)
    """Of each place the descriptions, the one that holds last."""
    _counts: dict[bool, tuple[int | None, int]] = field(default_factory=dict)
    """Step, and number of the calls in it so far."""
    _situations: dict[_Place, Hashable] = field(default_factory=dict)
    """What the parts were last looked at in."""

    def number(self, step: int | None) -> int:
        """The number of a call that is made at this step, counted as the recorder counts tensors."""
        last, count = self._counts.get(step is not None, (None, 0))
        count = count if last == step else 0
        self._counts[step is not None] = (step, count + 1)
        return count

    def describe(
        self,
        emit: Emit,
        place: _Place,
        call: AttentionCall,
        *,
        step: int | None,
        heads: list[int] | None,
        situation: Hashable,
        parts: _MakeParts,
    ) -> bool:
        """Describe a call, unless what was said of its place before holds for it too.

        Args:
            emit: Writes the description.
            place: Whether it is in the loop, and its number.
            call: What the kernel was given.
            step: When; None outside of the loop.
            heads: Those that are kept, None for all.
            situation: What the parts depend on; they are looked at again where it changes.
            parts: Tells the parts of queries and keys.

        Returns:
            Whether it is described now; not where there are too many descriptions of its place.
        """
        known = self._entries.get(place, [])
        latest = known[-1] if known and "door" in known[-1] else {}
        entry = _facts(call, heads)
        if not call.reason:
            if "query_parts" in latest and self._situations[place] == situation:
                entry |= {port: latest[port] for port in _PARTS}
            else:
                entry |= _placed(*parts())
                self._situations[place] = situation
        if latest and _said(entry) == _said(latest):
            return True
        if len(known) >= _MOST:
            return False
        self._add(emit, place, entry | ({"step": step} if latest and step is not None else {}))
        return True

    def move(self, emit: Emit, step: int | None) -> None:
        """All calls on one side of the loop belong to the other: into this step, or out of the loop."""
        into_loop = step is not None
        numbers = [number for side, number in self._entries if side is not into_loop]
        if not numbers or any(side is into_loop for side, _ in self._entries):
            return  # calls on both sides: they would be numbered anew
        for number in numbers:
            place, other = (into_loop, number), (not into_loop, number)
            self._entries[place] = [entry | {"stepped": into_loop} for entry in self._entries.pop(other)]
            if other in self._situations:
                self._situations[place] = self._situations.pop(other)
        self._counts = {into_loop: (step, len(numbers))}
        self._tell(emit)

    def without_map(self, emit: Emit, *, in_loop: bool, reason: str) -> None:
        """Say that the module has no map, unless calls of it are known."""
        if not self._entries:
            self._add(emit, (in_loop, 0), {"softmax": False, "reason": reason})

    def knows(self, place: _Place) -> bool:
        """Whether a call at this place was described."""
        return any("door" in entry for entry in self._entries.get(place, ()))

    def used(self, emit: Emit, place: _Place, facts: Mapping[str, Any]) -> None:
        """Say whether the shares of a call were used as they were handed out, whatever shape it had."""
        known = self._entries.get(place, [])
        if known and known[-1].get("softmax"):
            self._entries[place] = [entry | {"used": facts} if entry.get("softmax") else entry for entry in known]
            self._tell(emit)

    def _add(self, emit: Emit, place: _Place, entry: dict[str, Any]) -> None:
        in_loop, number = place
        if in_loop and emit.clock.denoiser_call:
            entry = {"denoiser_call": emit.clock.denoiser_call, **entry}
        known = self._entries.setdefault(place, [])
        if known and "door" not in known[-1]:
            known.pop()  # that it had no map was said of the module, which it is no longer true of
        known.append({"call": number, "stepped": in_loop, **entry})
        self._tell(emit)

    def _tell(self, emit: Emit) -> None:
        entries = [entry for key in sorted(self._entries) for entry in self._entries[key]]
        emit.describe({"attention": entries, "module": self.source.name}, group=self.source.group)


def _facts(call: AttentionCall, heads: list[int] | None) -> dict[str, Any]:
    if call.reason:
        return {"door": call.door, "softmax": False, "reason": call.reason}
    facts = {"door": call.door, "scale": call.scale, "causal": call.causal, "softmax": True, "heads": heads}
    return facts | ({"dropout": call.dropout} if call.dropout else {}) | _arithmetic()


def _said(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What a description says of the call itself: not where and when it was, nor what became of its shares."""
    return {key: value for key, value in entry.items() if key not in _OF_PLACE}


def _arithmetic() -> dict[str, Any]:
    """In what float32 was multiplied, where that was something coarser."""
    coarser = multiplied_in()
    return {"multiplied_in": coarser} if coarser else {}


def _placed(query: list[Part], key: list[Part]) -> dict[str, Any]:
    """Parts as JSON, each with the number of its first token."""

    def place(parts: list[Part]) -> list[dict[str, Any]]:
        starts = [sum(part.tokens for part in parts[:index]) for index in range(len(parts))]
        return [
            {"kind": part.kind, "start": start, "shape": list(part.shape)}
            for part, start in zip(parts, starts, strict=True)
        ]

    return dict(zip(_PARTS, (place(query), place(key)), strict=True))

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


@dataclass(slots=True)
class Descriptions:
    """Numbers and describes the calls of one module. A description is made once and holds for all steps."""

    source: Source
    _entries: dict[_Place, dict[str, Any]] = field(default_factory=dict)
    _counts: dict[bool, tuple[int | None, int]] = field(default_factory=dict)
    """Step, and number of the calls in it so far."""
    _situations: dict[_Place, tuple[Hashable, bool]] = field(default_factory=dict)
    """What the parts were last compared in, and whether they were those described."""

    def number(self, step: int | None) -> int:
        """The number of a call that is made at this step, counted as the recorder counts tensors."""
        last, count = self._counts.get(step is not None, (None, 0))
        count = count if last == step else 0
        self._counts[step is not None] = (step, count + 1)
        return count

    def fits(
        self,
        emit: Emit,
        place: _Place,
        call: AttentionCall,
        *,
        heads: list[int] | None,
        situation: Hashable,
        parts: _MakeParts,
    ) -> bool:
        """Describe a call that is the first at its place; whether the description holds for it.

        Args:
            emit: Writes the description.
            place: Whether it is in the loop, and its number.
            call: What the kernel was given.
            heads: Those that are kept, None for all.
            situation: What the parts depend on; they are looked at again where it changes.
            parts: Tells the parts of queries and keys.
        """
        entry = self._entries.get(place)
        if entry is None or "door" not in entry:
            placed = {} if call.reason else _placed(*parts()) | _arithmetic()
            self._situations[place] = (situation, True)
            self._describe(emit, place, _facts(call, heads) | placed)
            return not call.reason
        if call.reason or any(entry.get(key) != value for key, value in _facts(call, heads).items() if key != "door"):
            return False
        if self._situations[place][0] != situation:
            same = all(entry[key] == value for key, value in _placed(*parts()).items())
            self._situations[place] = (situation, same)
        return self._situations[place][1]

    def move(self, emit: Emit, step: int | None) -> None:
        """All calls on one side of the loop belong to the other: into this step, or out of the loop."""
        into_loop = step is not None
        numbers = [number for side, number in self._entries if side is not into_loop]
        if not numbers or any(side is into_loop for side, _ in self._entries):
            return  # calls on both sides: they would be numbered anew
        for number in numbers:
            place, other = (into_loop, number), (not into_loop, number)
            self._entries[place] = self._entries.pop(other) | {"stepped": into_loop}
            if other in self._situations:
                self._situations[place] = self._situations.pop(other)
        self._counts = {into_loop: (step, len(numbers))}
        self._tell(emit)

    def without_map(self, emit: Emit, *, in_loop: bool, reason: str) -> None:
        """Say that the module has no map, unless calls of it are known."""
        if not self._entries:
            self._describe(emit, (in_loop, 0), {"softmax": False, "reason": reason})

    def knows(self, place: _Place) -> bool:
        """Whether a call at this place was described."""
        return "door" in self._entries.get(place, {})

    def used(self, emit: Emit, place: _Place, facts: Mapping[str, Any]) -> None:
        """Say whether the shares of a call were used as they were handed out."""
        entry = self._entries.get(place, {})
        if entry.get("softmax"):
            self._describe(emit, place, entry | {"used": facts})

    def _describe(self, emit: Emit, place: _Place, entry: dict[str, Any]) -> None:
        in_loop, number = place
        if in_loop and emit.clock.denoiser_call:
            entry = {"denoiser_call": emit.clock.denoiser_call, **entry}
        self._entries[place] = {"call": number, "stepped": in_loop, **entry}
        self._tell(emit)

    def _tell(self, emit: Emit) -> None:
        entries = [self._entries[key] for key in sorted(self._entries)]
        emit.describe({"attention": entries, "module": self.source.name}, group=self.source.group)


def _facts(call: AttentionCall, heads: list[int] | None) -> dict[str, Any]:
    if call.reason:
        return {"door": call.door, "softmax": False, "reason": call.reason}
    facts = {"door": call.door, "scale": call.scale, "causal": call.causal, "softmax": True, "heads": heads}
    return facts | ({"dropout": call.dropout} if call.dropout else {})


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

    return {"query_parts": place(query), "key_parts": place(key)}

"""What the entries of a denoiser's batch are, branches and texts, as a trace tells it: every field is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Batch", "EntryText", "batch_at", "batches_of", "branches_at"]

_MOST = 1 << 16
"""Positions, entries and calls; a number that is larger is a lie."""


@dataclass(frozen=True, slots=True)
class EntryText:
    """A text, or a part of it, in the sequence that one entry of a batch was given."""

    encoder: str
    call: int
    prompt: int
    start: int
    """First position in the sequence."""
    first: int
    """Token of the text that stands there."""
    length: int


@dataclass(frozen=True, slots=True)
class Batch:
    """One call of a denoiser within a step, from one step on."""

    step: int
    call: int
    parts: tuple[str, ...]
    """Guidance branch of each part of the batch, "part 0" where it is not proven; empty without guidance."""
    texts: tuple[tuple[EntryText, ...], ...]
    """Of each entry, what is proven by value; as many as the sequence of texts has entries."""
    length: int
    """Positions of the sequence that holds the texts; 0 where there is none, or entries differ."""
    evidence: str = ""


def batches_of(described: Mapping[str, Any], component: str) -> tuple[Batch, ...] | None:
    """The calls of a denoiser; None where the trace does not tell, as those of version 1."""
    listed = described.get(component)
    if not isinstance(listed, list):
        return None
    return tuple(_read(entry) for entry in listed if isinstance(entry, dict))


def batch_at(batches: tuple[Batch, ...], step: int, call: int) -> Batch | None:
    """What holds at a step."""
    own = [batch for batch in batches if batch.call == call]
    held = [batch for batch in own if batch.step <= step]
    return max(held, key=lambda batch: batch.step) if held else None


def branches_at(batch: Batch | None, size: int) -> tuple[str, ...]:
    """The branch of each of `size` entries, "" where there are none."""
    parts = batch.parts if batch is not None else ()
    if not parts or size % len(parts):
        return ("",) * size
    return tuple(part for part in parts for _ in range(size // len(parts)))


def _read(entry: Mapping[str, Any]) -> Batch:
    parts, texts = entry.get("parts"), entry.get("texts")
    return Batch(
        step=_number(entry.get("step")),
        call=_number(entry.get("call")),
        parts=tuple(map(str, parts)) if isinstance(parts, list) else (),
        texts=tuple(_texts(row) for row in texts) if isinstance(texts, list) and len(texts) <= _MOST else (),
        length=_number(entry.get("length")),
        evidence=str(entry.get("evidence", "")),
    )


def _texts(row: Any) -> tuple[EntryText, ...]:
    fields = ("call", "prompt", "start", "first", "length")
    return tuple(
        EntryText(str(entry.get("encoder", "")), *(_number(entry.get(field)) for field in fields))
        for entry in (row if isinstance(row, list) else ())
        if isinstance(entry, dict)
    )


def _number(value: Any) -> int:
    return value if type(value) is int and 0 <= value <= _MOST else 0

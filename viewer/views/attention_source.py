"""One attention call as the view sees it: which positions are asked, which are shown, and shares of attention."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from diffusion_xray.tracer.attention.info import AttentionInfo, Attentions, entry_of
from diffusion_xray.tracer.attention.inputs import Given, Inputs
from diffusion_xray.tracer.attention.maps import attend, probabilities
from diffusion_xray.tracer.attention.texts import CONDITIONAL, Text, words_at
from diffusion_xray.tracer.attention.tokens import Part
from diffusion_xray.tracer.attention.words import Word, unique
from diffusion_xray.tracer.errors import TraceFormatError

from ..reader import Reader

__all__ = ["Asked", "Hurry", "Kind", "Labels", "Source", "alike", "kinds_of", "same_entry"]

Kind = Literal["words", "places", "tokens"]
"""Image positions look at words; at each other; or what looks is no image."""

Floats = NDArray[np.float32]
Asked = tuple[Literal["words", "from", "to"], int]
"""Attention to each word; from one position to all; from all to one position."""

_BUDGET: Final = 0.12
"""Seconds after which an answer goes out as far as it is."""
_UNIT: Final = 8 << 20
"""Scores computed at a time, between two looks at whether they are still wanted."""
_ABSENT: Final = "absent"


class Hurry:
    """Says when to stop computing: when nobody waits any more, or after a moment. Every answer gets on by one piece."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._until = time.monotonic() + _BUDGET
        self._moved = False
        self._unread = ""

    @property
    def over(self) -> bool:
        """Whether to stop."""
        return self._reader.cancelled() or (self._moved and time.monotonic() > self._until)

    def once(self, key: tuple[Any, ...], compute: Callable[[], Any]) -> Any:
        """As `Reader.once`."""

        def counted() -> Any:
            self._moved = True
            return compute()

        found = self._reader.once(key, counted)
        if found is None and self._unread:
            self._reader.error = self._unread  # what was wrong, rather than that something was
        return found

    def given(self, key: tuple[Any, ...], read: Callable[[], Given | None]) -> Given | None:
        """Queries and keys, kept for the next place that is looked at; None where not captured.

        Raises:
            TraceFormatError: They cannot be read.
        """
        found: _Kept | None = self._reader.once(key, lambda: _Kept(read()))
        if found is None:
            self._unread = self._reader.error
            raise TraceFormatError(self._unread)
        return found.given


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    given: Given | None

    @property
    def nbytes(self) -> int:
        """What it takes in the cache."""
        return sum(part.nbytes for part in self.given or () if part is not None)


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Positions with names: words, their pieces joined and padding folded; or numbers where no text is known."""

    words: tuple[Word, ...]
    names: tuple[str, ...]
    """Of the words, the second "a" being "a#1"."""

    @property
    def positions(self) -> tuple[tuple[int, ...], ...]:
        """Where each word stands in the sequence."""
        return tuple(word.positions for word in self.words)

    @property
    def special(self) -> tuple[bool, ...]:
        """Whether each is a mark such as the end of the text."""
        return tuple(word.special for word in self.words)

    @classmethod
    def of(cls, parts: Sequence[Part], texts: Sequence[Text], entry: int) -> Labels:
        """Those of one entry of the batch."""
        words = words_at(texts, entry)
        if not words:
            plain = [part for part in parts if part.kind != "image"] or list(parts)
            words = tuple(Word(str(at), (at,)) for part in plain for at in range(part.span.start, part.span.stop))
        return cls(words, tuple(unique([word.text for word in words])))


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One attention call, for one entry of the batch."""

    call: AttentionInfo
    inputs: Inputs
    entry: int
    kind: Kind
    rows: Part
    """The queries."""
    columns: Part
    """The keys, where they are places."""
    keys: Labels
    queries: Labels

    @classmethod
    def of(
        cls, attentions: Attentions, hurry: Hurry, call: AttentionInfo, entry: int, kind: Kind, *, step: int
    ) -> Source:
        """Look up what its positions stand for at a step.

        Raises:
            TraceFormatError: An array has another shape than its site.
        """
        inputs = hurry.once(
            ("inputs", id(attentions), call.module, call.call, call.stepped, call.form),
            lambda: attentions.inputs(call),
        )
        if inputs is None:
            inputs = attentions.inputs(call)  # raises what is wrong
        whole = Part("other", 0, (call.shape[2],))
        rows = whole if kind == "tokens" else _image(call.query_parts)
        columns = _image(call.key_parts) if kind == "places" else Part("other", 0, (call.shape[3],))
        keys = Labels.of(call.key_parts, attentions.texts(call, step), entry)
        queries = Labels.of(call.query_parts, attentions.query_texts(call, step), entry) if kind == "tokens" else keys
        return cls(call, inputs, entry, kind, rows, columns, keys, queries)

    @property
    def name(self) -> str:
        """Path of the module, with the number of the call behind a colon from the second on."""
        return f"{self.call.module}:{self.call.call}" if self.call.call else self.call.module

    def units(self, asked: Asked, heads: Sequence[int]) -> list[Sequence[int]]:
        """Heads (their places) in runs that take a moment each."""
        rows = 1 if asked[0] == "from" else self.rows.size
        together = max(_UNIT // max(rows * self.call.shape[3], 1), 1)
        return [heads[start : start + together] for start in range(0, len(heads), together)]

    def shares(self, hurry: Hurry, step: int, heads: Sequence[int], asked: Asked) -> Floats | str | None:
        """Shares of attention, shape (head, word or 1, *grid); "absent" where not captured, None where not readable."""
        key = ("shares", *self._key(step), tuple(heads), asked)
        return hurry.once(key, lambda: self._compute(hurry, step, heads, asked))  # type: ignore[no-any-return]

    def masses(self, hurry: Hurry, step: int, heads: Sequence[int]) -> Floats | str | None:
        """The share of every word, averaged over the positions, shape (head, word); else as `shares`."""

        def compute() -> Floats | str:
            found = self._compute(hurry, step, heads, ("words", 0))
            return found if isinstance(found, str) else found.mean(axis=tuple(range(2, found.ndim)), dtype=np.float32)

        return hurry.once(("masses", *self._key(step), tuple(heads)), compute)  # type: ignore[no-any-return]

    def _key(self, step: int) -> tuple[Any, ...]:
        return self.call.module, self.call.call, self.call.stepped, step, self.entry, self.kind

    def _compute(self, hurry: Hurry, step: int, heads: Sequence[int], asked: Asked) -> Floats | str:
        key = ("given", *self._key(step), tuple(heads))
        given = hurry.given(key, lambda: self.inputs.of(step, self.entry, heads))
        if given is None:
            return _ABSENT
        query, keys, mask = given
        options: dict[str, Any] = {"scale": self.call.scale, "mask": mask, "causal": self.call.causal}
        what, at = asked
        if what == "from":
            rows = probabilities(query, keys, rows=np.array([self.rows.start + at]), **options)
            return rows[..., self.columns.span].reshape(len(heads), 1, *self.columns.shape)
        groups = self.keys.positions if what == "words" else ((self.columns.start + at,),)
        members = np.zeros((keys.shape[1], len(groups)), np.float32)
        for column, positions in enumerate(groups):
            members[list(positions), column] = 1
        found = attend(query, keys, members, rows=self.rows.span, **options)
        return np.moveaxis(found, -1, 1).reshape(len(heads), len(groups), *self.rows.shape)


def kinds_of(call: AttentionInfo) -> list[Kind]:
    """What can be shown of a call, what it is for first."""
    asked, shown = ({part.kind for part in parts} for parts in (call.query_parts, call.key_parts))
    if "image" not in asked:
        return ["tokens"]
    return [*(["words"] if shown - {"image"} else []), *(["places"] if "image" in shown else [])]  # type: ignore[list-item]


def same_entry(attentions: Attentions, call: AttentionInfo, entry: int, other: AttentionInfo, step: int) -> int | None:
    """The entry of another call that belongs to the same branch and image."""
    branches = attentions.branches(call, step)
    return entry_of(
        attentions.branches(other, step), branches[entry] or CONDITIONAL, branches[:entry].count(branches[entry])
    )


def alike(calls: Sequence[AttentionInfo], kind: Kind, *, stepped: bool) -> Iterator[AttentionInfo]:
    """The calls that can be shown together."""
    frames = 0
    for call in calls:
        if call.reason or call.stepped != stepped or kind not in kinds_of(call):
            continue
        rank = len(_image(call.query_parts).shape)
        frames = frames or rank
        if rank == frames:
            yield call


def _image(parts: Sequence[Part]) -> Part:
    return max((part for part in parts if part.kind == "image"), key=lambda part: math.prod(part.shape))

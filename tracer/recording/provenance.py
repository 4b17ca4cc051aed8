"""Where embeddings came from: a tensor is matched by value to what text encoders made, or the user gave.

A model sees a text as vectors, one a token. On their way to it they are repeated, put side by side along the channels
(the two CLIPs of SDXL) or one behind the other (CLIP and T5 of SD 3), cut, shifted, padded or cast. None of that
changes the numbers within a vector, so a few of its channels, compared exactly, tell which token of which text it is.
What was computed from embeddings (a projection) is followed where it is seen as a module's inputs and outputs.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Origin", "Placement", "Provenance"]

_CHANNELS = 24
"""How many of a vector are compared."""
_MOST_KNOWN = 512
"""Tensors to remember; the oldest are forgotten."""
_MOST_OFFSETS = 64


@dataclass(frozen=True, slots=True)
class Origin:
    """One text: the row of an encoder's call, or of a tensor that the user gave."""

    source: str
    """Name of the encoder, or of the argument."""
    call: int
    """Of the encoder; −1 of an argument."""
    row: int


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a text stands in one entry of a batch."""

    origins: tuple[Origin, ...]
    """Several where their vectors are equal; the latest last."""
    start: int
    """First position in the sequence."""
    first: int
    """First token of the text that is there."""
    length: int
    tokens: bool
    """Whether positions are tokens, rather than one vector for the whole text."""


@dataclass(slots=True, eq=False)
class _Known:
    """Some channels of a tensor whose rows are known, shape (row, token, channel)."""

    sample: Tensor
    channels: list[int]
    width: int
    origins: tuple[tuple[Origin, ...], ...]
    """Of each row."""
    firsts: tuple[int, ...]
    """Which token of the text each row begins with."""
    content: Tensor | None
    """What is no padding, shape (row, token); None for all."""
    tokens: bool
    _cast: dict[torch.dtype, NDArray[np.float32]] = field(default_factory=dict)

    def values(self, dtype: torch.dtype) -> NDArray[np.float32]:
        """The sample as it reads after a cast."""
        if self.sample.device.type != "cpu":
            self.sample = self.sample.cpu()
        if dtype not in self._cast:
            self._cast[dtype] = self.sample.to(dtype).float().numpy()
        return self._cast[dtype]


class Provenance:
    """Remembers tensors by a sample of their values, and finds them again inside of others. Thread-safe."""

    def __init__(self) -> None:
        self.texts: dict[Origin, str] = {}
        """What each text of an encoder says."""
        self._known: list[_Known] = []
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._known)

    def note(
        self,
        tensors: Iterable[Tensor],
        origins: Sequence[tuple[Origin, ...]],
        *,
        content: Tensor | None = None,
        firsts: Sequence[int] | None = None,
    ) -> None:
        """Remember what belongs to these rows.

        Args:
            tensors: (row, token, channel), or (row, channel) for vectors of whole texts; others are passed over.
            origins: What each row is.
            content: Not 0 where a token is no padding, shape (row, token).
            firsts: Token of the text that each row begins with; 0 by default.
        """
        for tensor in tensors:
            if tensor.dim() not in (2, 3) or len(tensor) != len(origins) or not tensor.is_floating_point():
                continue
            whole = tensor.detach() if tensor.dim() == 3 else tensor.detach()[:, None]
            width = whole.shape[-1]
            if width < 2 or not whole.numel():
                continue
            channels = sorted({round(at) for at in np.linspace(0, width - 1, min(_CHANNELS, width))})
            index = torch.tensor(channels, device=whole.device)
            fits = content is not None and content.shape == whole.shape[:2]
            known = _Known(
                sample=whole.index_select(2, index),
                channels=channels,
                width=width,
                origins=tuple(origins),
                firsts=tuple(firsts or [0] * len(origins)),
                content=content.detach().clone() if fits and content is not None else None,
                tokens=tensor.dim() == 3,
            )
            with self._lock:
                self._known.append(known)
                del self._known[:-_MOST_KNOWN]

    def find(self, given: Tensor) -> list[tuple[Placement, ...]]:
        """The texts in each entry of a batch, by position.

        Args:
            given: (entry, token, channel), or (entry, channel).

        Returns:
            Of each entry, what could be proven: every token of a text that is there is the same to the bit.
        """
        whole = given.detach() if given.dim() == 3 else given.detach()[:, None]
        found: list[dict[tuple[str, int, int], tuple[int, Placement]]] = [{} for _ in range(len(whole))]
        with self._lock:
            known = list(reversed(self._known))
        if not known or not whole.is_floating_point() or not whole.numel():
            return [() for _ in found]
        values, tokens = whole.cpu().float().numpy() + np.float32(0), given.dim() == 3
        for own, offset in _offsets(known, values.shape[-1]):
            sample = values[..., [offset + channel for channel in own.channels]]
            if own.tokens != tokens and own.tokens:
                continue
            for entry, same, placement in _matches(own, own.values(given.dtype) + np.float32(0), sample):
                key = (placement.origins[-1].source, placement.start, offset)
                before = found[entry].get(key)
                if before is None or before[0] < same:
                    found[entry][key] = same, placement
                elif before[0] == same:
                    found[entry][key] = same, _either(before[1], placement)
        placed = [[placement for _, placement in own.values()] for own in found]
        return [tuple(sorted(own, key=lambda placement: placement.start)) for own in placed]

    def derive(self, inputs: Iterable[Tensor], outputs: Iterable[Tensor]) -> None:
        """Follow a module that made `outputs` of embeddings: their rows are those of its inputs."""
        for tensor in inputs:
            if tensor.dim() not in (2, 3) or not tensor.is_floating_point():
                continue
            rows = self.find(tensor)
            if rows and all(rows):
                firsts = [placements[0].first - placements[0].start for placements in rows]
                origins = [
                    tuple(dict.fromkeys(origin for placement in placements for origin in placement.origins))
                    for placements in rows
                ]
                kept = [made for made in outputs if made.dim() == 2 or made.shape[1] == tensor.shape[1]]
                self.note(kept, origins, firsts=firsts)
                return


def _either(newer: Placement, older: Placement) -> Placement:
    """Two texts of which the same tokens are there."""
    return replace(newer, origins=tuple(dict.fromkeys((*older.origins, *newer.origins))))


def _offsets(known: Sequence[_Known], width: int) -> Iterable[tuple[_Known, int]]:
    """Channels at which each tensor may begin where several stand side by side: sums of their widths."""
    widths = {own.width for own in known if own.width <= width}
    reached = {0}
    for _ in range(_MOST_OFFSETS):
        further = {at + step for at in reached for step in widths if at + step < width} - reached
        if not further or len(reached) > _MOST_OFFSETS:
            break
        reached |= further
    for own in known:
        for offset in sorted(reached)[:_MOST_OFFSETS]:
            if offset + own.width <= width:
                yield own, offset


def _matches(
    own: _Known, values: NDArray[np.float32], sample: NDArray[np.float32]
) -> Iterable[tuple[int, int, Placement]]:
    """Entries of `sample` that hold a row of `values`, both (row, token, channel), and in how many tokens."""
    known, given = _as_words(values), _as_words(sample)
    telling = _tells(sample)
    if not (np.isin(given, known) & telling).any():
        return
    places: dict[bytes, list[tuple[int, int]]] = {}
    for row, token in np.argwhere(_tells(values)).tolist():
        places.setdefault(known[row, token].tobytes(), []).append((row, token))
    content = None if own.content is None else own.content.cpu().numpy() != 0
    for entry in range(len(sample)):
        seen = [
            (at, row, token)
            for at in np.flatnonzero(telling[entry]).tolist()
            for row, token in places.get(given[entry, at].tobytes(), ())
        ]
        shifts = Counter((row, token - at) for at, row, token in seen)
        whole = {
            (row, shift): count
            for (row, shift), count in shifts.items()
            if _is_whole(
                known[row], given[entry], shift, blank=~telling[entry], needed=None if content is None else content[row]
            )
        }
        best = max(whole.values(), default=0)
        rows = sorted(place for place, count in whole.items() if count == best)
        if not rows:
            continue
        shift = rows[0][1]
        origins = dict.fromkeys(origin for row, other in rows if other == shift for origin in own.origins[row])
        start, stop = max(0, -shift), min(sample.shape[1], known.shape[1] - shift)
        first = start + shift + own.firsts[rows[0][0]]
        yield entry, best, Placement(tuple(origins), start, first, stop - start, own.tokens)


def _is_whole(
    own: NDArray[np.void],
    given: NDArray[np.void],
    shift: int,
    *,
    blank: NDArray[np.bool_],
    needed: NDArray[np.bool_] | None,
) -> bool:
    """Whether all tokens of a text that have a place in the entry are there.

    Args:
        own: Of the text.
        given: Of the entry.
        shift: What to add to a position in the entry for the token of the text.
        blank: Positions of the entry that say nothing.
        needed: Tokens of the text that must be there; None where the encoder was not told what is padding, so that
            all that are not blanked must.
    """
    start, stop = max(0, -shift), min(len(given), len(own) - shift)
    if stop <= start:
        return False
    same = own[start + shift : stop + shift] == given[start:stop]
    asked = ~blank[start:stop] if needed is None else needed[start + shift : stop + shift]
    return bool(same[asked].all()) and bool(same.any())


def _as_words(values: NDArray[np.float32]) -> NDArray[np.void]:
    """Each vector as one value that compares by its bytes."""
    dense = np.ascontiguousarray(values)
    return dense.view(np.dtype((np.void, dense.shape[-1] * dense.itemsize)))[..., 0]


def _tells(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which vectors say something: those of one value throughout (zeros, NaN) may come from anywhere."""
    found: NDArray[np.bool_] = np.isfinite(values).all(-1) & (values != values[..., :1]).any(-1)
    return found

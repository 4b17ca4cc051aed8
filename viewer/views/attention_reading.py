"""Computing what the attention view shows, in parts where it takes longer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from diffusion_xray.tracer.attention.info import AttentionInfo
from diffusion_xray.tracer.attention.word_map import enlarged
from diffusion_xray.tracer.capture import matches

from ..reader import Reader
from .attention_picture import picture_below
from .attention_seen import Seen, Tiles, asked_of, frame_of
from .attention_source import Asked, Floats, Hurry, Kind, Source, alike, kinds_of, same_entry
from .attention_wish import Wish
from .protocol import Request

__all__ = ["Place", "Reading"]

_COSTLY: Final = 2 << 30
"""Scores that the shares over all steps may take; of more, some steps are sampled."""
_FEWEST: Final = 5
_SHORT: Final = 3
"""Letters of a word that is not the first to be looked at."""


@dataclass(frozen=True, slots=True)
class Place:
    """One entry of the batch of one call, and which of how many it is."""

    call: AttentionInfo
    entry: int
    number: int
    of: int


class Reading:
    """One answer in the making."""

    def __init__(self, reader: Reader, request: Request, place: Place, scope: str) -> None:
        self._reader, self._attentions, self._place = reader, reader.trace.attentions, place
        self._wish = wish = request.wish if isinstance(request.wish, Wish) else Wish()
        self._call = call = place.call
        self._steps = request.steps
        self._step = request.step if call.stepped else 0
        self._hurry = Hurry(reader)
        kinds = kinds_of(call)
        self._kinds = tuple(kinds)
        self._kind: Kind = kinds[-1] if wish.places else kinds[0]
        self._entry = place.entry
        self._head = call.heads[wish.head % len(call.heads)]
        self._scope = scope if self._kind != "tokens" else ""
        self._absent = self._unread = False
        self._done = self._total = 0

    def found(self) -> Seen:
        """What is there by now."""
        own = Source.of(self._attentions, self._hurry, self._call, self._entry, self._kind, step=self._step)
        seen = Seen(
            wish=self._wish,
            call=self._call,
            kind=self._kind,
            kinds=self._kinds,
            entry=self._place.number,
            entries=self._place.of,
            branch=self._attentions.branches(self._call, self._step)[self._entry],
            head=self._head,
            step=self._step,
            sources=(own,),
            names=own.queries.names,
            special=own.queries.special,
            keys=own.keys.names,
            grid=() if self._kind == "tokens" else own.rows.shape,
            picture=None
            if self._kind == "tokens"
            else picture_below(self._reader, self._call, self._entry, self._step, self._wish.frame),
        )
        if self._kind == "tokens":
            seen = self._tokens(own, seen)
        elif self._wish.spread or self._scope:
            seen = self._several(own, seen)
        else:
            seen = self._one(own, seen)
        return replace(seen, done=self._done, total=self._total, absent=self._absent, unread=self._unread)

    def _stack(self, source: Source, asked: Asked, *, every: bool = False) -> Floats | None:
        """Shares of the heads that were asked for and are there by now, shape (head, word or 1, *grid)."""
        found = []
        units = source.units(asked, self._heads(source, every=every))
        self._total += len(units)
        for unit in units:
            if self._hurry.over:
                break
            shares = source.shares(self._hurry, self._step, unit, asked)
            if isinstance(shares, str):
                self._absent = True
            elif shares is None:
                self._unread = True
            else:
                found.append(shares)
            self._done += 1
        return np.concatenate(found) if found else None

    def _heads(self, source: Source, *, every: bool = False) -> list[int]:
        """Places of the heads to read."""
        places = list(range(len(source.call.heads)))
        if every or self._wish.heads != "single" or self._wish.spread:
            return places
        return [places[self._wish.head % len(places)]]

    def _over_heads(self, stack: Floats) -> Floats:
        joined: Floats = stack.max(axis=0) if self._wish.heads == "max" else stack.mean(axis=0, dtype=np.float32)
        return joined

    def _flat(self, stack: Floats) -> Floats:
        """Maps without frames."""
        return stack[:, :, frame_of(stack.shape[2:], self._wish.frame)] if stack.ndim == 5 else stack

    def _chosen(self, names: Sequence[str], special: Sequence[bool], mass: Floats | None) -> tuple[int, ...]:
        wanted = [name for name in (self._wish.word, *self._wish.added) if name in names]
        if wanted and (self._wish.word in names):
            return tuple(names.index(name) for name in dict.fromkeys(wanted))
        plain = [at for at in range(len(names)) if not special[at]] or list(range(len(names)))
        plain = [at for at in plain if len(names[at]) > _SHORT] or plain  # "a", "on": there attention rests only
        if not plain:
            return ()
        first = plain[-1] if mass is None else max(plain, key=lambda at: float(np.nan_to_num(mass[at])))
        return tuple(dict.fromkeys([first, *(names.index(name) for name in wanted)]))

    def _one(self, own: Source, seen: Seen) -> Seen:
        """The map of one layer."""
        stack = self._stack(own, asked_of(own, self._wish))
        further = self._done < self._total
        seen = replace(seen, layers=(own.name,), further=further)
        if stack is None:  # other steps may be there
            chosen = self._chosen(seen.names, seen.special, None) if self._kind == "words" and not further else ()
            over, broken, more = (None, (), further) if further else self._over_steps(own, chosen)
            return replace(seen, chosen=chosen, over_steps=over, broken=broken, further=more)
        frame = frame_of(own.rows.shape, self._wish.frame) if stack.ndim == 5 else 0
        flat = self._flat(stack)
        if self._kind == "places":
            grid = stack.shape[2:]
            return replace(seen, map=self._over_heads(flat)[0], grid=grid, frame=frame)
        mass = stack.mean(axis=(0, *range(2, stack.ndim)), dtype=np.float32)
        chosen = self._chosen(seen.names, seen.special, mass)
        over, broken, more = (None, (), True) if further else self._over_steps(own, chosen)
        return replace(
            seen,
            mass=mass,
            chosen=chosen,
            maps=self._over_heads(flat),
            map=self._over_heads(flat[:, list(chosen)].sum(axis=1, keepdims=True))[0] if chosen else None,
            frame=frame,
            over_steps=over,
            broken=broken,
            further=further or more,
        )

    def _tokens(self, own: Source, seen: Seen) -> Seen:
        """A row of token × token."""
        stack = self._stack(own, ("words", 0))
        further = self._done < self._total
        same = own.keys.names == own.queries.names
        mass = stack.mean(axis=(0, 2), dtype=np.float32) if stack is not None and same else None
        chosen = self._chosen(seen.names, seen.special, mass)[:1]
        seen = replace(seen, layers=(own.name,), mass=mass, chosen=chosen, further=further)
        if stack is None or not chosen:
            return seen
        joined = self._over_heads(stack)  # (key, position)
        rows = np.stack(
            [  # pieces of a word together; of a folded end its first position
                joined[:, list(positions[:1] if special else positions)].mean(axis=1)
                for positions, special in zip(own.queries.positions, own.queries.special, strict=True)
            ]
        )
        if not self._wish.reverse:
            return replace(seen, row=rows[chosen[0]])
        name = seen.names[chosen[0]]
        if name not in own.keys.names:
            return seen
        return replace(seen, row=rows[:, own.keys.names.index(name)], keys=seen.names)

    def _several(self, own: Source, seen: Seen) -> Seen:
        """Maps of several layers: their mean, or one for every head of each."""
        sources = self._sources(own) if self._scope or self._wish.spread == "layers" else [own]
        stacks = [
            self._stack(source, asked_of(source, self._wish), every=bool(self._wish.spread)) for source in sources
        ]
        further = self._done < self._total
        mass = _mean_mass(seen.names, sources, stacks) if self._kind == "words" else None
        chosen = self._chosen(seen.names, seen.special, mass) if mass is not None else ()
        names = [seen.names[at] for at in chosen]
        seen = replace(
            seen,
            sources=tuple(sources),
            layers=tuple(source.name for source in sources),
            scope=self._scope or (f"{self._call.module.split('.', 1)[0]}.**" if len(sources) > 1 else ""),
            mass=mass,
            chosen=chosen,
            further=further,
        )
        picked = [
            None if stack is None else self._picked(source, stack, names)
            for source, stack in zip(sources, stacks, strict=True)
        ]
        if self._wish.spread:
            return replace(seen, tiles=_tiles(sources, picked))
        known = [plane for plane in picked if plane is not None]
        if not known:
            return seen
        grid = tuple(max(sizes) for sizes in zip(*(plane.shape[1:] for plane in known), strict=True))
        planes = np.stack([enlarged(self._over_heads(plane), grid) for plane in known])
        return replace(seen, map=self._over_heads(planes), grid=grid)

    def _picked(self, source: Source, stack: Floats, names: Sequence[str]) -> Floats | None:
        """Maps of each head, shape (head, y, x), of what is chosen."""
        flat = self._flat(stack)
        if self._kind == "places":
            return flat[:, 0]
        columns = [source.keys.names.index(name) for name in names if name in source.keys.names]
        return flat[:, columns].sum(axis=1) if columns else None

    def _sources(self, own: Source) -> list[Source]:
        """The layers that can be shown together."""
        scope = self._scope or f"{self._call.module.split('.', 1)[0]}.**"
        fits = matches(scope)
        named = self._attentions.by_module.items()
        calls = [self._attentions.at(call, self._step) for name, listed in named if fits(name) for call in listed]
        found = []
        for call in alike(calls, self._kind, stepped=self._call.stepped):
            entry = same_entry(self._attentions, self._call, self._entry, call, self._step)
            if call == self._call:
                found.append(own)
            elif entry is not None:
                found.append(Source.of(self._attentions, self._hurry, call, entry, self._kind, step=self._step))
        return found

    def _over_steps(self, own: Source, chosen: Sequence[int]) -> tuple[Floats | None, tuple[int, ...], bool]:
        """The share of what is chosen at every step, those that cannot be read, and whether some are still to come."""
        if not self._call.stepped or self._steps < 2 or not chosen:
            return None, (), False
        heads = self._heads(own)
        over = np.full(self._steps, np.nan, np.float32)
        broken: list[int] = []
        cost = own.rows.size * own.call.shape[3] * len(heads) * self._steps
        count = max(min(self._steps, self._steps * _COSTLY // cost), min(_FEWEST, self._steps))
        sampled = {int(step) for step in np.linspace(0, self._steps - 1, count).round()} | {self._step}
        of_text = {step for step in sampled if self._attentions.are_alike(self._call, step, self._step)}
        sources = {own.call.form: own}
        for step in sorted(of_text, key=lambda step: abs(step - self._step)):
            known: list[Floats] = []
            source = self._source_at(step, sources)
            if source is None:
                continue
            for unit in source.units(("words", 0), heads):
                if self._hurry.over:
                    return over, tuple(broken), True
                masses = source.masses(self._hurry, step, unit)
                if masses is None:
                    broken.append(step)
                if masses is None or isinstance(masses, str):
                    break
                known.append(masses)
            else:
                over[step] = np.concatenate(known)[:, list(chosen)].sum(axis=1).mean()
        return over, tuple(sorted(broken)), False

    def _source_at(self, step: int, known: dict[int, Source]) -> Source | None:
        """The call as it was at another step; None where it had no map, or other heads or entries."""
        call, own = self._attentions.at(self._call, step), known[self._call.form]
        if call.form not in known:
            if call.reason or call.heads != own.call.heads or self._entry >= call.shape[0]:
                return None
            known[call.form] = Source.of(self._attentions, self._hurry, call, self._entry, self._kind, step=step)
        return known[call.form]


def _mean_mass(names: Sequence[str], sources: Sequence[Source], stacks: Sequence[Floats | None]) -> Floats | None:
    """The share of each word, mean over the layers that have it."""
    known: dict[str, list[float]] = {name: [] for name in names}
    for source, stack in zip(sources, stacks, strict=True):
        if stack is not None:
            mass = stack.mean(axis=(0, *range(2, stack.ndim)), dtype=np.float64)
            for name, share in zip(source.keys.names, mass.tolist(), strict=True):
                known.get(name, []).append(share)
    if not any(known.values()):
        return None
    return np.array([np.mean(shares) if shares else np.nan for shares in known.values()], np.float32)


def _tiles(sources: Sequence[Source], picked: Sequence[Floats | None]) -> Tiles:
    heads = sorted({head for source in sources for head in source.call.heads})
    rows = []
    for source, planes in zip(sources, picked, strict=True):
        own = source.call.heads
        row = [
            planes[own.index(head)] if planes is not None and head in own and own.index(head) < len(planes) else None
            for head in heads
        ]
        rows.append(tuple(row))
    return Tiles(tuple(source.name for source in sources), tuple(heads), tuple(rows))

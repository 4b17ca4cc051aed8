"""What the attention view reads: maps and shares of what was asked for, in parts where it takes longer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from diffusion_xray.tracer.attention_info import AttentionInfo, Attentions
from diffusion_xray.tracer.capture import matches
from diffusion_xray.tracer.info import SiteInfo
from diffusion_xray.tracer.texts import CONDITIONAL
from diffusion_xray.tracer.word_map import enlarged

from ..reader import Reader
from .attention_source import Asked, Floats, Hurry, Kind, Source, alike, kinds_of, same_entry
from .attention_wish import Wish
from .protocol import Missing, Request

__all__ = ["Offer", "Seen", "Tiles", "read_attention"]

_CODE: Final = 'Tracer(pipe, "run.zarr", capture="attention")'
_COSTLY: Final = 2 << 30
"""Scores that the shares over all steps may take; of more, some steps are sampled."""
_FEWEST: Final = 5
_SHORT: Final = 3
"""Letters of a word that is not the first to be looked at."""


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """Layers that attend, in place of one that does not."""

    calls: tuple[AttentionInfo, ...]
    below: bool
    """Whether they lie below the layer; else they are its neighbours."""


@dataclass(frozen=True, slots=True, eq=False)
class Tiles:
    """Small maps in rows and columns."""

    rows: tuple[str, ...]
    columns: tuple[int, ...]
    """Numbers of the heads."""
    maps: tuple[tuple[Floats | None, ...], ...]
    """None where there is no such head, or it is not there yet."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Attention of one layer, or of several, at one step."""

    wish: Wish
    call: AttentionInfo
    kind: Kind
    kinds: tuple[Kind, ...]
    """All that this layer can show."""
    entry: int = 0
    """Of the batch, or of the batches of several calls."""
    entries: int = 1
    branch: str = ""
    head: int = 0
    """The number of the single head."""
    layers: tuple[str, ...] = ()
    scope: str = ""
    """The pattern that the layers match; "" for one layer."""
    names: tuple[str, ...] = ()
    """Words, or tokens of the queries."""
    special: tuple[bool, ...] = ()
    chosen: tuple[int, ...] = ()
    """Places of the words chosen, that under the cursor first."""
    mass: Floats | None = None
    """The share of each word, averaged over all positions."""
    maps: Floats | None = None
    """Of all words, shape (word, y, x)."""
    map: Floats | None = None
    """Of what is chosen, shape (y, x)."""
    grid: tuple[int, ...] = ()
    frame: int = 0
    tiles: Tiles | None = None
    keys: tuple[str, ...] = ()
    row: Floats | None = None
    """Shares of the keys, or of the queries that look at a token."""
    over_steps: Floats | None = None
    """Share of what is chosen at every step; NaN where it is not known."""
    broken: tuple[int, ...] = ()
    """Steps that cannot be read."""
    picture: NDArray[np.uint8] | None = None
    """What the maps lie over, shape (y, x, 3)."""
    done: int = 0
    total: int = 0
    """How far the computation is."""
    absent: bool = False
    """Whether queries and keys were not kept at this step."""
    unread: bool = False
    """Whether they cannot be read."""
    further: bool = field(default=False)
    """Whether there is more to compute."""

    @property
    def query(self) -> tuple[int, int]:
        """The cell under the cursor, (y, x)."""
        return cell_of(self.wish.place, self.grid[-2:] or (1, 1))


def cell_of(place: tuple[float, float], grid: Sequence[int]) -> tuple[int, int]:
    """The cell of a grid that holds a relative place."""
    y, x = (min(max(int(at * size), 0), size - 1) for at, size in zip(place, grid, strict=True))
    return y, x


def read_attention(reader: Reader, request: Request) -> Seen | Offer | Missing | None:
    """What is asked for, as far as it could be computed in a moment."""
    site = request.site
    if site is None:
        return None
    wish = request.wish if isinstance(request.wish, Wish) else Wish()
    attentions = reader.trace.attentions
    calls, scope = attentions.by_module.get(site.name, ()), ""
    if not calls:
        instead = _instead(attentions, site)
        if not (wish.wide and isinstance(instead, Offer) and instead.below):
            return instead
        calls, scope = instead.calls, f"{site.name}.**"
    elif wish.wide:
        scope = f"{site.name.split('.', 1)[0]}.**"
    shown = [call for call in calls if not call.reason]
    if not shown:
        why = calls[0].reason.split("; trace with")[0]
        return Missing(
            f"There is no attention map of this layer: {why}.", _code(site.name) if "not kept" in why else ""
        )
    call, entry, entries = _entry(attentions, shown, site, wish)
    if call.stepped and not 0 <= request.step < request.steps:
        return None
    return _Reading(reader, request, Place(call, entry, *entries), scope).found()


@dataclass(frozen=True, slots=True)
class Place:
    """One entry of the batch of one call, and which of how many it is."""

    call: AttentionInfo
    entry: int
    number: int
    of: int


def _code(name: str) -> str:
    return f'Tracer(pipe, "run.zarr", capture=Capture(attention={name!r}))'


def _instead(attentions: Attentions, site: SiteInfo) -> Offer | Missing:
    """Layers that attend below this one, or else below the closest that it lies in; or what would have recorded it."""
    around = site.name
    while around:
        inside = [
            calls[0] for name, calls in attentions.by_module.items() if name == around or name.startswith(f"{around}.")
        ]
        if inside:
            return Offer(tuple(inside), below=around == site.name)
        around = around.rpartition(".")[0]
    if "attention" in f"{site.module_class} {site.name.rpartition('.')[2]}".lower():
        return Missing("No attention of this layer was recorded. To record it, trace with", _code(site.name))
    return Missing("No attention was recorded here. To record that of every layer, trace with", _CODE)


def _entry(
    attentions: Attentions, calls: Sequence[AttentionInfo], site: SiteInfo, wish: Wish
) -> tuple[AttentionInfo, int, tuple[int, int]]:
    """The call and entry to show. Guidance branches are entries of one call, or calls of their own."""
    if any(call.module != site.name for call in calls):  # a layer that holds several
        calls = [call for call in calls if kinds_of(call)[0] == "words"][:1] or calls[:1]
    places = [(call, entry) for call in calls for entry in range(call.shape[0])]
    named = [attentions.branches(call)[entry] for call, entry in places]
    own = [
        call for call in calls[1:] if any(part and part.key == site.key for part in (call.query, call.key, call.mask))
    ]
    if wish.entry is not None:
        at = wish.entry % len(places)
    elif own:
        at = places.index((own[0], 0))
    else:
        at = named.index(CONDITIONAL) if CONDITIONAL in named else 0
    return (*places[at], (at, len(places)))


class _Reading:
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
        own = Source.of(self._attentions, self._hurry, self._call, self._entry, self._kind)
        seen = Seen(
            wish=self._wish,
            call=self._call,
            kind=self._kind,
            kinds=self._kinds,
            entry=self._place.number,
            entries=self._place.of,
            branch=self._attentions.branches(self._call)[self._entry],
            head=self._head,
            names=own.queries.names,
            special=own.queries.special,
            keys=own.keys.names,
            grid=() if self._kind == "tokens" else own.rows.shape,
            picture=None if self._kind == "tokens" else self._picture(),
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

    def _asked(self, source: Source) -> Asked:
        if self._kind == "words":
            return "words", 0
        part = source.columns if self._wish.reverse else source.rows
        y, x = cell_of(self._wish.place, part.shape[-2:])
        frame = _frame(part.shape, self._wish.frame)
        at = frame * math.prod(part.shape[-2:]) + y * part.shape[-1] + x
        return ("to" if self._wish.reverse else "from"), at

    def _flat(self, stack: Floats) -> Floats:
        """Maps without frames."""
        return stack[:, :, _frame(stack.shape[2:], self._wish.frame)] if stack.ndim == 5 else stack

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
        stack = self._stack(own, self._asked(own))
        further = self._done < self._total
        seen = replace(seen, layers=(own.name,), further=further)
        if stack is None:  # other steps may be there
            chosen = self._chosen(seen.names, seen.special, None) if self._kind == "words" and not further else ()
            over, broken, more = (None, (), further) if further else self._over_steps(own, chosen)
            return replace(seen, chosen=chosen, over_steps=over, broken=broken, further=more)
        frame = _frame(own.rows.shape, self._wish.frame) if stack.ndim == 5 else 0
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
        stacks = [self._stack(source, self._asked(source), every=bool(self._wish.spread)) for source in sources]
        further = self._done < self._total
        mass = _mean_mass(seen.names, sources, stacks) if self._kind == "words" else None
        chosen = self._chosen(seen.names, seen.special, mass) if mass is not None else ()
        names = [seen.names[at] for at in chosen]
        seen = replace(
            seen,
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
        calls = [call for name, listed in self._attentions.by_module.items() if fits(name) for call in listed]
        found = []
        for call in alike(calls, self._kind, stepped=self._call.stepped):
            entry = same_entry(self._attentions, self._call, self._entry, call)
            if call is self._call:
                found.append(own)
            elif entry is not None:
                found.append(Source.of(self._attentions, self._hurry, call, entry, self._kind))
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
        for step in sorted(sampled, key=lambda step: abs(step - self._step)):
            known: list[Floats] = []
            for unit in own.units(("words", 0), heads):
                if self._hurry.over:
                    return over, tuple(broken), True
                masses = own.masses(self._hurry, step, unit)
                if masses is None:
                    broken.append(step)
                if masses is None or isinstance(masses, str):
                    break
                known.append(masses)
            else:
                over[step] = np.concatenate(known)[:, list(chosen)].sum(axis=1).mean()
        return over, tuple(sorted(broken)), False

    def _picture(self) -> NDArray[np.uint8] | None:
        """The picture that the model predicts at this step, else what the run returned."""
        trace = self._reader.trace
        image = self._image()
        frames = None
        if self._call.stepped:
            frames = self._reader.once(("preview_x0", self._step), lambda: trace.step_array("preview_x0", self._step))
        if frames is None:
            frames = self._reader.once(("images",), lambda: trace.images)
        return _rgb(frames, image, self._wish.frame)

    def _image(self) -> int:
        branches = self._attentions.branches(self._call)
        return branches[: self._entry].count(branches[self._entry])


def _rgb(frames: Any, image: int, frame: int | None) -> NDArray[np.uint8] | None:
    """One picture of several as (y, x, 3), or nothing where it has another form."""
    if frames is None or frames.ndim not in (4, 5) or image >= len(frames) or frames.shape[-1] not in (1, 3, 4):
        return None
    picture = frames[image]
    if picture.ndim == 4:
        picture = picture[_frame(picture.shape[:3], frame)]
    if picture.dtype != np.uint8:
        picture = (np.nan_to_num(picture.astype(np.float32)).clip(0, 1) * 255).round().astype(np.uint8)
    colours: NDArray[np.uint8] = picture[..., :3] if picture.shape[-1] >= 3 else picture[..., :1].repeat(3, axis=-1)
    return colours if colours.size else None


def _frame(shape: Sequence[int], wanted: int | None) -> int:
    if len(shape) < 3:
        return 0
    return shape[0] // 2 if wanted is None else wanted % shape[0]


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

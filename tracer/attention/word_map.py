"""Attention of an image to words, over layers of different resolution. `AttentionReader` tells the formula."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..capture import matches
from ..errors import SiteNotFoundError, near_matches
from .info import AttentionInfo, Attentions, entry_of
from .inputs import Inputs
from .maps import attend
from .texts import CONDITIONAL, words_at
from .tokens import Part
from .use import said
from .words import Word, find_phrase, unique

if TYPE_CHECKING:
    import xarray

__all__ = ["Choice", "Layer", "enlarged", "head_maps", "layers_of", "where_else", "word_map", "word_mass", "words_of"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which attention to look at."""

    layers: str | None = None
    heads: int | Sequence[int] | None = None
    branch: str = CONDITIONAL
    image: int = 0


@dataclass(frozen=True, slots=True)
class Layer:
    """One attention call of image positions to text, for one image."""

    call: AttentionInfo
    inputs: Inputs
    entry: int
    """Of the batch."""
    heads: tuple[int, ...]
    """Places of the heads chosen, which are not their numbers where only some were kept."""
    image: Part
    words: tuple[Word, ...]

    @property
    def name(self) -> str:
        """Path of the module, with the number of the call behind a colon from the second on."""
        return f"{self.call.module}:{self.call.call}" if self.call.call else self.call.module

    def shares(self, step: int, groups: Sequence[Sequence[int]]) -> Floats | None:
        """Attention of every position to groups of keys, shape (head, group, *grid); None where not captured."""
        given = self.inputs.of(step, self.entry, self.heads)
        if given is None:
            return None
        query, key, mask = given
        members = np.zeros((key.shape[1], len(groups)), np.float32)
        for column, positions in enumerate(groups):
            members[list(positions), column] = 1
        options: dict[str, Any] = {"scale": self.call.scale, "mask": mask, "causal": self.call.causal}
        found = attend(query, key, members, rows=self.image.span, **options)
        return np.moveaxis(found, -1, 1).reshape(len(self.heads), len(groups), *self.image.shape)


@dataclass(frozen=True, slots=True)
class _Scene:
    """Steps in which the same layers see the same texts."""

    steps: tuple[int, ...]
    layers: tuple[Layer, ...]


def _scenes(
    attentions: Attentions,
    steps: Sequence[int],
    choice: Choice,
    words: Sequence[str | None] = (),
    occurrence: int | None = None,
) -> list[_Scene]:
    """The steps by what is seen in them, without those whose text has not all of the words.

    Raises:
        SiteNotFoundError: No step is left.
    """
    firsts = attentions.first_steps([call for calls in attentions.by_module.values() for call in calls])
    groups: dict[int, list[int]] = {}
    for step in steps:
        groups.setdefault(max(first for first in firsts if first <= step), []).append(step)
    found: list[_Scene] = []
    error: SiteNotFoundError | None = None
    for own in groups.values() if steps else ([0],):
        try:
            layers = layers_of(attentions, choice, own[0])
            for layer in layers:
                for word in words:
                    if word is not None:
                        find_phrase(layer.words, word, occurrence=occurrence)
        except SiteNotFoundError as missing:
            error = error or missing
        else:
            found.append(_Scene(tuple(own) if steps else (), tuple(layers)))
    if error is not None and not found:
        missing_words = [word for word in words if word is not None]
        raise SiteNotFoundError(f"{error}{_hint(attentions, missing_words, choice)}") from error
    return found


def where_else(attentions: Attentions, word: str, choice: Choice) -> tuple[Choice, int] | None:
    """Another image or branch of the batch, or else another step, whose text has a word; None where none has."""
    calls = [call for listed in attentions.by_module.values() for call in listed if call.stepped and _sees_text(call)]
    for step in attentions.first_steps(calls):
        for call in (attentions.at(call, step) for call in calls[:1]):
            branches = attentions.branches(call, step)
            for entry, branch in sorted(enumerate(branches), key=lambda pair: pair[1] not in (choice.branch, "")):
                image = branches[:entry].count(branch)
                words = words_at(attentions.texts(call, step), entry)
                if _has(words, word):
                    return replace(choice, branch=branch or CONDITIONAL, image=image), step
    return None


def _has(words: Sequence[Word], phrase: str) -> bool:
    try:
        return bool(find_phrase(words, phrase))
    except SiteNotFoundError:
        return False


def _hint(attentions: Attentions, words: Sequence[str], choice: Choice) -> str:
    """A sentence on where a word is that the text asked about has not."""
    for word in words:
        try:
            if _has(words_of(attentions, choice), word):
                continue
        except SiteNotFoundError:
            return ""
        cut = next((p.encoder for p in attentions.prompts for rest in p.cut if word.casefold() in rest.casefold()), "")
        if cut:
            return f" {word!r} was cut off: the prompt is longer than {cut} reads."
        place = where_else(attentions, word, choice)
        if place is not None and place[0].image != choice.image:
            return f" The prompt of image {place[0].image} has {word!r}."
    return ""


def layers_of(attentions: Attentions, choice: Choice, step: int | None = None) -> list[Layer]:
    """The layers in which the image chosen attends to a text that is known, at a step; at the first by default.

    Raises:
        SiteNotFoundError: There is none; the message says why.
    """
    fits = matches(choice.layers) if choice.layers is not None else None
    named = {name: calls for name, calls in attentions.by_module.items() if fits is None or fits(name)}
    if not named:
        known = attentions.by_module
        if not known:
            raise SiteNotFoundError(
                "no attention was recorded; trace with capture='attention', or Capture(attention=...)"
            )
        plain = str(choice.layers).replace("*", "").strip(".")
        readers = (name for name, calls in known.items() if any(map(_sees_text, calls)))
        near = near_matches(plain, known) or f" One that does is {next(readers, next(iter(known)))}."
        raise SiteNotFoundError(f"layers={choice.layers!r} matches no module that attends.{near}")
    named = {name: tuple(attentions.at(call, step) for call in calls) for name, calls in named.items()}
    shown = [
        call for calls in named.values() for call in calls if not call.reason and call.stepped and _sees_text(call)
    ]
    if not shown:
        reasons = {call.reason for calls in named.values() for call in calls if call.reason}
        kinds = {call.kind for calls in named.values() for call in calls if not call.reason and not _sees_text(call)}
        count = "the module that attends" if len(named) == 1 else f"the {len(named)} modules that attend"
        why = f": {min(reasons)}" if reasons else f", only {' and '.join(sorted(kinds))}-attention" if kinds else ""
        raise SiteNotFoundError(f"no attention of an image to text is in {count}{why}")
    found = [layer for call in shown if (layer := _layer(attentions, call, choice, step)) is not None]
    if found:
        return found
    branches = dict.fromkeys(branch or CONDITIONAL for call in shown for branch in attentions.branches(call, step))
    if choice.branch not in branches:
        raise SiteNotFoundError(f"no guidance branch {choice.branch!r}; the trace has {', '.join(branches)}")
    if all(entry_of(attentions.branches(call, step), choice.branch, choice.image) is None for call in shown):
        raise SiteNotFoundError(f"no image {choice.image} in the branch {choice.branch!r}, counted from 0")
    heads = dict.fromkeys(head for call in shown for head in call.heads)
    if not any(_places_of(call, choice.heads) for call in shown):
        raise SiteNotFoundError(f"no head {choice.heads!r} in these layers; they have {', '.join(map(str, heads))}")
    raise SiteNotFoundError(
        "which text the keys belong to is not known: no prompt has their length, or several do; "
        "trace.attention(module) has them by position"
    )


def words_of(attentions: Attentions, choice: Choice, step: int | None = None) -> tuple[Word, ...]:
    """The words an image attends to at a step, positions counted from the start of the text."""
    layer = layers_of(attentions, choice, step)[0]
    start = next(part.start for part in layer.call.key_parts if part.kind == "text")
    return tuple(word.moved(-start) for word in layer.words)


def word_map(
    attentions: Attentions, words: Sequence[str], steps: Sequence[int], choice: Choice, occurrence: int | None = None
) -> xarray.DataArray:
    """The maps of words, (word, step, y, x) or (word, step, frame, y, x)."""
    import xarray

    scenes = _scenes(attentions, steps, choice, words, occurrence)
    layers = _layers_in(scenes)
    grid = _common_grid(layers)
    total = np.zeros((len(words), len(steps), *grid), np.float32)
    counts, places = np.zeros(len(steps), np.float32), {step: at for at, step in enumerate(steps)}
    for scene, layer in _each(scenes):
        groups = [find_phrase(layer.words, word, occurrence=occurrence) for word in words]
        for step in scene.steps:  # each layer through all its steps: a constant key is read once
            at, shares = places[step], layer.shares(step, groups)
            if shares is not None:
                for column, plane in enumerate(shares.mean(axis=0)):
                    total[column, at] += enlarged(plane, grid)
                counts[at] += 1
    total /= np.where(counts, counts, np.nan).reshape(-1, *(1 for _ in grid))
    dims = ("word", "step", *("frame", "y", "x")[-len(grid) :])
    names = list(dict.fromkeys(layer.name for layer in layers))
    described = {"branch": choice.branch, "layers": names, **_doubt(attentions, layers, steps)}
    return xarray.DataArray(total, {"word": list(words), "step": list(steps)}, dims, name="word_map", attrs=described)


def head_maps(attentions: Attentions, word: str, steps: Sequence[int], choice: Choice) -> xarray.DataArray:
    """The map of a word in each head of each layer, (step, layer, head, y, x); NaN for heads a layer has not."""
    import xarray

    scenes = _scenes(attentions, steps, choice, [word])
    layers = _layers_in(scenes)
    grid, names = _common_grid(layers), list(dict.fromkeys(layer.name for layer in layers))
    heads = sorted({layer.call.heads[place] for layer in layers for place in layer.heads})
    found = np.full((len(steps), len(names), len(heads), *grid), np.nan, np.float32)
    for scene, layer in _each(scenes):
        positions = find_phrase(layer.words, word)
        columns = [heads.index(layer.call.heads[place]) for place in layer.heads]
        for step in scene.steps:
            shares = layer.shares(step, [positions])
            if shares is not None:
                found[steps.index(step), names.index(layer.name), columns] = [
                    enlarged(plane, grid) for plane in shares[:, 0]
                ]
    dims = ("step", "layer", "head", *("frame", "y", "x")[-len(grid) :])
    coordinates: dict[str, Any] = {"step": list(steps), "layer": names, "head": heads}
    described = {"word": word, "branch": choice.branch, **_doubt(attentions, layers, steps)}
    return xarray.DataArray(found, coordinates, dims, name="head_maps", attrs=described)


def word_mass(attentions: Attentions, word: str | None, steps: Sequence[int], choice: Choice) -> xarray.DataArray:
    """The share of every word, or of one, (step, layer, word)."""
    import xarray

    scenes = _scenes(attentions, steps, choice, [word])
    layers = _layers_in(scenes)
    names = list(dict.fromkeys(layer.name for layer in layers))
    listed = list(dict.fromkeys(label for layer in layers for label in _groups(layer, word)))
    mass = np.full((len(steps), len(names), len(listed)), np.nan, np.float32)
    for scene, layer in _each(scenes):
        groups = _groups(layer, word)
        places = [listed.index(label) for label in groups]
        for step in scene.steps:
            shares = layer.shares(step, list(groups.values()))
            if shares is not None:
                mass[steps.index(step), names.index(layer.name), places] = shares.mean(axis=(0, *range(2, shares.ndim)))
    coordinates: dict[str, Any] = {"step": list(steps), "layer": names, "word": listed}
    described = {"branch": choice.branch, **_doubt(attentions, layers, steps)}
    return xarray.DataArray(mass, coordinates, ("step", "layer", "word"), name="word_mass", attrs=described)


def _each(scenes: Sequence[_Scene]) -> Iterator[tuple[_Scene, Layer]]:
    return ((scene, layer) for scene in scenes for layer in scene.layers)


def _layers_in(scenes: Sequence[_Scene]) -> list[Layer]:
    return [layer for scene in scenes for layer in scene.layers]


def _doubt(attentions: Attentions, layers: Sequence[Layer], steps: Sequence[int]) -> dict[str, str]:
    return said(attentions.doubt([layer.call for layer in layers], steps))


def _groups(layer: Layer, word: str | None) -> dict[str, tuple[int, ...]]:
    """Positions by what to call them: the words of the text, the second "a" as "a#1", or the one asked for."""
    if word is not None:
        return {word: find_phrase(layer.words, word)}
    return dict(zip(unique([own.text for own in layer.words]), (own.positions for own in layer.words), strict=True))


def _common_grid(layers: Sequence[Layer]) -> tuple[int, ...]:
    """The largest grid of the layers.

    Raises:
        SiteNotFoundError: Some are of pictures and some of videos.
    """
    if len({len(layer.image.shape) for layer in layers}) > 1:
        raise SiteNotFoundError("some of these layers see frames and some do not; choose with layers=")
    return tuple(max(sizes) for sizes in zip(*(layer.image.shape for layer in layers), strict=True))


def enlarged(plane: Floats, grid: Sequence[int]) -> Floats:
    """A grid at another size, by linear interpolation between the centres of its cells along each axis."""
    for axis, size in enumerate(grid):
        plane = np.moveaxis(np.tensordot(_weights(plane.shape[axis], size), plane, (1, axis)), 0, axis)
    return np.ascontiguousarray(plane, np.float32)


def _weights(old: int, new: int) -> Floats:
    """Share of each old cell in each new one, shape (new, old)."""
    centres = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    below = np.floor(centres).astype(np.intp)
    weights = np.zeros((new, old), np.float32)
    weights[np.arange(new), below] = 1 - (centres - below)
    weights[np.arange(new), np.minimum(below + 1, old - 1)] += centres - below
    return weights


def _sees_text(call: AttentionInfo) -> bool:
    asked, shown = {part.kind for part in call.query_parts}, {part.kind for part in call.key_parts}
    return "image" in asked and "text" in shown


def _layer(attentions: Attentions, call: AttentionInfo, choice: Choice, step: int | None) -> Layer | None:
    entry = entry_of(attentions.branches(call, step), choice.branch, choice.image)
    heads = _places_of(call, choice.heads)
    if entry is None or not heads:
        return None
    words = words_at(attentions.texts(call, step), entry)
    image = max((part for part in call.query_parts if part.kind == "image"), key=lambda part: math.prod(part.shape))
    return Layer(call, attentions.inputs(call), entry, heads, image, words) if words else None


def _places_of(call: AttentionInfo, heads: int | Sequence[int] | None) -> tuple[int, ...]:
    wanted = call.heads if heads is None else (heads,) if isinstance(heads, int) else tuple(heads)
    return tuple(call.heads.index(head) for head in wanted if head in call.heads)

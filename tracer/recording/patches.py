"""Replace attributes for a while, in layers: whoever ends first, the same objects are back in the end."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Place", "Undo", "as_it_was", "lies_below", "put_back", "replace_attribute", "set_aside", "stand_ins"]

Undo = Callable[[], None]
"""Undoes what the call that returned it did; called once."""
Place = tuple[type | dict[Any, Any], Any]
"""A class, or the dict of a module, and a name in it."""


def replace_attribute(owner: type | dict[Any, Any], name: Any, wrap: Callable[[Any], Any]) -> Undo:
    """Replace a method of a class, or an entry of a dict, by ``wrap(original)``; the undo puts the same object back.

    The dict of a module is `vars` of it. Tracers may end in any order: an undo takes its own layer out from below
    those that came later. When someone else has replaced the attribute meanwhile, theirs stays in place.
    """
    place = (id(owner), name)
    with _LOCK:
        layers = _LAYERS.setdefault(place, [])
        is_aside = place in _ASIDE and bool(layers)
        layer = _Layer(layers[-1].replacement if is_aside else _get(owner, name))
        layer.replacement = wrap(layer.call())
        if not is_aside:
            _set(owner, name, layer.replacement)
        layers.append(layer)
        _BELOW[id(layer.replacement)] = layer

    def undo() -> None:
        with _LOCK:
            layers.remove(layer)
            if not layers:
                del _LAYERS[place]
            del _BELOW[id(layer.replacement)]
            if _get(owner, name) is layer.replacement:
                _set(owner, name, layer.below)
            for other in layers:
                if other.below is layer.replacement:
                    other.below = layer.below

    return undo


@contextmanager
def as_it_was(places: list[tuple[dict[Any, Any], Any]], function: Any) -> Iterator[None]:
    """Have a function itself under its names for a while, for those that compare what they are given with it.

    Several threads may do so at a time; the last one puts the replacements back.
    """
    known = stand_ins(function)
    held: list[Place] = [(owner, name) for owner, name in places if id(owner.get(name)) in known]
    set_aside(held)
    try:
        yield
    finally:
        put_back(held)


def set_aside(places: Iterable[Place]) -> None:
    """Have what lies below all layers under its name, until `put_back` was called as often."""
    with _LOCK:
        for owner, name in places:
            place = id(owner), name
            _ASIDE[place] = _ASIDE.get(place, 0) + 1
            if (layers := _LAYERS.get(place)) and _get(owner, name) is layers[-1].replacement:
                _set(owner, name, layers[0].below)


def put_back(places: Iterable[Place]) -> None:
    """Have the latest layer in place again, unless someone else has replaced what was there meanwhile."""
    with _LOCK:
        for owner, name in places:
            place = id(owner), name
            _ASIDE[place] -= 1
            if _ASIDE[place]:
                continue
            del _ASIDE[place]
            if (layers := _LAYERS.get(place)) and _get(owner, name) is layers[0].below:
                _set(owner, name, layers[-1].replacement)


def lies_below(function: Any) -> Any:
    """What a replacement stands for, through the layers of every tracer; anything else is returned as it is."""
    while (layer := _BELOW.get(id(function))) is not None and layer.replacement is function:
        function = layer.below
    return function


def stand_ins(function: Any) -> set[int]:
    """The identities of a function and of everything that replaces it at present."""
    return {id(function), *_stand_ins(function)}


def _stand_ins(function: Any) -> Iterator[int]:
    return (key for key, layer in list(_BELOW.items()) if lies_below(layer.below) is function)


class _Layer:
    """A replaced attribute and what lies below it, which is another layer where several tracers run."""

    def __init__(self, below: Any) -> None:
        self.below = below
        self.replacement: Any = None

    def call(self) -> Callable[..., Any]:
        """A function that calls what lies below at that time."""

        @functools.wraps(self.below)
        def below(*args: Any, **kwargs: Any) -> Any:
            return self.below(*args, **kwargs)

        return below


def _get(owner: type | dict[Any, Any], name: Any) -> Any:
    return (owner if isinstance(owner, dict) else vars(owner)).get(name)


def _set(owner: type | dict[Any, Any], name: Any, value: Any) -> None:
    if isinstance(owner, dict):
        owner[name] = value
    else:
        setattr(owner, name, value)


_LAYERS: dict[tuple[int, Any], list[_Layer]] = {}
"""The layers of each attribute, the lowest first; by the owner's identity, which the undo functions keep alive."""
_ASIDE: dict[tuple[int, Any], int] = {}
"""Attributes whose layers are set aside at present, and by how many."""
_BELOW: dict[int, _Layer] = {}
"""The layer of each replacement, by the replacement's identity."""
_LOCK = threading.Lock()

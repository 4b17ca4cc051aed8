"""What modules of one trace are called in another: paths, globs, and the slices of layers that are fused in one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ComparisonError

__all__ = ["Cut", "Fused", "Names", "Naming", "Target", "fused_of"]

_WILDCARDS: Final = {"**.": r"((?:.+\.)?)", ".**": r"((?:\..+)?)", "**": r"(.*)", "*": r"([^.]*)", "?": r"([^.])"}
_PIECES: Final = re.compile(r"(\*\*\.|\.\*\*|\*\*|\*|\?)")


@dataclass(frozen=True, slots=True)
class Cut:
    """A part of a tensor: ranges of one axis, one after another."""

    axis: int
    ranges: tuple[tuple[int, int], ...]

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """The shape it leaves of a tensor; None where the tensor has no such axis, or the axis ends before."""
        if not -len(shape) <= self.axis < len(shape) or any(stop > shape[self.axis] for _, stop in self.ranges):
            return None
        left = list(shape)
        left[self.axis] = sum(stop - start for start, stop in self.ranges)
        return tuple(left)

    def of(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """The part itself."""
        places = np.concatenate([np.arange(start, stop) for start, stop in self.ranges])
        return np.take(tensor, places, axis=self.axis)

    def __str__(self) -> str:
        return f"[{','.join(f'{start}:{stop}' for start, stop in self.ranges)}]"


@dataclass(frozen=True, slots=True)
class Fused:
    """A layer of one trace that is a part of, or holds, layers of the other: q, k and v against qkv.

    Either one name, of whose output the layer of A is a part; or several, each of which is a part of A's.
    """

    to: tuple[str, ...]
    parts: tuple[Cut, ...]
    """For each name. Of the tensor of B where there is one name alone, else of that of A."""
    holds: bool
    """Whether it is A's tensor that holds the others."""


Names = Mapping[str, "str | Fused"] | Callable[[str], str | None]
"""How modules of A are called in B: paths or globs, or a function of the path; None leaves a module out."""


class Target(NamedTuple):
    """What a module of A is in B."""

    name: str
    of_a: Cut | None = None
    of_b: Cut | None = None
    rule: str = ""
    """By which it is called so; "" where nothing says otherwise."""


class Naming:
    """Applies names: a path goes before globs, and of these the first that matches counts.

    Raises:
        ComparisonError: The two globs of a rule have not the same wildcards.
    """

    def __init__(self, names: Names | None) -> None:
        self._function = names if callable(names) else None
        self.rules: dict[str, str | Fused] = {} if names is None or callable(names) else dict(names)
        """What is called otherwise, as it was given."""
        self._globs = [(rule, _compiled(rule, *_names_of(to))) for rule, to in self.rules.items() if _is_glob(rule)]

    def targets(self, name: str) -> tuple[Target, ...]:
        """What a module of A is in B; nothing where it is to be left out."""
        if self._function is not None:
            found = self._function(name)
            return () if found is None else (Target(found),)
        if name in self.rules:
            return _targets(name, self.rules[name], _names_of(self.rules[name]))
        for rule, fill in self._globs:
            if (names := fill(name)) is not None:
                return _targets(rule, self.rules[rule], names)
        return (Target(name),)


def fused_of(value: Mapping[str, Any]) -> Fused:
    """Read an entry of a map of names, ``{"to": …, "slices": …, "axis": …}``.

    Raises:
        ComparisonError: It is not of that form; the message says how it should be.
    """
    to, slices, axis = value.get("to"), value.get("slices"), value.get("axis", -1)
    names = (to,) if isinstance(to, str) else tuple(to) if isinstance(to, list) else ()
    if (
        not names
        or not all(isinstance(name, str) and name for name in names)
        or value.keys() - {"to", "slices", "axis"}
    ):
        raise ComparisonError(f'{dict(value)!r}: write {{"to": "unet.to_qkv", "slices": [0, 320], "axis": -1}}')
    if not isinstance(axis, int) or isinstance(axis, bool):
        raise ComparisonError(f"axis {axis!r}: give the number of a dimension, such as 1, or -1 for the last")
    holds = not isinstance(to, str)
    given = slices if holds else [slices]
    if not isinstance(given, list) or len(given) != len(names):
        raise ComparisonError(f"slices {slices!r}: give one [start, stop] for each of {', '.join(names)}")
    return Fused(names, tuple(Cut(axis, _ranges(part)) for part in given), holds)


def _ranges(value: Any) -> tuple[tuple[int, int], ...]:
    """One [start, stop], or several that are put together."""
    several = value if isinstance(value, list) and value and isinstance(value[0], list) else [value]
    for each in several:
        whole = isinstance(each, list) and len(each) == 2 and all(type(number) is int for number in each)
        if not whole or not 0 <= each[0] < each[1]:
            raise ComparisonError(f"slice {each!r}: give [start, stop], whole numbers from 0 up")
    return tuple((start, stop) for start, stop in several)


def _names_of(to: str | Fused) -> tuple[str, ...]:
    return (to,) if isinstance(to, str) else to.to


def _targets(rule: str, to: str | Fused, names: Sequence[str]) -> tuple[Target, ...]:
    if isinstance(to, str):
        return (Target(names[0], rule=rule),)
    return tuple(
        Target(name, part if to.holds else None, None if to.holds else part, rule)
        for name, part in zip(names, to.parts, strict=True)
    )


def _is_glob(rule: str) -> bool:
    return _PIECES.search(rule) is not None


def _compiled(pattern: str, *targets: str) -> Callable[[str], tuple[str, ...] | None]:
    """Paths of B for each path of A that a glob matches; each wildcard stands for the same text in both."""
    pieces, filled = _PIECES.split(pattern), [_PIECES.split(target) for target in targets]
    for target, parts in zip(targets, filled, strict=True):
        if pieces[1::2] != parts[1::2]:
            raise ComparisonError(f"{pattern!r} and {target!r} have not the same wildcards in the same order")
    compiled = re.compile("".join(_WILDCARDS.get(piece, re.escape(piece)) for piece in pieces))

    def fill(name: str) -> tuple[str, ...] | None:
        match = compiled.fullmatch(name)
        if match is None:
            return None
        groups = match.groups()
        return tuple(
            "".join(groups[place // 2] if place % 2 else piece for place, piece in enumerate(parts)) for parts in filled
        )

    return fill

"""The forms of an attention call: what its shapes, scale and positions are at which steps.

A cascade changes its grid between two steps, a cache grows, another prompt is longer, a processor changes its scale.
Queries, keys and masks of another shape lie in further arrays, and the trace describes the call anew; each combination
of these is one form. Most calls have one.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..info import ModuleInfo, SiteInfo
from ..layout import HAS_TENSOR, NOT_CAPTURED
from .calls import AttentionInfo, attention_call, sites_of

__all__ = ["Captured", "Forms"]

Captured = Callable[[SiteInfo], NDArray[Any]]
"""What was captured of a site at each step, as the table of its component has it."""

_Key = tuple[int, int, int, int]
"""Which description holds, and in which of their arrays queries, keys and mask lie."""

_Calls = tuple[int, int, int]
"""The same without the mask."""

_NO_MASK, _LOST_MASK = -1, -2
"""In place of the mask's array where none was given, or its values are lost, at all steps of a form."""


class Forms:
    """Those of one call.

    Args:
        module: Who made it.
        number: Which of its calls within a step.
        entries: What a group's attributes say of it, each with the `step` from which on it holds.
        group: Whose attributes.
        captured: Tells what was captured of its tensors.
    """

    def __init__(
        self, module: ModuleInfo, number: int, entries: Sequence[Mapping[str, Any]], group: str, captured: Captured
    ) -> None:
        self._module, self._number, self._group, self._captured = module, number, group, captured
        self._entries = sorted(((_step_of(entry), entry) for entry in entries), key=lambda pair: pair[0])
        stepped = entries[0].get("stepped")
        self._sites = sites_of(module, number, stepped=stepped if isinstance(stepped, bool) else None)

    @property
    def stepped(self) -> bool:
        """Whether the call is of the denoising loop."""
        return self._sites[0] is not None and self._sites[0].stepped

    @functools.cached_property
    def all(self) -> tuple[AttentionInfo, ...]:
        """Each by its number, in the order in which they came up."""
        if not self.may_differ:
            return (self._form(0, (0, 0, 0, 0), None),)
        steps: dict[_Key, list[int]] = {}
        for step, key in enumerate(self._keys):
            steps.setdefault(key, []).append(step)
        if not steps:
            return (self._form(0, (0, 0, 0, 0), frozenset()),)
        return tuple(self._form(number, key, frozenset(own)) for number, (key, own) in enumerate(steps.items()))

    @property
    def first(self) -> AttentionInfo:
        """The first that has a map, if any has."""
        return next((form for form in self.all if not form.reason), self.all[0])

    def at(self, step: int) -> AttentionInfo:
        """That of a step; the nearest one's of a step that the trace does not have."""
        if len(self.all) == 1:
            return self.all[0]
        return self.all[int(self._numbers[min(max(step, 0), len(self._numbers) - 1)])]

    @functools.cached_property
    def changes(self) -> tuple[int, ...]:
        """The steps that have another form than the step before."""
        if len(self.all) == 1:
            return ()
        return tuple((np.flatnonzero(np.diff(self._numbers)) + 1).tolist())

    @functools.cached_property
    def _numbers(self) -> NDArray[np.intp]:
        """The form of each step."""
        found = np.zeros(len(self._keys), np.intp)
        for form in self.all:
            found[sorted(form.steps or ())] = form.form
        return found

    @property
    def may_differ(self) -> bool:
        """Whether there may be several."""
        return self.stepped and (
            len(self._entries) > 1 or any(site and (site.variants or not site.array) for site in self._sites)
        )

    @functools.cached_property
    def _keys(self) -> list[_Key]:
        """What tells the form, of each step. Where nothing was kept it is that of the step before."""
        arrays = np.stack([self._arrays_of(site) for site in self._sites])
        kept, steps = ((arrays[0] >= 0) & (arrays[1] >= 0)).tolist(), arrays.shape[1]
        latest = np.searchsorted([start for start, _ in self._entries], np.arange(steps), side="right") - 1
        alike: dict[str, int] = {}
        same = [alike.setdefault(_said(entry), number) for number, (_, entry) in enumerate(self._entries)]
        described = [same[max(number, 0)] for number in latest.tolist()]
        masked: dict[_Calls, int] = {}
        """Where masks lie, the first at each kind of call: a step that has none is of the form of those that do."""
        for entry, query, key, mask in zip(described, *arrays.tolist(), strict=True):
            if mask >= 0:
                masked.setdefault((entry, query, key), mask)
        found: list[_Key] = []
        waiting = 0
        for step, entry in enumerate(described):
            query, key, mask = arrays[:, step].tolist() if kept[step] else (0, 0, _NO_MASK)
            if not kept[step] and not found:
                waiting += 1
            elif not kept[step] and entry == found[-1][0]:
                found.append(found[-1])
            else:
                found.append((entry, query, key, mask if mask >= 0 else masked.get((entry, query, key), mask)))
        return [*(found[:1] or [(0, 0, 0, 0)]) * waiting, *found]

    def _arrays_of(self, site: SiteInfo | None) -> NDArray[np.intp]:
        """In which array a site's tensor of each step lies; below 0 where it has none, or lost its values."""
        assert self._sites[0] is not None
        captured = self._captured(self._sites[0] if site is None else site).astype(np.intp)
        known = 0 if site is None else len(site.arrays)
        found = np.where((captured >= HAS_TENSOR) & (captured < HAS_TENSOR + known), captured - HAS_TENSOR, _LOST_MASK)
        return np.where((captured == NOT_CAPTURED) | (site is None), _NO_MASK, found)

    def _form(self, number: int, key: _Key, steps: frozenset[int] | None) -> AttentionInfo:
        entry, *arrays = key
        query, keys, mask = (
            None if site is None or at == _NO_MASK else _in_array(site, at)
            for site, at in zip(self._sites, arrays, strict=True)
        )
        return attention_call(
            self._module,
            self._number,
            self._entries[entry][1],
            sites=(query, keys, mask),
            group=self._group,
            form=number,
            steps=steps,
        )


def _in_array(site: SiteInfo, number: int) -> SiteInfo:
    """A site as if all its tensors lay in one of its arrays, or in none where their values are lost."""
    if number == _LOST_MASK:
        return replace(site, array="", variants=())
    stored = site.arrays[number] if number < len(site.arrays) else None
    if stored is None or not site.variants:
        return site
    return replace(
        site, array=stored.array, shape=stored.shape, dims=stored.dims, torch_dtype=stored.torch_dtype, variants=()
    )


def _said(entry: Mapping[str, Any]) -> str:
    """What a description says of the call, whenever that is and whatever became of its shares."""
    return json.dumps({key: value for key, value in entry.items() if key not in ("step", "used")}, sort_keys=True)


def _step_of(entry: Mapping[str, Any]) -> int:
    step = entry.get("step", 0)
    return step if type(step) is int and step >= 0 else 0

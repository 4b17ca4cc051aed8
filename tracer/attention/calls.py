"""One attention call of a module, as the trace describes it: nothing is believed before it fits the arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..info import ModuleInfo, SiteInfo, printable
from ..layout import array_name
from .tokens import Kind, Part, kind_of, parts_from_attributes
from .use import Use, read_use

__all__ = ["AttentionInfo", "Sites", "attention_call", "site_of", "sites_of"]

_LONGEST = 1 << 24
"""A sequence that is longer is a lie, and its coordinates would fill the memory."""

_WHEN = ("step", "once")
"""What is added to a port that was seen both in the loop and outside of it."""

Sites = tuple[SiteInfo | None, SiteInfo | None, SiteInfo | None]
"""Where queries, keys and mask of a call are."""


@dataclass(frozen=True, slots=True)
class AttentionInfo:
    """One attention call of a module."""

    module: str
    call: int
    """0 for the first within a step."""
    kind: Kind | Literal["none"]
    """ "none" where it has no map: see `reason`."""
    reason: str = ""
    """Why there is no map to read; "" where there is one."""
    door: str = ""
    """The function that computed it."""
    scale: float = 1.0
    causal: bool = False
    heads: tuple[int, ...] = ()
    """Numbers of the heads that were kept."""
    group: str = ""
    """Of the store, which describes it."""
    query_parts: tuple[Part, ...] = ()
    key_parts: tuple[Part, ...] = ()
    query: SiteInfo | None = None
    key: SiteInfo | None = None
    mask: SiteInfo | None = None
    denoiser_call: int = 0
    """In which call of its denoiser within the step it was made."""
    multiplied_in: str = ""
    """What float32 was rounded to before it was multiplied, "tfloat32" or "bfloat16"; "" where it was not."""
    use: Use = field(default_factory=Use)
    """Whether its maps are those that the run used."""
    form: int = 0
    """Which of its forms, where shapes or what else is said here change along the steps: see `forms`."""
    steps: frozenset[int] | None = None
    """The steps that have this form; None where all have."""

    @property
    def stepped(self) -> bool:
        """Whether it is of the denoising loop."""
        return self.query is not None and self.query.stepped

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of its map at one step: batch, heads, queries, keys."""
        assert self.query is not None and self.key is not None
        batch, heads, queries, _ = self.query.shape
        return batch, heads, queries, self.key.shape[2]


def sites_of(module: ModuleInfo, number: int, *, stepped: bool | None) -> Sites:
    """Where a call's tensors are; all in the loop, or all outside of it."""
    query = site_of(module, "query", number, stepped=stepped)
    if query is None:
        return None, None, None
    key = site_of(module, "key", number, stepped=query.stepped)
    return query, key, site_of(module, "mask", number, stepped=query.stepped, stored=False)


def attention_call(
    module: ModuleInfo,
    number: int,
    entry: Mapping[str, Any],
    *,
    sites: Sites,
    group: str,
    form: int = 0,
    steps: frozenset[int] | None = None,
) -> AttentionInfo:
    """Read a description of a call.

    Args:
        module: Who made it.
        number: Which of its calls.
        entry: What a group's attributes say of it.
        sites: Where its tensors are, and of which shape.
        group: Whose attributes.
        form: Number of the form it describes.
        steps: Those that have it, None for all.
    """
    query, key, mask = sites
    own: dict[str, Any] = {"form": form, "steps": steps}
    if entry.get("softmax", True) is not True:
        reason = printable(entry.get("reason") or "it has none, its weights are no softmax")
        return AttentionInfo(module.name, number, "none", reason, query=query, **own)
    if query is None or key is None:
        reason = f"its queries and keys were not kept; trace with Capture(attention={module.name!r})"
        return AttentionInfo(module.name, number, "none", reason, query=query, **own)
    denoiser_call = entry.get("denoiser_call", 0)
    scale, heads = entry.get("scale"), entry.get("heads")
    if mask is not None and not mask.array:
        reason = "the values of its mask are lost"
        return AttentionInfo(module.name, number, "none", reason, query=query, **own)
    if not _fit(query, key, mask):
        reason = f"queries {query.shape} and keys {key.shape} do not fit"
        return AttentionInfo(module.name, number, "none", reason, query=query, **own)
    if not isinstance(scale, int | float) or isinstance(scale, bool) or not math.isfinite(scale):
        reason = f"its scale is {printable(repr(scale))}, not a number"
        return AttentionInfo(module.name, number, "none", reason, query=query, **own)
    kept = isinstance(heads, list) and len(heads) == query.shape[1] and all(type(head) is int for head in heads)
    query_parts = parts_from_attributes(entry.get("query_parts"), query.shape[2])
    key_parts = parts_from_attributes(entry.get("key_parts"), key.shape[2])
    return AttentionInfo(
        module=module.name,
        call=number,
        kind=kind_of(query_parts, key_parts),
        door=str(entry.get("door", "")),
        scale=float(scale),
        causal=entry.get("causal") is True,
        heads=tuple(heads) if kept and heads else tuple(range(query.shape[1])),
        group=group,
        query_parts=query_parts,
        key_parts=key_parts,
        query=query,
        key=key,
        mask=mask,
        denoiser_call=denoiser_call if type(denoiser_call) is int and denoiser_call >= 0 else 0,
        multiplied_in=str(entry.get("multiplied_in", "")),
        use=read_use(entry),
        **own,
    )


def site_of(module: ModuleInfo, port: str, call: int, *, stepped: bool | None, stored: bool = True) -> SiteInfo | None:
    """Where a tensor of a call is; of what was seen inside and outside of the loop, that inside.

    Args:
        module: Who made the call.
        port: Which of its tensors.
        call: Its number.
        stepped: Whether it is of the loop; None for either.
        stored: Leave out what has no values, but statistics only.
    """
    name = array_name(port, call)
    names = {name, *(array_name(f"{port}_{when}", call) for when in _WHEN), *(f"{name}_{when}" for when in _WHEN)}
    found = [
        site
        for site in module.sites
        if site.array_name in names and (site.array or not stored) and stepped in (None, site.stepped)
    ]
    return max(found, key=lambda site: site.stepped, default=None)


def _fit(query: SiteInfo, key: SiteInfo, mask: SiteInfo | None) -> bool:
    if query.stepped != key.stepped or len(query.shape) != 4 or len(key.shape) != 4:
        return False
    if not all(0 < size <= _LONGEST for size in (*query.shape, *key.shape)):
        return False
    full = (*query.shape[:3], key.shape[2])
    grouped = query.shape[0] == key.shape[0] and not query.shape[1] % key.shape[1] and query.shape[3] == key.shape[3]
    return grouped and (
        mask is None
        or (len(mask.shape) == 4 and all(own in (1, size) for own, size in zip(mask.shape, full, strict=True)))
    )

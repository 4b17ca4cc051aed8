"""What the attention view reads: whose attention there is to show, and then its maps and shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from diffusion_xray.tracer.attention.info import AttentionInfo, Attentions
from diffusion_xray.tracer.attention.texts import CONDITIONAL
from diffusion_xray.tracer.info import SiteInfo

from ..reader import Reader
from .attention_reading import Place, Reading
from .attention_seen import Offer, Seen
from .attention_source import kinds_of
from .attention_wish import Wish
from .protocol import Missing, Request

__all__ = ["read_attention"]

_CODE: Final = 'Tracer(pipe, "run.zarr", capture="attention")'


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
    calls = tuple(attentions.at(call, request.step) for call in calls)
    shown = [call for call in calls if not call.reason]
    if not shown:
        why = calls[0].reason.split("; trace with")[0]
        return Missing(
            f"There is no attention map of this layer: {why}.", _code(site.name) if "not kept" in why else ""
        )
    call, entry, entries = _entry(attentions, shown, site, wish, request.step)
    if call.stepped and not 0 <= request.step < request.steps:
        return None
    return Reading(reader, request, Place(call, entry, *entries), scope).found()


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
    attentions: Attentions, calls: Sequence[AttentionInfo], site: SiteInfo, wish: Wish, step: int
) -> tuple[AttentionInfo, int, tuple[int, int]]:
    """The call and entry to show. Guidance branches are entries of one call, or calls of their own."""
    if any(call.module != site.name for call in calls):  # a layer that holds several
        calls = [call for call in calls if kinds_of(call)[0] == "words"][:1] or calls[:1]
    places = [(call, entry) for call in calls for entry in range(call.shape[0])]
    named = [attentions.branches(call, step)[entry] for call, entry in places]
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

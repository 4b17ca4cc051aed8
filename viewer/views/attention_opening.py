"""Opening the browser at the attention of a word or a head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from diffusion_xray.tracer.attention.info import AttentionInfo, entry_of
from diffusion_xray.tracer.attention.texts import CONDITIONAL
from diffusion_xray.tracer.attention.words import find_phrase, unique
from diffusion_xray.tracer.errors import SiteNotFoundError
from diffusion_xray.tracer.trace import Trace

from ..opening import Opening
from .attention_source import Labels
from .attention_wish import Wish

__all__ = ["with_attention"]


def with_attention(trace: Trace, opening: Opening, *, token: str = "", head: int | None = None) -> Opening:
    """An opening that shows the attention to a word, or of one head.

    Args:
        trace: The trace.
        opening: Layer and step.
        token: Word or phrase of the text that the layer sees, "" for any; the second "a" is "a#1".
        head: Number of a head; None for the mean of all.

    Raises:
        SiteNotFoundError: The text has no such word, or the layer no such head; the message lists those there are.
    """
    wish = Wish()
    attentions = trace.attentions
    listed = attentions.by_module.get(opening.layer, ())
    calls = [call for call in (attentions.at(call, opening.step) for call in listed) if not call.reason]
    if head is not None:
        wish = replace(wish, heads="single", head=_place_of(head, opening.layer, calls, trace))
    if token:
        if calls and any(part.kind == "text" for part in calls[0].key_parts):
            labels = Labels.of(
                calls[0].key_parts,
                attentions.texts(calls[0], opening.step),
                entry_of(attentions.branches(calls[0], opening.step), CONDITIONAL, 0) or 0,
            )
            words, names = labels.words, labels.names
        else:
            words = trace.words(step=opening.step)
            names = tuple(unique([word.text for word in words]))
        if token in names:
            chosen = [token]
        else:
            found = set(find_phrase(words, token))
            chosen = [name for name, word in zip(names, words, strict=True) if found.issuperset(word.positions)]
        wish = replace(wish, word=chosen[0], added=tuple(chosen[1:]))
    return replace(opening, wish=wish)


def _place_of(head: int, layer: str, calls: Sequence[AttentionInfo], trace: Trace) -> int:
    """Where a head is among those of the layer that were kept.

    A layer without attention has none: then among those of the first layer that has such a head, as the wish holds for
    the layers gone to from there.

    Raises:
        SiteNotFoundError: There is no such head.
    """
    kept = calls[:1] or [call for found in trace.attentions.by_module.values() for call in found if not call.reason]
    place = next((call.heads.index(head) for call in kept if head in call.heads), None)
    if place is not None:
        return place
    if not kept:
        return head  # the view tells that no attention was kept
    heads = ", ".join(map(str, sorted({number for call in kept for number in call.heads})))
    if calls:
        raise SiteNotFoundError(f"{layer} has no head {head}; it has {heads}")
    raise SiteNotFoundError(f"no layer of {trace.name} has an attention head {head}; they have {heads}")

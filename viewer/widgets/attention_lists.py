"""What is shown where there is no map: a row of shares as bars, or the layers that attend."""

from __future__ import annotations

import numpy as np
from rich.cells import cell_len, set_cell_size
from textual.strip import Strip

from diffusion_xray.tracer.info import printable

from ..views.attention_seen import Offer, Seen
from .attention_title import doubt_line, entry_text, heads_text
from .attention_words import bar, percent
from .canvas import Canvas

__all__ = ["offered_rows", "paint_bars", "paint_offer"]

_ABOVE = 3
"""Lines above the layers that are offered."""
_BELOW = 4


def paint_bars(canvas: Canvas, seen: Seen, top: int, width: int, height: int) -> list[Strip]:
    """A line a token from `top` on, with its share of the row."""
    token = printable(seen.names[seen.chosen[0]]) if seen.chosen else "–"
    text = f" who looks at {token}" if seen.wish.reverse else f" where {token} looks"
    facts = " · ".join(fact for fact in (heads_text(seen), entry_text(seen)) if fact)
    lines = [canvas.spread([(text, "strong")], [(f"{facts} ", "muted")], width), *doubt_line(canvas, seen)]
    assert seen.row is not None
    longest = min(max(cell_len(printable(name)) for name in seen.keys), 18)
    most = float(np.nanmax(seen.row, initial=0))
    for at in range(top, min(top + max(height - 1 - len(lines), 1), len(seen.keys))):
        share = float(seen.row[at])
        label = set_cell_size(printable(seen.keys[at]), longest)
        filled = bar(share / most if most > 0 else 0, max(width - longest - 13, 1))
        lines.append(canvas.line((f"  {label} ", "muted"), (filled, "accent"), f" {percent(share):>7}"))
    return lines


def offered_rows(offer: Offer, at: int, height: int) -> range:
    """Which of the layers are in sight: those about the one chosen."""
    rows = max(height - _ABOVE - _BELOW, 1)
    top = min(max(at - rows // 2, 0), max(len(offer.calls) - rows, 0))
    return range(top, min(top + rows, len(offer.calls)))


def paint_offer(canvas: Canvas, offer: Offer, at: int, width: int, height: int) -> list[Strip]:
    """The layers that attend, the chosen one marked, and the keys that lead there."""
    where = "Attention is below it:" if offer.below else "Layers near it that do:"
    lines = [
        canvas.line(),
        canvas.line((" This layer does not attend itself. ", "muted"), (where, "muted")),
        canvas.line(),
    ]
    for place in offered_rows(offer, at, height):
        call = offer.calls[place]
        name = call.module
        facts = f"no map: {call.reason}" if call.reason else f"{call.kind} · {len(call.heads)} heads"
        here = place == at
        lines.append(
            canvas.spread(
                [
                    (" ▸ " if here else "   ", "accent"),
                    (name, "cursor" if here and canvas.has_focus else "accent" if here else "plain"),
                ],
                [(facts[: max(width // 2, 10)], "muted"), " "],
                width,
            )
        )
    choose = "arrows choose" if canvas.has_focus else "tab, then arrows choose"
    wide = " · L: the mean over all of them" if offer.below else ""
    return [*lines, canvas.line(), canvas.line((f" {choose} · w goes there{wide}", "muted"))]

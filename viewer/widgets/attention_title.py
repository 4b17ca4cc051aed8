"""The line above a map of attention: what looks where, and what of is shown."""

from __future__ import annotations

from textual.strip import Strip

from ..views.attention_seen import Seen
from .canvas import Canvas, Part

__all__ = ["doubt_line", "entry_text", "heads_text", "title_lines"]


def title_lines(canvas: Canvas, seen: Seen, width: int) -> list[Strip]:
    """What is shown, and what of; on two lines where one is too short."""
    wish = seen.wish
    left: list[Part] = []
    if seen.kind == "words":
        names = " + ".join(seen.names[at] for at in seen.chosen) or "–"
        left = [(f" {names}", "strong")]
    else:
        y, x = seen.query
        left = [(f" who looks at ({y}, {x})" if wish.reverse else f" where ({y}, {x}) looks", "strong")]
    layers = f"mean of {len(seen.layers)} layers {seen.scope}" if seen.scope and seen.tiles is None else ""
    layers = layers or (f"{len(seen.layers)} layers {seen.scope}" if seen.scope else "")
    grid = "×".join(map(str, seen.grid[-2:]))
    frames = f"frame {seen.frame + 1}/{seen.grid[0]}" if len(seen.grid) == 3 else ""
    entry = entry_text(seen)
    waiting = f"{seen.done} of {seen.total} parts" if seen.done < seen.total else ""
    facts = [fact for fact in (waiting, layers, heads_text(seen), entry, frames, grid) if fact]
    long = canvas.line(*left).cell_length + len(" · ".join(facts)) + 2 > width
    while len(facts) > 1 and len(" · ".join(facts)) > width - 2:
        facts.pop()
    told: Part = (f"{' · '.join(facts)} ", "muted")
    if long:
        return [
            canvas.spread(left, [], width),
            canvas.line((f" {' · '.join(facts)}", "muted")),
            *doubt_line(canvas, seen),
        ]
    return [canvas.spread(left, [told], width), *doubt_line(canvas, seen)]


def doubt_line(canvas: Canvas, seen: Seen) -> list[Strip]:
    """A line where the run may have used other shares."""
    return [canvas.line((f" ⚠ {seen.doubt}", "warning"))] if seen.doubt else []


def heads_text(seen: Seen) -> str:
    """One head, or how several are joined."""
    if seen.wish.spread:
        return ""
    count = len(seen.call.heads)
    return f"head {seen.head}" if seen.wish.heads == "single" or count == 1 else f"{seen.wish.heads} of {count} heads"


def entry_text(seen: Seen) -> str:
    """Batch entry and guidance branch."""
    number = f"{seen.entry + 1}/{seen.entries}" if seen.entries > 1 else ""
    return " ".join(part for part in (seen.branch, number) if part)

"""Python that computes what the attention view shows, from `Trace.attention`.

Positions are written as numbers: they hold also where a text is not known, or has the same word twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from .attention_seen import Seen, asked_of, frame_of
from .attention_source import Source

__all__ = ["code_of"]


def code_of(seen: Seen) -> str:
    """Lines that leave `plane` (y, x); `planes` (head, y, x), by layer where those are several; or `row` of tokens."""
    if seen.kind == "tokens":
        return "\n".join(_tokens(seen, seen.sources[0]))
    sources = [source for source in seen.sources if seen.kind == "places" or _positions(seen, source)]
    one = len(sources) == len(seen.sources) == 1
    return "\n".join(_one(seen, sources[0]) if one else _several(seen, sources))


def _one(seen: Seen, source: Source) -> list[str]:
    grid = _grid(seen, source)
    lines = [
        f"attention = trace.attention({_call(seen, source)}).isel({_place(seen, source)})",
        f"shares = attention.isel({_picked(seen, source)}).values{_summed(seen)}{_said(seen)}",
        f"planes = shares.reshape(-1, *{grid}){_frame(seen, grid)}",
    ]
    return lines if seen.wish.spread else [*lines, f"plane = planes{_joined(seen)}"]


def _several(seen: Seen, sources: Sequence[Source]) -> list[str]:
    """A loop over the layers; their maps are enlarged to the largest before they are averaged."""
    grids = [_grid(seen, source) for source in sources]
    lines = [f"calls = [{_said(seen)}"]
    for source, grid in zip(sources, grids, strict=True):
        where = f"{_place(seen, source)}, {_picked(seen, source)}"
        lines.append(f"    (({source.call.module!r}, {source.call.call}), dict({where}), {grid}),")
    step = f", step={seen.step}" if any(source.call.steps is not None for source in sources) else ""
    lines += [
        "]",
        "planes = {}",
        "for call, where, grid in calls:",
        f"    shares = trace.attention(*call{step}).isel(where).values{_summed(seen)}",
        f"    planes[call] = shares.reshape(-1, *grid){_frame(seen, grids[0] if grids else ())}",
    ]
    if seen.wish.spread:
        return lines
    return [
        "import numpy as np",
        "from diffusion_xray.tracer.attention.word_map import enlarged",
        "",
        *lines,
        f"layers = [enlarged(heads{_joined(seen)}, {tuple(seen.grid)}) for heads in planes.values()]",
        f"plane = np.array(layers){_joined(seen)}",
    ]


def _tokens(seen: Seen, source: Source) -> list[str]:
    """A row of token × token: pieces of a word are added as keys, averaged as queries."""
    at, name = seen.chosen[0], seen.names[seen.chosen[0]]
    keys = [list(positions) for positions in source.keys.positions]
    queries = [
        list(positions[:1] if special else positions)
        for positions, special in zip(source.queries.positions, source.queries.special, strict=True)
    ]
    lines = [f"attention = trace.attention({_call(seen, source)}).isel({_place(seen, source)}){_said(seen)}"]
    if seen.wish.reverse:
        key = keys[source.keys.names.index(name)]
        return [
            *lines,
            f"shares = attention.isel(key={key}).values.sum(axis=-1){_joined(seen)}",
            f"row = [shares[query].mean() for query in {queries}]",
        ]
    return [
        *lines,
        f"shares = attention.isel(query={queries[at]}).values",
        f"row = [shares[..., key].sum(axis=-1){_joined(seen)}.mean() for key in {keys}]",
    ]


def _call(seen: Seen, source: Source) -> str:
    """Module and call; and the step, where not all of them are alike."""
    call = f", {source.call.call}" if source.call.call else ""
    step = f", step={seen.step}" if source.call.steps is not None else ""
    return f"{source.call.module!r}{call}{step}"


def _place(seen: Seen, source: Source) -> str:
    """Step, entry of the batch, and the head where it is one."""
    heads, count = seen.wish, len(source.call.heads)
    head = f", head=[{heads.head % count}]" if heads.heads == "single" and not heads.spread else ""
    return f"{f'step={seen.step}, ' if source.call.stepped else ''}batch={source.entry}{head}"


def _picked(seen: Seen, source: Source) -> str:
    """Queries and keys."""
    what, at = asked_of(source, seen.wish)
    rows, columns = (f"slice({part.span.start}, {part.span.stop})" for part in (source.rows, source.columns))
    if what == "words":
        return f"query={rows}, key={_positions(seen, source)}"
    if what == "from":
        return f"query={source.rows.start + at}, key={columns}"
    return f"query={rows}, key={source.columns.start + at}"


def _positions(seen: Seen, source: Source) -> list[int]:
    """Those of the words that are chosen, as far as the layer sees them."""
    names = [seen.names[at] for at in seen.chosen]
    return [
        position
        for name in names
        if name in source.keys.names
        for position in source.keys.positions[source.keys.names.index(name)]
    ]


def _grid(seen: Seen, source: Source) -> tuple[int, ...]:
    return source.columns.shape if asked_of(source, seen.wish)[0] == "from" else source.rows.shape


def _summed(seen: Seen) -> str:
    return ".sum(axis=-1)" if seen.kind == "words" else ""


def _said(seen: Seen) -> str:
    """Which words the positions are; escaped, for they are of the trace."""
    return f"  # {' + '.join(seen.names[at] for at in seen.chosen)!a}" if seen.kind != "places" else ""


def _frame(seen: Seen, grid: Sequence[int]) -> str:
    return f"[:, {frame_of(grid, seen.wish.frame)}]" if len(grid) == 3 else ""


def _joined(seen: Seen) -> str:
    return ".max(axis=0)" if seen.wish.heads == "max" else ".mean(axis=0)"

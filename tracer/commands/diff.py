"""``dxray diff``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Final

from tqdm import tqdm

from ..capture import matches
from ..comparison.divergence import Comparison, Divergence, Evidence
from ..comparison.pairing import LINKS
from ..comparison.verdict import Parting, Verdict
from ..errors import ComparisonError
from ..info import SiteInfo, printable
from ..text import number
from ..trace import Trace, open_trace
from .protocol import print_json, print_table
from .renaming import Renaming, add_renaming
from .selection import select

__all__ = ["Diff"]

_ROWS: Final = 10
"""Layers in the table, unless all are asked for: the first ones, so that the cause is among them."""
_NAMED: Final = 4
"""Tensors that only one trace has which are named, unless all are asked for."""
_WIDEST: Final = 48
"""Characters of a fact."""


class Diff:
    """Compare two traces: which layer diverges first, and by how much.

      dxray diff fp32.zarr fp16.zarr --tolerance 1e-2
      dxray diff original.zarr port.zarr --rename "unet.**=transformer.**"
      dxray diff original.zarr port.zarr --map names.json

    The distance is ‖A − B‖ / ‖A‖: from tensors where both traces hold them, else what statistics prove it to be at
    least. In order of execution the first that is above the tolerance is the cause of those after it. Exit code 0 where
    all was compared and none is, 1 where one is, 2 where that cannot be told, or a name was given that fits nothing.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("a", metavar="A", help="the trace that counts: distances are in units of its tensors")
        parser.add_argument("b", metavar="B", help="the other one")
        parser.add_argument("--json", action="store_true", help="print JSON, for programs")
        parser.add_argument(
            "--glob", metavar="GLOB", default="**", help='only modules of A by path, such as "unet.mid_block.**"'
        )
        parser.add_argument(
            "--tolerance",
            type=float,
            metavar="X",
            help="largest distance that passes (what rounding explains: 1.3e-6 for float32, more where it was coarser)",
        )
        parser.add_argument("--link", choices=LINKS, default="index", help="how steps belong together (index)")
        add_renaming(parser)
        parser.add_argument("--all", action="store_true", help=f"list everything, not the first {_ROWS} layers")

    def run(self, options: argparse.Namespace) -> int:
        if options.tolerance is not None and not 0 <= options.tolerance < math.inf:
            raise ComparisonError(f"a tolerance of {options.tolerance}: give a number from 0 up, such as 1e-4")
        verdict = _judge(open_trace(options.a), open_trace(options.b), Renaming.of(options), options)
        if options.json:
            print_json(verdict.document())
        elif len(verdict.comparison.table):
            _print(verdict, everything=options.all)
        verdict.check()
        return 1 if verdict.partings else 0


def _judge(a: Trace, b: Trace, renaming: Renaming, options: argparse.Namespace) -> Verdict:
    """Compare what the pattern matches, behind a progress bar where there is a terminal."""
    chosen, fits = {site.name for site in select(a, options.glob)}, matches(options.glob)
    comparison = Comparison(a, b, renaming.names, options.link, only=lambda name: name in chosen or fits(name))
    with tqdm(total=len(comparison.table), desc="comparing", unit=" tensors", leave=False, disable=None) as bar:
        for rows in comparison.run():
            bar.update(len(rows))
    return Verdict(comparison, options.tolerance, *renaming.misfits(comparison.table.pairing))


def _print(verdict: Verdict, *, everything: bool) -> None:
    comparison, table = verdict.comparison, verdict.comparison.table
    tensors, statistics = (int((verdict.evidence == kind).sum()) for kind in (Evidence.TENSOR, Evidence.STATISTICS))
    links = table.links
    told = "what rounding explains" if verdict.tolerance is None else f"{verdict.tolerance:g}"
    lines = [
        ("A", f"{comparison.a.path}  {_count(comparison.a.n_steps, 'step')}"),
        ("B", f"{comparison.b.path}  {_count(comparison.b.n_steps, 'step')}"),
        ("compared", f"{_count(len(table), 'tensor')} at {_count(len(links.pairs), 'step')}, linked by {links.by}"),
        ("", f"{tensors} from what is stored, {statistics} from statistics, which prove a least distance only"),
        ("tolerance", told),
        *(("differs", f"{f.name}: {_short(f.a)} in A, {_short(f.b)} in B") for f in verdict.differing_facts),
        ("only in A", _lone(verdict.only_a, links.only_a, everything=everything)),
        ("only in B", _lone(verdict.only_b, links.only_b, everything=everything)),
        ("unreadable", _unreadable(verdict)),
        *(("not known", reason) for reason in verdict.uncompared.reasons),
    ]
    for label, text in lines:
        if text:
            print(printable(f"{label:10} {text}"))
    shown = verdict.partings if everything else verdict.partings[:_ROWS]
    if shown:
        print()
        header = ("layer", "first step", "distance", "at step", "cosine", "largest |A − B|", "from")
        print_table(header, [_row(parting) for parting in shown])
    print()
    hidden = len(verdict.partings) - len(shown)
    if verdict.first is not None:
        first = verdict.first
        limit = table.limits(verdict.tolerance)[first.row, first.link]
        print(printable(f"first: {first.pair.a.key}{_when(first)}, distance {_distance(first)}, above {limit:g}"))
    if verdict.partings:
        more = f"; the first {len(shown)} are listed, --all lists them" if hidden else ""
        print(f"{len(verdict.partings)} of {_count(len(table), 'tensor')} diverge{more}")
    else:
        unreadable = int(table.unreadable.sum())
        readable = f"the {len(table) - unreadable} that can be read of " if unreadable else ""
        print(f"no divergence in {readable}{_count(len(table), 'tensor')}")


def _row(parting: Parting) -> tuple[str, ...]:
    name = parting.pair.a.key
    if parting.first is None or parting.worst is None:
        return name, "–", "–", "–", "–", "–", parting.pair.problem
    distance = parting.worst.distance
    return (
        name,
        str(parting.first.steps[0]) if parting.first.steps else "–",
        _distance(parting.worst),
        str(parting.worst.steps[0]) if parting.worst.steps else "–",
        _number(distance.cosine),
        _number(distance.max_abs),
        parting.worst.evidence.name.lower(),
    )


def _lone(sites: Sequence[SiteInfo], steps: Sequence[int], *, everything: bool) -> str:
    """What only one trace has."""
    named = sites if everything else sites[:_NAMED]
    more = [f"and {len(sites) - len(named)} more"] if len(sites) > len(named) else []
    parts = [f"{_count(len(steps), 'step')}: {_ranges(steps)}"] if steps else []
    if sites:
        parts.append(f"{_count(len(sites), 'tensor')}: {', '.join([*(site.key for site in named), *more])}")
    return "; ".join(parts)


def _unreadable(verdict: Verdict) -> str:
    """How many tensors cannot be read, and the first of them."""
    table = verdict.comparison.table
    if not table.errors:
        return ""
    (row, _), error = next(iter(table.errors.items()))
    count = _count(int(table.unreadable.sum()), "tensor")
    return f"{count}, the first {table.pairing.pairs[row].a.key}: {error}"


def _ranges(steps: Sequence[int]) -> str:
    """Ascending numbers, "0-3, 7"."""
    runs: list[list[int]] = []
    for step in steps:
        if runs and step == runs[-1][-1] + 1:
            runs[-1].append(step)
        else:
            runs.append([step])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _when(divergence: Divergence) -> str:
    if divergence.steps is None:
        return ", outside of the loop"
    ours, theirs = divergence.steps
    return f" at step {ours}" + (f" ({theirs} in B)" if theirs != ours else "")


def _distance(divergence: Divergence) -> str:
    least = "" if divergence.evidence == Evidence.TENSOR else "≥"
    return least + _number(divergence.distance.relative_l2)


def _number(value: float) -> str:
    return "∞" if math.isinf(value) else number(value)


def _count(count: int, thing: str) -> str:
    return f"{count} {thing}" + ("" if count == 1 else "s")


def _short(text: str) -> str:
    return (text or "–") if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"

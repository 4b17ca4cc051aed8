"""``dxray stats``."""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..errors import SiteNotFoundError
from ..info import SiteInfo, printable
from ..layout import MEASURED, STATISTICS
from ..text import number, sparkline
from ..trace import Trace, open_trace
from .fitting import fit, terminal_width
from .protocol import add_trace_argument, print_json, print_table
from .selection import add_glob_argument, select

__all__ = ["Stats"]

_EXTREMES: Final = ("min", "max", "abs_max")
_SHOWN: Final = ("min", "max", "mean", "std", "abs_max", "nans", "infs", "zeros")
_COUNTS: Final = ("nans", "infs", "zeros")
_LEAST_WANTED: Final = ("zeros", "std over steps", "abs_max", "mean", "min")
"""Columns that go first where the terminal has no room for all."""
_SPARK_WIDTH: Final = 12

Row = dict[str, Any]


class Stats:
    """Show the statistics of modules: at one step, or over all of them.

      dxray stats run.zarr --sort abs_max --top 10
      dxray stats run.zarr "unet.**" --step 0 --sort nans
      dxray stats run.zarr --csv > run.csv

    Without --step each number is over all steps (extrema and counts are totals, mean, std and L2 norm are averages), an
    extreme stands with the step it was reached at, and a sparkline shows how std went from the first step to the last.
    What fired outside of the loop has no step: it stands apart, and with --step only where nothing else matches.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        add_trace_argument(parser)
        add_glob_argument(parser)
        parser.add_argument("--csv", action="store_true", help="print every statistic as CSV, for programs")
        parser.add_argument("--step", type=int, metavar="N", help="one step only, counted from 0")
        parser.add_argument("--top", type=_count, metavar="N", help="the first N rows only, after sorting")
        parser.add_argument(
            "--sort",
            choices=sorted({*MEASURED, "infs"}),
            metavar="STAT",
            help=f"largest first by one of {', '.join(MEASURED)}, infs",
        )

    def run(self, options: argparse.Namespace) -> int:
        parts = _parts(open_trace(options.trace), options.glob, options.step)
        for rows in parts:
            if options.sort:
                rows.sort(key=lambda row: _descending(row[options.sort]))
        shown = [rows[: options.top] for rows in parts]
        if options.json:
            print_json([_plain(row) for rows in shown for row in rows])
        elif options.csv:
            _print_csv([_plain(row) for rows in shown for row in rows])
        else:
            _print(shown, one_step=options.step is not None, sort=options.sort)
        return 0


def _parts(trace: Trace, glob: str, step: int | None) -> list[list[Row]]:
    """The rows of the loop and those outside of it, of which none where there is nothing to tell of them."""
    if step is not None and not 0 <= step < max(trace.n_steps, 1):
        raise SiteNotFoundError(f"no step {step} in {trace.path}; it has {trace.n_steps} complete steps, from 0")
    tables = {(table.component, table.stepped): table.values for table in trace.tables()}
    parts: dict[bool, list[Row]] = {True: [], False: []}
    for site in select(trace, glob):
        values = tables[site.name.split(".", 1)[0], site.stepped][:, site.row]
        parts[site.stepped].append(_row(site, values, step if site.stepped else None))
    if step is not None and parts[True]:
        parts[False] = []
    return [rows for rows in parts.values() if rows]


def _row(site: SiteInfo, values: NDArray[np.float64], step: int | None) -> Row:
    """All numbers of a site, whose table has `values`, shape (step, statistic)."""
    first = step or 0
    values = values if step is None else values[step : step + 1]
    row: Row = {"site": site.key, "in_loop": site.stepped}
    row |= {name: _over_steps(name, values[:, STATISTICS.index(name)]) for name in MEASURED}
    row["infs"] = row["positive_infs"] + row["negative_infs"]
    for name in _EXTREMES:
        at = _place(name, values[:, STATISTICS.index(name)])
        row[f"{name}_step"] = None if at is None or not site.stepped else first + at
    spread = values[:, STATISTICS.index("std")]
    places = np.linspace(0, len(spread) - 1, min(len(spread), _SPARK_WIDTH)).round().astype(int)
    row["std_over_steps"] = [float(value) for value in spread[places]] if len(spread) > 1 else []
    return row


def _over_steps(name: str, values: NDArray[np.float64]) -> float:
    """One number for all steps; steps that recorded nothing do not count."""
    at = _place(name, values) if name in _EXTREMES else None
    if at is not None:
        return float(values[at])
    values = values[~np.isnan(values)]
    if not len(values):
        return math.nan
    return float(values.mean() if name in ("mean", "std", "l2_norm") else values.sum())


def _place(name: str, values: NDArray[np.float64]) -> int | None:
    """The first step at which an extreme was reached; None where nothing was recorded."""
    if np.isnan(values).all():
        return None
    return int(np.nanargmin(values) if name == "min" else np.nanargmax(values))


def _print(parts: Sequence[Sequence[Row]], *, one_step: bool, sort: str | None) -> None:
    left_out: dict[str, None] = {}
    for place, rows in enumerate(parts):
        if not rows:
            continue
        if place:
            print()
        in_loop = bool(rows[0]["in_loop"])
        title = "outside of the loop" if place else "site"
        header = [title, *_SHOWN, *(["std over steps"] if in_loop and not one_step else [])]
        cells = [
            [_cell(row, name, with_step=in_loop and not one_step) for name in ("site", *header[1:])] for row in rows
        ]
        droppable = [name for name in _LEAST_WANTED if name != sort]
        titles, fitted = fit(header, cells, width=terminal_width(), droppable=droppable)
        print_table(titles, fitted)
        left_out |= dict.fromkeys(name for name in header if name not in titles[1:] and name != title)
    if left_out:
        print(f"\nno room for {', '.join(left_out)}: --csv has all")


def _cell(row: Row, name: str, *, with_step: bool) -> str:
    if name == "site":
        return printable(row["site"])
    if name == "std over steps":
        return sparkline(row["std_over_steps"])
    if name in _COUNTS and math.isfinite(row[name]):
        return str(int(row[name]))
    at = row.get(f"{name}_step")
    return number(row[name]) + (f" @{at}" if with_step and at is not None else "")


def _print_csv(rows: Sequence[Row]) -> None:
    names = list(rows[0]) if rows else []
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        known = {
            name: "" if value is None or math.isnan(value) else value for name, value in row.items() if name != "site"
        }
        writer.writerow({"site": printable(row["site"])} | known)


def _plain(row: Row) -> Row:
    """What programs are given of a row."""
    return {key: value for key, value in row.items() if key != "std_over_steps"}


def _descending(value: float) -> float:
    return math.inf if math.isnan(value) else -value


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from 1 up")
    return int(text)

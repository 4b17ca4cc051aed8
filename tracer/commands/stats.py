"""``dxray stats``."""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SiteNotFoundError
from ..layout import MEASURED
from ..text import number, sparkline
from ..trace import Trace, open_trace
from .protocol import add_trace_argument, print_json, print_table
from .selection import add_glob_argument, select

__all__ = ["Stats"]

_SHOWN = ("min", "max", "mean", "std", "abs_max", "nans", "infs", "zeros")
_SPARK_WIDTH = 12


class Stats:
    """Show the statistics of modules: at one step, or over all of them.

    Without --step each number is over all steps (extrema and counts are totals, mean, std and L2 norm are averages),
    and a sparkline shows how std went from the first step to the last.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        add_trace_argument(parser)
        add_glob_argument(parser)
        parser.add_argument("--step", type=int, metavar="N", help="one step only, counted from 0")
        parser.add_argument(
            "--sort",
            choices=sorted({*MEASURED, "infs"}),
            metavar="STAT",
            help=f"largest first by one of {', '.join(MEASURED)}, infs",
        )

    def run(self, options: argparse.Namespace) -> int:
        rows = _rows(open_trace(options.trace), options.glob, options.step)
        if options.sort:
            rows.sort(key=lambda row: -math.inf if math.isnan(row[options.sort]) else row[options.sort], reverse=True)
        if options.json:
            print_json([{key: value for key, value in row.items() if key != "std_over_steps"} for row in rows])
            return 0
        header = ("site", *_SHOWN, "" if options.step is not None else "std over steps")
        cells = [
            (row["site"], *(number(row[name]) for name in _SHOWN), sparkline(row["std_over_steps"])) for row in rows
        ]
        print_table(header, cells)
        return 0


def _rows(trace: Trace, glob: str, step: int | None) -> list[dict[str, Any]]:
    if step is not None and not 0 <= step < max(len(trace), 1):
        raise SiteNotFoundError(f"no step {step} in {trace.path}; it has {len(trace)} complete steps, from 0")
    tables = {(table.component, table.stepped): table for table in trace.tables()}
    rows = []
    for site in select(trace, glob):
        values = tables[site.name.split(".", 1)[0], site.stepped].values[:, site.row]
        if site.stepped and step is not None:
            values = values[step : step + 1]
        row: dict[str, Any] = {
            "site": site.key,
            **{name: _over_steps(name, values[:, i]) for i, name in enumerate(MEASURED)},
        }
        row["infs"] = row["positive_infs"] + row["negative_infs"]
        spread = values[:, MEASURED.index("std")]
        at = np.linspace(0, len(spread) - 1, min(len(spread), _SPARK_WIDTH)).round().astype(int)
        row["std_over_steps"] = [float(value) for value in spread[at]] if len(spread) > 1 else []
        rows.append(row)
    return rows


def _over_steps(name: str, values: NDArray[np.float64]) -> float:
    """One number for all steps; steps that recorded nothing do not count."""
    values = values[~np.isnan(values)]
    if not len(values):
        return math.nan
    if name in ("min", "max", "abs_max"):
        return float(values.min() if name == "min" else values.max())
    return float(values.mean() if name in ("mean", "std", "l2_norm") else values.sum())

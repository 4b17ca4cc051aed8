#!/usr/bin/env python
"""How much memory tracing takes, and that it does not grow with the number of steps.

python benchmarks/memory.py                      # 10 and 1000 steps of the small UNet, the outputs of all modules
python benchmarks/memory.py --steps 10 100       # shorter

Each run is in a fresh process. What counts is the peak of its resident memory above that of the untraced loop with as
many steps. Of it, libraries and compiled code are there before the loop starts: a single step runs first. The longest
run leaves its whole trace on disk for a while, about 10 MB a step.
"""

from __future__ import annotations

import functools

import torch
from harness import (
    Measured,
    add_folder,
    add_threads,
    machine,
    make_parser,
    markdown,
    megabytes,
    report,
    take_turns,
    versions,
)
from processes import once
from variants import EVERYTHING, prepare_peak

VARIANTS = ("untraced", EVERYTHING)


def main() -> None:
    """Measure, print, and write the page."""
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 1000], metavar="N", help="lengths (10 1000)")
    add_threads(parser)
    add_folder(parser)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    further = (torch.get_num_threads(), options.folder and str(options.folder))
    cases = {
        f"{steps} {name}": functools.partial(once, prepare_peak, "small", name, steps, *further)
        for steps in options.steps
        for name in VARIANTS
    }
    found = take_turns(cases, options.rounds, warm_up=False, unit="process")  # a fresh process has nothing to warm up
    report(options, __file__, render(found, options.steps, options.rounds), found)


def render(found: dict[str, Measured], lengths: list[int], rounds: int) -> str:
    """The results as Markdown."""
    rows = []
    for steps in lengths:
        base, traced = (found[f"{steps} {name}"] for name in VARIANTS)
        peaks = [base.median("peak"), traced.median("peak")]
        held = traced.median("before") - base.median("before")
        row = [*peaks, peaks[1] - peaks[0], held, traced.facts["bytes"]]
        rows.append([str(steps), *map(megabytes, row)])
    header = ["steps", "untraced, peak", "traced, peak", "above untraced", "of it, before the loop", "trace on disk"]
    first = f"Every module captured, median of {rounds} rounds; {machine()}, {versions()}."
    return f"{first}\n\n{markdown(header, rows, numbers_from=0)}"


if __name__ == "__main__":
    main()

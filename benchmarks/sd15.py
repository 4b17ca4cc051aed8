#!/usr/bin/env python
"""What tracing costs on the UNet of Stable Diffusion 1.5, against the same loop untraced.

python benchmarks/sd15.py            # 860 M parameters: 8 GB of memory, minutes on a CPU, 20 GB of disk for a while
python benchmarks/sd15.py --small    # a narrow UNet of that structure, to see whether the benchmark works

Real configuration, random weights, latents of 64x64, a batch of two, 77 tokens of width 768. Memory first, each variant
in a fresh process; then the times, by turns in one process.
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
    times,
    versions,
)
from loops import sd15_loop
from processes import once
from variants import ATTENTION, EVERYTHING, prepare_peak, traced_turn

VARIANTS = ("untraced", "statistics", "blocks", ATTENTION, EVERYTHING)


def main() -> None:
    """Measure, print, and write the page."""
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument("--steps", type=int, default=3, metavar="N", help="steps of the loop (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=VARIANTS, metavar="NAME", help=f"of {VARIANTS}")
    parser.add_argument("--small", action="store_true", help="a narrow UNet; leaves README.md as it is")
    add_threads(parser)
    add_folder(parser)
    options = parser.parse_args()
    options.print_only |= options.small
    if options.threads:
        torch.set_num_threads(options.threads)
    names = list(dict.fromkeys(["untraced", *options.only]))
    peaks = measure_peaks(names, options.steps, options.folder and str(options.folder), small=options.small)
    loop = sd15_loop(options.steps, reduced=options.small)
    expected = loop.run()
    turns = {name: functools.partial(traced_turn, loop, name, expected, options.folder) for name in names}
    found = take_turns(turns, options.rounds, warm_up=False)  # runs are long: what the first one loads does not show
    for name, measured in found.items():
        for turn in measured.turns:
            turn.facts |= {"peak": peaks[name].facts["peak"]}
    report(options, __file__, render(found, options.rounds, options.steps), found)


def measure_peaks(names: list[str], steps: int, folder: str | None, *, small: bool) -> dict[str, Measured]:
    """Peak memory of each variant, in a process of its own."""
    model = "sd15 reduced" if small else "sd15"
    arguments = (steps, torch.get_num_threads(), folder)
    cases = {name: functools.partial(once, prepare_peak, model, name, *arguments) for name in names}
    return take_turns(cases, 1, warm_up=False, unit="process")


def render(found: dict[str, Measured], rounds: int, steps: int) -> str:
    """The results as Markdown."""
    base, rows = found["untraced"], []
    for name, measured in found.items():
        facts = measured.facts
        row = [name, *times(measured, base)]
        if name != "untraced":
            above = facts["peak"] - base.facts["peak"]
            row += [str(facts["modules"]), str(facts["stored"]), megabytes(facts["bytes"] / steps), megabytes(above)]
        rows.append(row)
    header = ["", "wall", "×", "CPU", "×", "places", "with tensors", "trace a step", "memory above untraced"]
    first = f"{steps} steps, median of {rounds} rounds; {machine()}, {versions()}."
    return f"{first} Untraced, the process holds {megabytes(base.facts['peak'])} at most.\n\n{markdown(header, rows)}"


if __name__ == "__main__":
    main()

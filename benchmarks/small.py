#!/usr/bin/env python
"""What recording costs on a small UNet: this tracer and its peers, against the same loop untraced.

python benchmarks/small.py                                    # everything
python benchmarks/small.py --only untraced "every*" "msprobe*"     # some of it
python benchmarks/small.py --steps 5 --rounds 3               # shorter

Each variant has a process of its own, as some peers change torch for good, and they take turns: only one runs at a
time. Torch has one thread unless told otherwise: a network this small is no faster with two. A peer that is not
installed, or cannot record this model, has a row that says so; `pip install -e ".[bench]"` installs them all. Every
traced output is compared with the untraced one, bit for bit.
"""

from __future__ import annotations

import fnmatch
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from harness import (
    Measured,
    NotMeasuredError,
    Stopwatch,
    Turn,
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
from loops import small_loop
from peers import PEERS
from processes import Worker
from variants import ATTENTION, DURABLE, EVERYTHING, RAW, traced_turn

OURS = ("untraced", "statistics", "blocks", DURABLE, ATTENTION, EVERYTHING, RAW)


def main() -> None:
    """Measure, print, and write the page."""
    parser = make_parser(__doc__, rounds=5)
    parser.add_argument("--steps", type=int, default=50, metavar="N", help="steps of the loop (%(default)s)")
    parser.add_argument("--only", nargs="+", metavar="GLOB", help=f"some of: {', '.join([*OURS, *PEERS])}")
    add_threads(parser, default=1)
    add_folder(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)  # for the table's first line; the workers set their own
    wanted = ["untraced", *(options.only or ["*"])]
    chosen = [name for name in (*OURS, *PEERS) if any(fnmatch.fnmatchcase(name, glob) for glob in wanted)]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, ExitStack() as stack:
        workers = {}
        for name in chosen:
            place = tempfile.mkdtemp(dir=folder)
            workers[name] = Worker(prepare, name, options.steps, torch.get_num_threads(), place, optional=name in PEERS)
            stack.callback(workers[name].close)
        found = take_turns(workers, options.rounds)
    report(options, __file__, render(found, options.rounds, options.steps), found)


def prepare(name: str, steps: int, threads: int, folder: str) -> Callable[[], Turn]:
    """Make the loop and run it untraced for reference; returns what runs one turn of a variant.

    Raises:
        NotMeasuredError: The variant is a peer that is not installed.
    """
    torch.set_num_threads(threads)
    loop = small_loop(steps)
    expected = loop.run()
    if name in PEERS:
        distribution, peer = PEERS[name]
        try:
            release = version(distribution)
        except PackageNotFoundError:
            raise NotMeasuredError(f"not installed; pip install {distribution}") from None

    def run() -> Turn:
        if name not in PEERS:
            return traced_turn(loop, name, expected, folder)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            with Stopwatch() as clock:
                output, count = peer(loop, Path(place))
            turn, kept = clock.turn, count()
        turn.facts = {"modules": kept.modules, "bytes": kept.nbytes, "where": kept.where, "version": release}
        turn.facts["same"] = torch.equal(expected, output)
        return turn

    return run


def render(found: dict[str, Measured], rounds: int, steps: int) -> str:
    """The results as Markdown."""
    rows = []
    for name, measured in found.items():
        if measured.error:
            rows.append([f"{name}: {measured.error}".replace("|", "/")])
            continue
        facts = measured.facts
        held: list[str] = []
        if facts:
            modules = facts["modules"]
            held = ["operators" if modules is None else str(modules), megabytes(facts["bytes"] / steps)]
            held += [facts.get("where", "disk"), "yes" if facts.get("same", True) else "no"]
        label = f"{name} ({facts['version']})" if "version" in facts else name
        rows.append([label, *times(measured, found["untraced"]), *held])
    header = ["", "wall", "×", "CPU", "×", "modules", "kept a step", "in", "same output"]
    return f"{steps} steps, median of {rounds} rounds; {machine()}, {versions()}.\n\n{markdown(header, rows)}"


if __name__ == "__main__":
    main()

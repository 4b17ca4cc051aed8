"""What the benchmarks share: turns, their medians, command-line options, and the tables in README.md."""

# ruff: noqa: INP001 (beside the scripts that import it, no package)
from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from tqdm import tqdm

PAGE = Path(__file__).with_name("README.md")
DASH = "–"


class NotMeasuredError(Exception):
    """A variant cannot be measured; the message is the one line that its row then says."""


@dataclass(slots=True)
class Turn:
    """One run of one variant."""

    wall: float = 0.0
    """Seconds from before the recorder starts until what it wrote is finished."""
    cpu: float = 0.0
    """Seconds of processor time of all threads of the process in that time."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What else there is to say of the run, measured off the clock."""
    output: Any = None
    """What the run computed, to be compared; not kept."""


@dataclass(slots=True)
class Measured:
    """One variant over all rounds that count."""

    turns: list[Turn] = field(default_factory=list)
    error: str = ""
    """Why it was not measured."""

    @property
    def wall(self) -> float:
        """Median of the wall seconds."""
        return statistics.median(turn.wall for turn in self.turns)

    @property
    def cpu(self) -> float:
        """Median of the processor seconds."""
        return statistics.median(turn.cpu for turn in self.turns)

    @property
    def facts(self) -> dict[str, Any]:
        """Facts of the last turn, for those that are the same in every one."""
        return self.turns[-1].facts

    def median(self, fact: str) -> float:
        """Median of a fact that is a number."""
        return statistics.median(turn.facts[fact] for turn in self.turns)


class Stopwatch:
    """Times a `with` block: afterwards `turn` holds its wall and processor seconds."""

    def __enter__(self) -> Self:
        self.turn = Turn()
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.turn.wall = time.perf_counter() - self._wall
        self.turn.cpu = time.process_time() - self._cpu


def take_turns(
    variants: Mapping[str, Callable[[], Turn]], rounds: int, *, warm_up: bool = True, unit: str = "run"
) -> dict[str, Measured]:
    """Run every variant once a round, so that a machine whose speed drifts slows all of them alike.

    Args:
        variants: What to run, by name. One that raises `NotMeasuredError` is left out of the rounds that follow.
        rounds: Rounds that count.
        warm_up: Run a round before them that does not count: it compiles kernels and warms the caches.
        unit: What the progress bar counts.
    """
    found = {name: Measured() for name in variants}
    first = 0 if warm_up else 1
    with tqdm(total=(rounds + 1 - first) * len(variants), unit=unit) as bar:
        for round_ in range(first, rounds + 1):
            for name, run in variants.items():
                bar.set_postfix_str(name if round_ else f"{name}, warm-up")
                if not found[name].error:
                    try:
                        turn = run()
                    except NotMeasuredError as error:
                        found[name] = Measured(error=str(error))
                    else:
                        turn.output = None
                        found[name].turns += [turn] if round_ else []
                bar.update()
    return found


def make_parser(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has.

    Args:
        description: The script's docstring.
        rounds: Default number of rounds.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds",
        type=int,
        default=rounds,
        metavar="N",
        help="timed runs of each variant, after one that warms up and does not count (%(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single figure there, too")
    parser.add_argument("--print-only", action="store_true", help="leave the table in README.md as it is")
    return parser


def add_threads(parser: argparse.ArgumentParser, *, default: int | None = None) -> None:
    """The option ``--threads``."""
    said = "its own choice" if default is None else default
    parser.add_argument("--threads", type=int, metavar="N", default=default, help=f"threads of torch ({said})")


def add_folder(parser: argparse.ArgumentParser) -> None:
    """The option ``--folder``."""
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where traces go and are deleted again ($TMPDIR)")


def report(options: argparse.Namespace, script: str, table: str, found: Mapping[str, Measured]) -> None:
    """Print a table and write it into README.md between the markers of its script, and the figures as JSON.

    Args:
        options: What the parser of `make_parser` made.
        script: Path of the script, ``__file__``.
        table: Markdown.
        found: What the table was made of.

    Raises:
        ValueError: README.md has no markers for the script.
    """
    print(table)
    if not options.print_only:
        write_page(script, table)
    if options.json:
        document = {
            "benchmark": Path(script).name,
            "machine": machine(),
            "versions": versions(),
            "options": {key: str(value) for key, value in vars(options).items()},
            "variants": {variant: asdict(measured) for variant, measured in found.items()},
        }
        options.json.write_text(json.dumps(document, indent=1, default=str) + "\n", encoding="utf-8")


def write_page(script: str, table: str) -> None:
    """Put a table into README.md, between the markers of its script.

    Raises:
        ValueError: README.md has no markers for the script.
    """
    begin, end = f"<!-- {Path(script).name} writes from here -->", "<!-- to here -->"
    between = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    page, count = between.subn(lambda _: f"{begin}\n\n{table}\n\n{end}", PAGE.read_text(encoding="utf-8"))
    if not count:
        raise ValueError(f"{PAGE} has no place for the table; add the lines {begin!r} and {end!r}")
    PAGE.write_text(page, encoding="utf-8")


def machine() -> str:
    """Cores and torch threads, in words."""
    import torch

    return f"{os.cpu_count()} cores ({platform.machine()}), {torch.get_num_threads()} torch threads"


def versions(*packages: str) -> str:
    """Versions of torch, diffusers, some further packages, and Python, in words."""
    named = ", ".join(f"{package} {version(package)}" for package in ("torch", "diffusers", *packages))
    return f"{named}, Python {platform.python_version()}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers_from: int = 1) -> str:
    """A Markdown table; its cells from column `numbers_from` on are right-aligned, shorter rows are filled up."""
    marks = ["---"] * numbers_from + ["--:"] * (len(header) - numbers_from)
    lines = [f"| {' | '.join(header)} |".replace("|  |", "| |"), f"|{'|'.join(marks)}|"]
    lines += [f"| {' | '.join([*row, *[DASH] * (len(header) - len(row))])} |" for row in rows]
    return "\n".join(lines)


def times(measured: Measured, base: Measured, *, digits: int = 2) -> list[str]:
    """Four cells: wall and processor seconds, each followed by its ratio to that of `base`."""
    wall, cpu = measured.wall, measured.cpu
    return [f"{wall:.{digits}f} s", f"{wall / base.wall:.2f}", f"{cpu:.{digits}f} s", f"{cpu / base.cpu:.2f}"]


def megabytes(count: float) -> str:
    """Bytes as "1.2 MB", a million bytes each."""
    return f"{count / 1e6:.1f} MB"

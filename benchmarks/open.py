#!/usr/bin/env python
"""How long a trace takes to open and to read, against xarray on the same folder.

python benchmarks/open.py                              # 1000 modules, 50 steps
python benchmarks/open.py --modules 100 --steps 10     # shorter

The trace is that of a model of many tiny modules, everything captured. Opening is timed up to the list of modules (for
xarray: the tree of all groups). A read starts with the trace open; the first one pays for what opening left for later.
The operating system has the files in its cache.
"""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import xarray
from harness import Measured, Stopwatch, Turn, add_folder, machine, make_parser, markdown, report, take_turns, versions
from torch import nn

from diffusion_xray.tracer import Capture, Tracer, open_trace

WIDTH = 8
TASKS = ("open", "one tensor of one step", "a further one", "one statistic, all modules and steps")


def main() -> None:
    """Measure, print, and write the page."""
    parser = make_parser(__doc__, rounds=7)
    parser.add_argument("--modules", type=int, default=1000, metavar="N", help="modules of the model (%(default)s)")
    parser.add_argument("--steps", type=int, default=50, metavar="N", help="steps in the trace (%(default)s)")
    add_folder(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "run.zarr"
        make_trace(path, options.modules, options.steps)
        files = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
        found = take_turns(readers(path, options.modules, options.steps), options.rounds, unit="call")
    report(options, __file__, render(found, options, files), found)


def make_trace(path: Path, modules: int, steps: int) -> None:
    """Trace a chain of tiny linear modules."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(modules - 1)))  # the chain itself is a module, too
    with torch.no_grad(), Tracer(model, path, capture=Capture(modules="**")) as tracer:
        for step in range(steps):
            tracer.step(step, timestep=steps - step)
            model(torch.randn(2, WIDTH))


def readers(path: Path, modules: int, steps: int) -> dict[str, Callable[[], Turn]]:
    """Each task with each reader; all check that they found what was written.

    Raises:
        RuntimeError: The readers disagree.
    """
    places = itertools.cycle([(module, step) for step in range(steps) for module in range(7, modules - 1, 97)])

    def open_ours() -> Any:
        trace = open_trace(path)
        expect(len(trace.modules), modules)
        return trace

    def open_xarray() -> Any:
        tree = xarray.open_datatree(path, engine="zarr")
        expect(sum(f"/model/{module}" in tree.groups for module in range(modules - 1)), modules - 1)
        return tree

    def tensor_ours(trace: Any, module: int, step: int) -> None:
        expect(trace.tensor(trace.site(f"model.{module}"), step).shape, (2, WIDTH))

    def tensor_xarray(tree: Any, module: int, step: int) -> None:
        expect(tree[f"model/{module}"]["output"].isel(step=step).values.shape, (2, WIDTH))

    def statistic_ours(trace: Any, *_: int) -> None:
        expect(trace.table("model").column("std").shape, (steps, modules))

    def statistic_xarray(tree: Any, *_: int) -> None:
        table = tree["statistics/model"]["statistics"]
        expect(table.isel(statistic=3).values.shape, (steps, modules))

    def timed(task: str, run: Callable[..., Any], opener: Callable[[], Any]) -> Turn:
        arguments = () if task == "open" else (opener(), *next(places))
        if task == "a further one":
            run(arguments[0], *next(places))
        with Stopwatch() as clock:
            run(*arguments)
        return clock.turn

    tasks: list[tuple[Callable[..., Any], Callable[..., Any]]] = [
        (open_ours, open_xarray),
        (tensor_ours, tensor_xarray),
        (tensor_ours, tensor_xarray),
        (statistic_ours, statistic_xarray),
    ]
    return {
        f"{task}, {reader}": functools.partial(timed, task, run, opener)
        for task, runs in zip(TASKS, tasks, strict=True)
        for reader, run, opener in zip(("open_trace", "xarray"), runs, (open_ours, open_xarray), strict=True)
    }


def expect(found: Any, wanted: Any) -> None:
    """Compare what was read with what must be there.

    Raises:
        RuntimeError: They differ.
    """
    if found != wanted:
        raise RuntimeError(f"read {found} where {wanted} was written")


def render(found: dict[str, Measured], options: Any, files: list[int]) -> str:
    """The results as Markdown."""
    rows = []
    for task in TASKS:
        ours, theirs = (found[f"{task}, {reader}"].wall for reader in ("open_trace", "xarray"))
        rows.append([task, f"{ours * 1e3:.2f} ms", f"{theirs * 1e3:.2f} ms", f"{theirs / ours:.1f}"])
    first = f"{options.modules} modules, {options.steps} steps: {len(files)} files, {sum(files) / 1e6:.1f} MB."
    second = f"Median of {options.rounds} calls; {machine()}, {versions('xarray', 'zarr')}."
    return f"{first} {second}\n\n{markdown(['', '`open_trace`', 'xarray', '×'], rows)}"


if __name__ == "__main__":
    main()

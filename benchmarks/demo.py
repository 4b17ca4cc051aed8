#!/usr/bin/env python
"""What tracing costs on the embedded model, against the same run untraced.

python benchmarks/demo.py [--rounds N] [--steps N]

Prints a table and writes it into README.md beside this file. The variants take turns, so that a machine whose speed
drifts slows all of them alike; ratios of medians are what counts.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.tracer import Tracer, open_trace

PAGE = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- demo.py writes from here -->", "<!-- to here -->"
VARIANTS = ("untraced", "statistics", "blocks", "all")
PROMPT = "a red circle left of a blue square on white"


@dataclass(slots=True)
class Measured:
    """One variant over all rounds."""

    wall: list[float] = field(default_factory=list)
    """Seconds from before the tracer starts until the trace is finished."""
    cpu: list[float] = field(default_factory=list)
    """Seconds of processor time of all threads."""
    trace_bytes: int = 0
    modules: int = 0
    stored: int = 0


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="timed runs of each variant (%(default)s)")
    parser.add_argument("--steps", type=int, default=25, metavar="N", help="denoising steps (%(default)s)")
    options = parser.parse_args()
    table = render(measure(options.rounds, options.steps), options.rounds, options.steps)
    print(table)
    page = PAGE.read_text(encoding="utf-8")
    between = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    PAGE.write_text(between.sub(lambda _: f"{BEGIN}\n\n{table}\n\n{END}", page), encoding="utf-8")


def measure(rounds: int, steps: int) -> dict[str, Measured]:
    """Run every variant in turn; the first round warms up and does not count.

    Raises:
        RuntimeError: A traced run drew another picture than the untraced one.
    """
    pipeline = load_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    found = {name: Measured() for name in VARIANTS}
    for round_ in range(rounds + 1):
        expected = None
        for name, measured in found.items():
            wall, cpu, picture = run(pipeline, name, steps, measured)
            if expected is None:
                expected = picture
            if not np.array_equal(expected, picture):
                raise RuntimeError(f"{name}: the traced run drew another picture")
            if round_:
                measured.wall.append(wall)
                measured.cpu.append(cpu)
    return found


def run(pipeline: Any, name: str, steps: int, measured: Measured) -> tuple[float, float, np.ndarray[Any, Any]]:
    """One run of one variant: wall seconds, processor seconds, picture."""
    generator = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.zarr"
        wall, cpu = time.perf_counter(), time.process_time()
        with nullcontext() if name == "untraced" else Tracer(pipeline, path, capture=name):
            result = pipeline(PROMPT, num_inference_steps=steps, generator=generator, output_type="np")
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        if name != "untraced":
            modules = open_trace(path).modules
            measured.trace_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            measured.modules, measured.stored = len(modules), sum(module.stored for module in modules.values())
    return wall, cpu, result.images


def render(found: dict[str, Measured], rounds: int, steps: int) -> str:
    """The results as Markdown."""
    base = found["untraced"]
    machine = f"{os.cpu_count()} cores ({platform.machine()}), {torch.get_num_threads()} torch threads"
    versions = f"torch {version('torch')}, diffusers {version('diffusers')}, Python {platform.python_version()}"
    lines = [
        f"{steps} steps, median of {rounds} rounds; {machine}, {versions}.",
        "",
        "| | wall | × | CPU | × | places recorded | with tensors | trace |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, measured in found.items():
        wall, cpu = statistics.median(measured.wall), statistics.median(measured.cpu)
        times = f"{wall:.2f} s | {wall / statistics.median(base.wall):.2f} | "
        times += f"{cpu:.2f} s | {cpu / statistics.median(base.cpu):.2f}"
        held = f"{measured.modules} | {measured.stored} | {measured.trace_bytes / 1e6:.1f} MB"
        lines.append(f"| {name} | {times} | {'– | – | –' if name == 'untraced' else held} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

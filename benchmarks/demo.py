#!/usr/bin/env python
"""What tracing costs on the embedded model, against the same run untraced.

python benchmarks/demo.py [--rounds N] [--steps N]

Prints a table and writes it into README.md beside this file. The variants take turns, so that a machine whose speed
drifts slows all of them alike; ratios of medians are what counts.
"""

from __future__ import annotations

import functools
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import (
    Measured,
    Stopwatch,
    Turn,
    machine,
    make_parser,
    markdown,
    megabytes,
    report,
    take_turns,
    times,
    versions,
)
from variants import trace_facts

from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.tracer import Tracer

VARIANTS = ("untraced", "statistics", "blocks", "all")
PROMPT = "a red circle left of a blue square on white"


def main() -> None:
    """Measure, print, and write the page."""
    parser = make_parser(__doc__, rounds=7)
    parser.add_argument("--steps", type=int, default=25, metavar="N", help="denoising steps (%(default)s)")
    options = parser.parse_args()
    found = measure(options.rounds, options.steps)
    report(options, __file__, render(found, options.rounds, options.steps), found)


def measure(rounds: int, steps: int) -> dict[str, Measured]:
    """Run every variant in turn.

    Raises:
        RuntimeError: A traced run drew another picture than the untraced one.
    """
    pipeline = load_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    expected = run(pipeline, "untraced", steps, None).output
    return take_turns({name: functools.partial(run, pipeline, name, steps, expected) for name in VARIANTS}, rounds)


def run(pipeline: Any, name: str, steps: int, expected: np.ndarray[Any, Any] | None) -> Turn:
    """One run of one variant."""
    generator = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.zarr"
        with Stopwatch() as clock, nullcontext() if name == "untraced" else Tracer(pipeline, path, capture=name):
            result = pipeline(PROMPT, num_inference_steps=steps, generator=generator, output_type="np")
        turn = clock.turn
        turn.output = result.images
        if expected is not None and not np.array_equal(expected, turn.output):
            raise RuntimeError(f"{name}: the traced run drew another picture")
        if name != "untraced":
            turn.facts = trace_facts(path, steps)
    return turn


def render(found: dict[str, Measured], rounds: int, steps: int) -> str:
    """The results as Markdown."""
    rows = []
    for name, measured in found.items():
        facts = measured.facts
        held = [str(facts["modules"]), str(facts["stored"]), megabytes(facts["bytes"])] if facts else []
        rows.append([name, *times(measured, found["untraced"]), *held])
    header = ["", "wall", "×", "CPU", "×", "places recorded", "with tensors", "trace"]
    return f"{steps} steps, median of {rounds} rounds; {machine()}, {versions()}.\n\n{markdown(header, rows)}"


if __name__ == "__main__":
    main()

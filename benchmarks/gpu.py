#!/usr/bin/env python
"""What tracing costs on a GPU, on a UNet of the size of SDXL in bfloat16, against the same loop untraced.

python benchmarks/gpu.py                         # needs CUDA and 12 GB of its memory
python benchmarks/gpu.py --device cpu --small    # a narrow UNet, to see whether the benchmark works

Real configuration, random weights, latents of 128x128, a batch of two. The device is waited for before the clock is
started, and before it is stopped.
"""

from __future__ import annotations

import functools
import sys

import torch
from harness import (
    Measured,
    Turn,
    add_folder,
    machine,
    make_parser,
    markdown,
    megabytes,
    report,
    take_turns,
    times,
    versions,
)
from loops import Loop, sdxl_loop
from torch import Tensor
from variants import traced_turn

VARIANTS = ("untraced", "statistics", "blocks")


def main() -> int:
    """Measure, print, and write the page; 2 where there is no GPU."""
    parser = make_parser(__doc__, rounds=7)
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="steps of the loop (%(default)s)")
    parser.add_argument("--device", default="cuda", help="where the UNet runs (%(default)s)")
    parser.add_argument("--small", action="store_true", help="a narrow UNet; leaves README.md as it is")
    add_folder(parser)
    options = parser.parse_args()
    on_gpu = torch.device(options.device).type == "cuda"
    if on_gpu and not torch.cuda.is_available():
        print("gpu.py needs a GPU that torch can use; --device cpu --small only tries the code", file=sys.stderr)
        return 2
    options.print_only |= options.small or not on_gpu
    torch.backends.cudnn.benchmark = False  # so that two untraced runs are bit-identical, too
    torch.backends.cudnn.deterministic = True
    loop = sdxl_loop(options.steps, dtype=torch.bfloat16, device=options.device, reduced=options.small)
    expected = loop.run()
    turns = {name: functools.partial(turn_on, loop, name, expected, options.folder) for name in VARIANTS}
    found = take_turns(turns, options.rounds)
    device = torch.cuda.get_device_name(loop.latents.device) if on_gpu else options.device
    report(options, __file__, render(found, options.rounds, options.steps, device), found)
    return 0


def turn_on(loop: Loop, name: str, expected: Tensor, folder: str | None) -> Turn:
    """One turn, with the peak of the device's memory."""
    device = loop.latents.device
    if device.type != "cuda":
        return traced_turn(loop, name, expected, folder)
    torch.cuda.reset_peak_memory_stats(device)
    turn = traced_turn(loop, name, expected, folder, settle=functools.partial(torch.cuda.synchronize, device))
    turn.facts["device_peak"] = torch.cuda.max_memory_allocated(device)
    return turn


def render(found: dict[str, Measured], rounds: int, steps: int, device: str) -> str:
    """The results as Markdown."""
    base, rows = found["untraced"], []
    for name, measured in found.items():
        facts = measured.facts
        row = [name, *times(measured, base)]
        if name != "untraced":
            above = facts.get("device_peak", 0) - base.facts.get("device_peak", 0)
            row += [str(facts["modules"]), str(facts["stored"]), megabytes(facts["bytes"] / steps), megabytes(above)]
        rows.append(row)
    header = ["", "wall", "×", "CPU", "×", "places", "with tensors", "trace a step", "GPU memory above untraced"]
    first = f"{steps} steps, median of {rounds} rounds; {device}, {machine()}, {versions()}."
    return f"{first}\n\n{markdown(header, rows)}"


if __name__ == "__main__":
    sys.exit(main())

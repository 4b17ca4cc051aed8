#!/usr/bin/env python
"""What attention takes on disk at the size of Stable Diffusion 1.5, and how fast maps come back from it.

python benchmarks/attention.py            # 860 M parameters, 512x512: 8 GB of memory, minutes on a CPU
python benchmarks/attention.py --small    # a narrow UNet of that structure, to see whether the benchmark works

A pipeline with random weights and the embedded model's tokenizer, stretched to 77 tokens, draws once with queries and
keys kept. Full maps are reckoned: batch x heads x queries x keys, in float32 as the queries are. Reads begin with the
trace open and its list of modules read; the operating system has the files in its cache.
"""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
from harness import (
    Measured,
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
    versions,
)
from loops import sd15_loop
from transformers import CLIPTextConfig, CLIPTextModel

from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.tracer import Capture, Trace, Tracer, open_trace

PROMPT = "a red circle left of a blue square on white"
TOKENS = 77
ROW = "one row of one head"
HEAD = "one head, all rows"
WORD = "a word map of one step"


def main() -> None:
    """Measure, print, and write the page."""
    parser = make_parser(__doc__, rounds=15)
    parser.add_argument("--steps", type=int, default=2, metavar="N", help="steps of the run (%(default)s)")
    parser.add_argument("--small", action="store_true", help="a narrow UNet; leaves README.md as it is")
    add_threads(parser)
    add_folder(parser)
    options = parser.parse_args()
    options.print_only |= options.small
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "run.zarr"
        record(path, options.steps, small=options.small)
        trace = open_trace(path)
        found = take_turns(readers(path, trace, options.steps), options.rounds, unit="read")
        report(options, __file__, render(trace, found, options), found)


def record(path: Path, steps: int, *, small: bool) -> None:
    """Draw once with queries and keys of the UNet kept."""
    unet = sd15_loop(1, reduced=small).unet
    width = int(unet.config["cross_attention_dim"])
    tokenizer = load_pipeline().tokenizer
    tokenizer.model_max_length = TOKENS
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=width, num_hidden_layers=1,
        num_attention_heads=4, max_position_embeddings=TOKENS, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    vae = AutoencoderKL(block_out_channels=(32,) * 4, down_block_types=("DownEncoderBlock2D",) * 4)
    scheduler, encoder = DDIMScheduler(clip_sample=False, steps_offset=1), CLIPTextModel(config).eval()
    pipeline = StableDiffusionPipeline(
        vae, encoder, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )
    with Tracer(pipeline, path, capture=Capture(attention="unet.**", latents=False)):
        pipeline(PROMPT, num_inference_steps=steps, output_type="latent")


def readers(path: Path, trace: Trace, steps: int) -> dict[str, Callable[[], Turn]]:
    """What is timed."""
    largest = max(
        (calls[0] for calls in trace.attention_modules.values() if calls[0].kind == "self"),
        key=lambda call: call.shape[-2],
    )
    turn = itertools.count()

    def timed(read: Callable[[Trace, int], Any]) -> Callable[[], Turn]:
        def run() -> Turn:
            fresh, number = open_trace(path), next(turn)
            len(fresh.attention_modules)  # what a session reads once
            with Stopwatch() as clock:
                read(fresh, number)
            return clock.turn

        return run

    def row(fresh: Trace, number: int) -> Any:
        _, heads, queries, _ = largest.shape
        place = {"step": number % steps, "batch": 1, "head": number % heads, "query": 37 * number % queries}
        return fresh.attention(largest.module).isel(place).values

    def head(fresh: Trace, number: int) -> Any:
        return fresh.attention(largest.module).isel(step=number % steps, batch=1, head=number % largest.shape[1]).values

    return {
        ROW: timed(row),
        HEAD: timed(head),
        WORD: timed(lambda fresh, number: fresh.word_map("circle", step=number % steps)),
    }


def render(trace: Trace, found: dict[str, Measured], options: Any) -> str:
    """The results as Markdown."""
    rows = []
    for kind in ("self", "cross"):
        calls = [call for calls in trace.attention_modules.values() for call in calls if call.kind == kind]
        whole = sum(4 * math.prod(call.shape) for call in calls) * options.steps
        sites = [trace.site(call.module, port) for call in calls for port in ("query", "key")]
        kept = sum(size_of(Path(trace.path) / site.array) for site in sites)
        rows.append(
            [
                kind,
                str(len(calls)),
                *(megabytes(count / options.steps) for count in (kept, whole)),
                f"{whole / kept:.1f}",
            ]
        )
    table = markdown(["attention", "layers", "kept a step", "full maps", "times smaller"], rows)
    reads = [[name, f"{measured.wall * 1e3:.1f} ms"] for name, measured in found.items()]
    first = f"{options.steps} steps; reads are medians of {options.rounds}; {machine()}, {versions()}."
    return f"{first}\n\n{table}\n\n{markdown(['read', 'time'], reads)}"


def size_of(folder: Path) -> int:
    """Bytes of an array's files."""
    return sum(file.stat().st_size for file in folder.iterdir())


if __name__ == "__main__":
    main()

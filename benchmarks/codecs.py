#!/usr/bin/env python
"""How small activations become on disk, and how fast they are written: codecs, precisions, checksums.

python benchmarks/codecs.py                        # activations of three models
python benchmarks/codecs.py --only small-bfloat16  # of one

Activations are the outputs of all modules, real ones: of the embedded model in float32 while it draws a picture, and of
the small UNet with random weights in bfloat16 and float16. One thread appends them to a store, some modules at a time,
as the tracer's writer does. Rates count the bytes before compression; files are not synchronised with the disk.
"""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from harness import Measured, Stopwatch, Turn, add_folder, machine, make_parser, markdown, report, take_turns, versions
from loops import small_loop
from numpy.typing import NDArray
from torch import Tensor, nn

from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.tracer.layout import Codec, dimension_names, tensor_spec
from diffusion_xray.tracer.storage.store import StoreWriter

SOURCES = ("embedded-float32", "small-bfloat16", "small-float16")
DTYPES = ("float32", "float16")
PROMPT = "a red circle left of a blue square on white"
BATCH = 16


def main() -> None:
    """Measure, print, and write the page."""
    parser = make_parser(__doc__, rounds=5)
    parser.add_argument("--steps", type=int, default=8, metavar="N", help="steps of each loop (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=SOURCES, default=SOURCES, metavar="SOURCE", help=f"of {SOURCES}")
    add_folder(parser)
    options = parser.parse_args()
    variants: dict[str, Callable[[], Turn]] = {}
    for source in options.only:
        activations = collect(source, options.steps)
        for dtype in DTYPES:
            arrays = [[tensor.to(getattr(torch, dtype)).numpy() for tensor in seen] for seen in activations]
            own = sum(tensor.nbytes for seen in activations for tensor in seen)
            for codec, summed in itertools.product(get_args(Codec), (True, False)):
                variants[f"{source} {dtype} {codec} {'crc32c' if summed else '–'}"] = functools.partial(
                    write, arrays, dtype, codec, own, options.folder, summed=summed
                )
    found = take_turns(variants, options.rounds)
    report(options, __file__, render(found, options.rounds), found)


def collect(source: str, steps: int) -> list[list[Tensor]]:
    """The outputs of all modules of a model, for each module one a call; those of a shape unlike the first left out."""
    seen: dict[str, list[Tensor]] = {}

    def hook(name: str, module: nn.Module, args: Any, output: Any) -> None:  # noqa: ARG001
        if isinstance(output, Tensor) and output.is_floating_point():
            calls = seen.setdefault(name, [])
            if not calls or calls[0].shape == output.shape:
                calls.append(output.detach().clone())

    def hooked(prefix: str, module: nn.Module) -> None:
        for name, child in module.named_modules():
            child.register_forward_hook(functools.partial(hook, f"{prefix}.{name}"))

    if source == "embedded-float32":
        pipeline = load_pipeline()
        pipeline.set_progress_bar_config(disable=True)
        for name in ("text_encoder", "unet", "vae"):
            hooked(name, getattr(pipeline, name))
        pipeline(PROMPT, num_inference_steps=steps, generator=torch.Generator().manual_seed(0), output_type="np")
    else:
        loop = small_loop(steps, dtype=getattr(torch, source.removeprefix("small-")))
        hooked("unet", loop.unet)
        loop.run()
    return list(seen.values())


def write(
    arrays: list[list[NDArray[Any]]], dtype: str, codec: Codec, own: int, folder: Path | None, *, summed: bool
) -> Turn:
    """Append the activations to a new store."""
    with tempfile.TemporaryDirectory(dir=folder) as place, closing(StoreWriter(Path(place) / "run.zarr", {})) as store:
        for index, calls in enumerate(arrays):
            dims = dimension_names(calls[0].ndim)
            spec = tensor_spec(
                f"model/{index}/output", dtype, calls[0].shape, dims, steps=len(calls), codec=codec, attributes={}
            )
            store.add_array(replace(spec, has_checksums=summed))
        with Stopwatch() as clock:
            for step in range(max(map(len, arrays))):
                chunks = [
                    (f"model/{index}/output", step, calls[step].astype(dtype, copy=False), 0)
                    for index, calls in enumerate(arrays)
                    if step < len(calls)
                ]
                for start in range(0, len(chunks), BATCH):
                    store.append_all(chunks[start : start + BATCH])
        turn = clock.turn
        stored = sum(file.stat().st_size for file in (Path(place) / "run.zarr" / "model").rglob("c.*"))
    raw = sum(array.nbytes for calls in arrays for array in calls)
    turn.facts = {"raw": raw, "stored": stored, "own": own}
    return turn


def render(found: dict[str, Measured], rounds: int) -> str:
    """The results as Markdown."""
    rows = []
    for name, measured in found.items():
        source, dtype, codec, summed = name.split()
        raw, stored, own = (measured.facts[key] for key in ("raw", "stored", "own"))
        rates = [f"{raw / 1e6 / seconds:.0f}" for seconds in (measured.wall, measured.cpu)]
        rows.append(
            [source, dtype, codec, summed, f"{raw / 1e6:.1f} MB", f"{stored / raw:.2f}", f"{stored / own:.2f}", *rates]
        )
    header = [
        "activations",
        "stored as",
        "codec",
        "checksums",
        "raw",
        "stored / raw",
        "stored / as computed",
        "MB/s",
        "MB/s of CPU",
    ]
    first = f"Median of {rounds} rounds; {machine()}, {versions('numcodecs')}."
    return f"{first}\n\n{markdown(header, rows, numbers_from=4)}"


if __name__ == "__main__":
    main()

"""``dxray demo``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from diffusion_xray.tracer.commands.protocol import print_json
from diffusion_xray.tracer.description import describe
from diffusion_xray.tracer.plugins import COMMANDS, find
from diffusion_xray.tracer.storage.library_store import local_path

__all__ = ["Demo"]

_PROMPT = "a red circle left of a blue square on white"


class Demo:
    """Trace the embedded text-to-image model and open the browser.

    The model draws one or two coloured shapes, 64x64 pixels, in a second or two. It knows these words:

      a [small|big] COLOUR SHAPE [RELATION a [small|big] COLOUR SHAPE | at the POSITION] on BACKGROUND

      COLOUR      red green blue yellow purple cyan
      SHAPE       circle square triangle star ring
      RELATION    left of, right of, above, below
      POSITION    left right top bottom center
      BACKGROUND  white black gray
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("prompt", nargs="?", default=_PROMPT, help='what to draw (default: "%(default)s")')
        parser.add_argument("--steps", type=_steps, default=25, metavar="N", help="denoising steps (%(default)s)")
        parser.add_argument("--guidance", type=float, default=3.0, metavar="G", help="guidance scale (%(default)s)")
        parser.add_argument("--seed", type=int, default=0, help="seed of the initial noise (%(default)s)")
        parser.add_argument(
            "--out", type=local_path, default=Path("demo.zarr"), help="where the trace goes (%(default)s)"
        )
        parser.add_argument(
            "--capture",
            choices=("statistics", "blocks", "attention", "all"),
            default="attention",
            help="keep statistics only; the output of every block; that and what attention is recomputed from; or that "
            "and the output of every module (%(default)s)",
        )
        parser.add_argument("--image", type=local_path, metavar="PNG", help="also save the picture")
        parser.add_argument("--no-view", action="store_true", help="print a summary instead of opening the browser")
        parser.add_argument("--json", action="store_true", help="print what the trace holds as JSON, for programs")

    def run(self, options: argparse.Namespace) -> int:
        import torch

        from diffusion_xray.tracer import Tracer

        from ..libraries import quieten
        from .load import load_pipeline
        from .tokenizer import unknown_words

        quieten()
        if unknown := unknown_words(options.prompt):
            print(f"the model has never seen {', '.join(map(repr, unknown))}; see dxray demo --help", file=sys.stderr)
        pipeline = load_pipeline()
        pipeline.set_progress_bar_config(desc="drawing", leave=False)
        generator = torch.Generator().manual_seed(options.seed)
        with Tracer(pipeline, options.out, capture=options.capture, overwrite=True) as tracer:
            result = pipeline(
                options.prompt,
                num_inference_steps=options.steps,
                guidance_scale=options.guidance,
                generator=generator,
            )
        if options.image:
            result.images[0].resize((256, 256), 0).save(options.image)
        if options.json:
            print_json(describe(tracer.trace))
            return 0
        view = find(COMMANDS).get("view")
        if view is not None and not options.no_view and sys.stdout.isatty():
            return int(view.load()().open(options.out))
        print(f"{tracer.trace}\n\nNext:\n{_next_commands(options)}")
        return 0


def _next_commands(options: argparse.Namespace) -> str:
    """What to look at now, in two columns."""
    from .world import SHAPES

    listed = {f"view {options.out}": "browse it", f"stats {options.out} --sort abs_max": "largest values first"}
    if options.capture in ("attention", "all"):
        shape = next((f" --word {word}" for word in options.prompt.lower().split() if word in SHAPES), "")
        listed[f"attention {options.out}{shape}"] = "where the picture looks at a word"
    listed[f"ls {options.out} 'unet.**.attn2'"] = "what was seen of the cross-attention"
    width = max(map(len, listed))
    return "\n".join(f"  dxray {command:{width}}   {purpose}" for command, purpose in listed.items())


def _steps(text: str) -> int:
    """A number of denoising steps that the schedule of 1000 timesteps allows."""
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 1000")
    return int(text)

"""``dxray demo``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from diffusion_xray.tracer.plugins import COMMANDS, find

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
        parser.add_argument("--steps", type=int, default=25, metavar="N", help="denoising steps (%(default)s)")
        parser.add_argument("--guidance", type=float, default=3.0, metavar="G", help="guidance scale (%(default)s)")
        parser.add_argument("--seed", type=int, default=0, help="seed of the initial noise (%(default)s)")
        parser.add_argument("--out", type=Path, default=Path("demo.zarr"), help="where the trace goes (%(default)s)")
        parser.add_argument(
            "--capture",
            choices=("statistics", "blocks", "all"),
            default="blocks",
            help="keep statistics only, the output of every block, or of every module (%(default)s)",
        )
        parser.add_argument("--image", type=Path, metavar="PNG", help="also save the picture")
        parser.add_argument("--no-view", action="store_true", help="print a summary instead of opening the browser")

    def run(self, options: argparse.Namespace) -> int:
        import torch

        from diffusion_xray.tracer import Tracer

        from .load import load_pipeline

        pipeline = load_pipeline()
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
        view = find(COMMANDS).get("view")
        if view is not None and not options.no_view and sys.stdout.isatty():
            return int(view.load()().open(options.out))
        print(tracer.trace)
        print(
            f"\nNext:\n"
            f"  dxray view {options.out}                     browse it\n"
            f"  dxray stats {options.out} --sort abs_max     largest values first\n"
            f"  dxray ls {options.out} 'unet.**.attn2'       what was seen of the cross-attention"
        )
        return 0

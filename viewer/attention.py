"""``dxray attention``."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffusion_xray.tracer.commands.protocol import add_trace_argument, print_json
from diffusion_xray.tracer.errors import SiteNotFoundError, StoreError
from diffusion_xray.tracer.info import printable
from diffusion_xray.tracer.storage.library_store import local_path
from diffusion_xray.tracer.trace import open_trace

from .attention_request import AttentionRequest, Drawing
from .terminal import print_picture

__all__ = ["Attention"]


class Attention:
    """Show where the image looks at a word of its prompt.

    Without --word it lists the words with the share of attention each receives, and the modules that attend. With it,
    the map of the word over the picture: averaged over layers, heads and steps, or those chosen. Queries and keys must
    have been recorded, as Tracer(..., capture="attention") does.

      dxray attention run.zarr                                       which words there are, and what they weigh
      dxray attention run.zarr --word circle                         over all steps
      dxray attention run.zarr --word "red circle" --step 10         a phrase at one step, counted from 0
      dxray attention run.zarr --word circle --layer "unet.up_blocks.**" --head 3
      dxray attention run.zarr --word circle --out circle.png        the same as a picture
      dxray attention run.zarr --grid words --out words.png          every word at steps from first to last
      dxray attention run.zarr --grid words --word red --word circle these words only
      dxray attention run.zarr --grid heads --word circle --out heads.png   every layer and head
      dxray attention run.zarr --branch unconditional                what the negative prompt weighs
      dxray attention run.zarr --json                                shares per word, step and layer, for programs

    Shares are parts of an image position's attention: over the tokens of the text they sum to 1.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        """Add the trace, what to look at, and where to draw."""
        add_trace_argument(parser)
        parser.add_argument(
            "--word",
            metavar="WORD",
            action="append",
            help="a word or phrase of the prompt, whatever its letter case; several times with --grid words or --json",
        )
        parser.add_argument("--step", type=int, metavar="N", help="one step only, from 0; negative from the end")
        parser.add_argument("--layer", metavar="GLOB", help='modules by path, such as "unet.mid_block.**"')
        parser.add_argument("--head", type=int, metavar="N", help="one head only")
        parser.add_argument(
            "--branch", metavar="NAME", default="conditional", help="guidance branch: %(default)s, or unconditional"
        )
        parser.add_argument("--image", type=int, metavar="N", default=0, help="which image of a batch (%(default)s)")
        parser.add_argument(
            "--occurrence", type=int, metavar="N", help="which of several places of the word, from 0; all by default"
        )
        parser.add_argument(
            "--grid", choices=("words", "heads"), help="a table: words by steps, or layers by heads of one word"
        )
        parser.add_argument("--out", type=local_path, metavar="PNG", help="write the picture to a file")

    def run(self, options: argparse.Namespace) -> int:
        """Print lists, draw, or both."""
        trace = open_trace(options.trace)
        asked = AttentionRequest(trace, options)
        try:
            self._answer(asked, options)
        except SiteNotFoundError as error:
            hint = asked.elsewhere()
            stop = "" if not hint or str(error).endswith((".", "?")) else "."
            raise SiteNotFoundError(f"{error}{stop}{hint}") from error
        return 0

    def _answer(self, asked: AttentionRequest, options: argparse.Namespace) -> None:
        if options.json:
            print_json(asked.facts())
        elif options.grid:
            _show(asked.grid(), options.out)
        elif options.word:
            _show(asked.map(), options.out)
        elif options.out:
            raise SiteNotFoundError("--out draws a word or a grid: add --word WORD, or --grid words")
        else:
            asked.print_overview()


def _show(drawing: Drawing, out: Path | None) -> None:
    """Draw in the terminal, and write the picture where asked."""
    if out is not None:
        try:
            drawing.plate.save(out)
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot write {out}: {error}") from error
    for label, small in drawing.pictures:
        if label:
            print(printable(label))
        print_picture(small, rows=8 if label else None)
    for line in drawing.caption.splitlines():
        print(printable(line))
    if out is not None:
        print(printable(f"written to {out}"))

"""``dxray view``."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from diffusion_xray.tracer.commands.protocol import print_table
from diffusion_xray.tracer.errors import DxrayError, TraceNotFoundError
from diffusion_xray.tracer.trace import open_trace

__all__ = ["TerminalError", "View"]


class TerminalError(DxrayError, RuntimeError):
    """The browser has no terminal to draw on."""


class View:
    """Browse a trace in the terminal.

    Left the layers in call order, each with a line of its statistic over the steps and a mark where values stop being
    finite; in the middle what is known of the chosen layer; below the denoising loop to scrub in. A trace that is
    still being written is followed. Press ? for the keys and q to leave.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        """Add the trace, and where to open it."""
        parser.add_argument(
            "trace",
            metavar="TRACE",
            nargs="?",
            help="the trace: a folder such as run.zarr, a zip file, or a URL; without it, the traces below are listed",
        )
        parser.add_argument(
            "--layer",
            metavar="GLOB",
            default="",
            help='open at a layer: its path, or a pattern such as "unet.**.attn2", of which the first match is taken',
        )
        parser.add_argument("--step", type=int, metavar="N", help="open at a step, from 0; negative from the end")
        parser.add_argument(
            "--tab", metavar="NAME", default="overview", help="open in a view: overview, stats, hist or image"
        )

    def run(self, options: argparse.Namespace) -> int:
        """Browse until the user leaves, or list what there is to browse."""
        if options.trace is None:
            return _list_traces()
        return self.open(options.trace, layer=options.layer, step=options.step, tab=options.tab)

    def open(self, path: str | Path, *, layer: str = "", step: int | None = None, tab: str = "overview") -> int:
        """Browse the trace at `path` until the user leaves; the result is the exit code.

        Args:
            path: Folder of the trace.
            layer: Where to open: the path of a module, or a glob.
            step: Step to open at, negative from the end; None for the first fault, or the last step.
            tab: View to open: "overview", "stats", "hist" or "image".

        Raises:
            DxrayError: There is no such trace, layer, step or view, or no terminal to draw on.
        """
        from .loader import Loader
        from .opening import find_opening

        loader = Loader(open_trace(path))
        snapshot = loader.snapshot()
        opening = find_opening(snapshot, layer=layer, step=step, tab=tab)
        _check_terminal(path)

        from .app import Browser

        browser = Browser(loader, opening, snapshot=snapshot)
        browser.run()
        return browser.return_code or 0


def _list_traces() -> int:
    """Print the traces below the current folder."""
    from .found import find_traces

    found = list(find_traces(Path()))
    if not found:
        raise TraceNotFoundError("which trace? There is none below this folder; dxray demo makes one")
    rows = [
        (str(trace.path), trace.pipeline, str(trace.steps), trace.size, f"✗ {trace.fault}" if trace.fault else "")
        if not trace.problem
        else (str(trace.path), "not readable", "–", "–", trace.problem)
        for trace in found
    ]
    print_table(("trace", "pipeline", "steps", "size", ""), rows, left=2)
    name = shlex.quote(str(found[0].path)) if str(found[0].path).isprintable() else "TRACE"
    print(f"\nNext: dxray view {name}")
    return 0


def _check_terminal(path: str | Path) -> None:
    """Textual reads keys from stdin and draws on stderr; stdout may well be a pipe. In a web page all three are."""
    if os.environ.get("TEXTUAL_DRIVER"):
        return
    for stream, name in ((sys.__stdin__, "input"), (sys.__stderr__, "error output")):
        if stream is None or not stream.isatty():
            raise TerminalError(
                f"the browser needs a terminal, and the standard {name} is none; for text use: dxray info {path}"
            )

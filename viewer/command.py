"""``dxray view``."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from diffusion_xray.tracer.commands.protocol import print_table
from diffusion_xray.tracer.commands.renaming import Renaming, add_renaming
from diffusion_xray.tracer.comparison.divergence import Comparison
from diffusion_xray.tracer.comparison.uncompared import names_without_effect
from diffusion_xray.tracer.errors import ComparisonError, DxrayError, TraceNotFoundError
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
            "--tab", metavar="NAME", default="", help="open in a view: overview, stats, hist, image, attention, …"
        )
        parser.add_argument("--token", metavar="WORD", default="", help="open the attention of a word of the prompt")
        parser.add_argument("--head", type=int, metavar="N", help="open the attention of one head")

        parser.add_argument(
            "--compare",
            metavar="TRACE",
            help="compare with another trace: where, layer by layer and step by step, its tensors differ",
        )
        add_renaming(parser, when="with --compare: ")

    def run(self, options: argparse.Namespace) -> int:
        """Browse until the user leaves, or list what there is to browse."""
        _check_companions(options)
        if options.trace is None:
            return _list_traces()
        if options.compare is not None:
            renaming = Renaming.of(options)
            return self.compare(
                options.trace, options.compare, renaming=renaming, layer=options.layer, step=options.step
            )
        return self.open(
            options.trace,
            layer=options.layer,
            step=options.step,
            tab=options.tab,
            token=options.token,
            head=options.head,
        )

    def compare(
        self,
        a: str | Path,
        b: str | Path,
        *,
        renaming: Renaming | None = None,
        layer: str = "",
        step: int | None = None,
    ) -> int:
        """Compare two traces until the user leaves; the result is the exit code.

        Args:
            a: The trace that counts: distances are in units of its tensors.
            b: The other one.
            renaming: What modules of `a` are called in `b`.
            layer: Module to begin at: a path, or a glob, of which the first match is taken. By default the first that
                differs.
            step: Step of `a` to begin at, negative from the end.

        Raises:
            DxrayError: There is no such trace, layer or step, or no terminal to draw on.
        """
        from .compare.opening import open_comparison

        names = None if renaming is None else renaming.names
        opening = open_comparison(open_trace(a), open_trace(b), names=names, layer=layer, step=step)
        if renaming is not None:
            _check_names(renaming, opening.comparison)
        _check_terminal(a)

        from .compare.app import CompareApp
        from .compare.screen import CompareScreen
        from .settings import load_settings

        app = CompareApp(CompareScreen(opening), settings=load_settings())
        app.run()
        return app.return_code or 0

    def open(
        self,
        path: str | Path,
        *,
        layer: str = "",
        step: int | None = None,
        tab: str = "",
        token: str = "",
        head: int | None = None,
    ) -> int:
        """Browse the trace at `path` until the user leaves; the result is the exit code.

        Args:
            path: Folder of the trace.
            layer: Where to open: the path of a module, or a glob.
            step: Step to open at, negative from the end; None for the first fault, or the last step.
            tab: Id of the view to open: "overview", "stats", "hist", "image", "attention", or that of a plug-in.
                "" for the overview, or the attention where a word or a head is given.
            token: Word or phrase of the prompt whose attention is shown.
            head: Head whose attention is shown.

        Raises:
            DxrayError: There is no such trace, layer, step, view, word or head, or no terminal to draw on.
        """
        from .loader import Loader
        from .opening import find_opening
        from .views.registry import load_views

        loader, views = Loader(open_trace(path)), load_views()
        snapshot = loader.snapshot()
        looked_at = token or head is not None
        opening = find_opening(
            snapshot, layer=layer, step=step, tab=tab or ("attention" if looked_at else "overview"), tabs=views
        )
        if looked_at:
            from .views.attention_opening import with_attention

            opening = with_attention(loader.trace, opening, token=token, head=head)
        _check_terminal(path)

        from .app import Browser
        from .pins import Pins
        from .settings import load_settings

        pins, settings = Pins.of(loader.trace.path), load_settings()
        browser = Browser(loader, opening, snapshot=snapshot, views=views, pins=pins, settings=settings)
        browser.run()
        return browser.return_code or 0


def _check_companions(options: argparse.Namespace) -> None:
    """Refuse what would mean nothing beside the other options, and so be passed over in silence."""
    if options.compare is None:
        for name, given in (("--rename", options.rename), ("--map", options.map)):
            if given:
                shown = repr(given[0]) if isinstance(given, list) else given
                raise ComparisonError(f"{name} {shown} needs a trace to compare with: add --compare TRACE")
        return
    if options.trace is None:
        raise ComparisonError(f"which trace? --compare {options.compare} names the second of two")
    for name, given in (("--tab", options.tab), ("--token", options.token), ("--head", options.head)):
        if given not in ("", None):
            raise ComparisonError(
                f"{name} {given} opens a view of one trace, of which a comparison has none; leave it out"
            )


def _check_names(renaming: Renaming, comparison: Comparison) -> None:
    """Refuse a name that brings nothing together, as `dxray diff` does."""
    wrong, insisted = renaming.misfits(comparison.table.pairing)
    if insisted:
        raise ComparisonError(names_without_effect(wrong))


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

"""Draw the browser into a picture, without a terminal.

python -m diffusion_xray.viewer.screenshot TRACE OUT.svg [--layer GLOB] [--step N] [--tab NAME] [--size 120x40]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from diffusion_xray.tracer.errors import DxrayError
from diffusion_xray.tracer.info import printable
from diffusion_xray.tracer.trace import open_trace

from .app import Browser
from .loader import Loader
from .opening import find_opening
from .views.registry import load_views

__all__ = ["take_screenshot"]


def take_screenshot(
    trace: str | Path,
    *,
    layer: str = "",
    step: int | None = None,
    tab: str = "overview",
    size: tuple[int, int] = (120, 40),
    keys: Sequence[str] = (),
) -> str:
    """The browser on `trace` as an SVG document.

    Args:
        trace: Folder of the trace.
        layer: Where to open, as in `View.open`.
        step: Likewise.
        tab: Likewise.
        size: Columns and rows.
        keys: Keys to press before the picture is taken, by Textual's names.

    Raises:
        DxrayError: There is no such trace, layer, step or view.
    """
    loader, views = Loader(open_trace(trace)), load_views()
    snapshot = loader.snapshot()
    opening = find_opening(snapshot, layer=layer, step=step, tab=tab, tabs=views)
    return asyncio.run(_draw(Browser(loader, opening, snapshot=snapshot, views=views, shade=False), size, keys))


async def _draw(browser: Browser, size: tuple[int, int], keys: Sequence[str]) -> str:
    async with browser.run_test(size=size) as pilot:
        await pilot.pause()
        for key in keys:
            await pilot.press(key)
        await pilot.pause(0.2)  # the loader waits a moment for the next key
        await browser.workers.wait_for_complete()
        await pilot.pause()
        return browser.export_screenshot()


def _main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m diffusion_xray.viewer.screenshot", description=__doc__)
    parser.add_argument("trace", metavar="TRACE")
    parser.add_argument("out", metavar="OUT.svg", type=Path)
    parser.add_argument("--layer", metavar="GLOB", default="")
    parser.add_argument("--step", metavar="N", type=int)
    parser.add_argument("--tab", metavar="NAME", default="overview")
    parser.add_argument("--size", metavar="COLUMNSxROWS", default="120x40", type=_size)
    parser.add_argument("--keys", metavar="KEY", nargs="*", default=(), help="keys to press first, such as m or space")
    options = parser.parse_args(argv)
    try:
        svg = take_screenshot(
            options.trace,
            layer=options.layer,
            step=options.step,
            tab=options.tab,
            size=options.size,
            keys=options.keys,
        )
    except DxrayError as error:
        print(f"dxray: {printable(error)}", file=sys.stderr)
        return 2
    options.out.write_text(svg, encoding="utf-8")
    return 0


def _size(text: str) -> tuple[int, int]:
    columns, _, rows = text.partition("x")
    return int(columns), int(rows)


if __name__ == "__main__":
    sys.exit(_main())

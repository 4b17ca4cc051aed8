"""Draw the browser into a picture, without a terminal.

python -m diffusion_xray.viewer.screenshot TRACE OUT.svg [--layer GLOB] [--step N] [--tab NAME] [--compare TRACE]
    [--size 120x40] [--theme NAME] [--keys KEY ...]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from textual.app import App
from textual.pilot import Pilot
from textual.theme import BUILTIN_THEMES

from diffusion_xray.tracer.errors import DxrayError
from diffusion_xray.tracer.info import printable
from diffusion_xray.tracer.trace import open_trace

from .app import Browser
from .compare.app import CompareApp
from .compare.opening import open_comparison
from .compare.screen import CompareScreen
from .loader import Loader
from .opening import find_opening
from .settings import Settings
from .views.registry import load_views

__all__ = ["take_screenshot"]

_PLAIN: Final = "textual-dark"


def take_screenshot(
    trace: str | Path,
    *,
    layer: str = "",
    step: int | None = None,
    tab: str = "overview",
    compare: str | Path | None = None,
    size: tuple[int, int] = (120, 40),
    theme: str = _PLAIN,
    keys: Sequence[str] = (),
) -> str:
    """The browser on `trace` as an SVG document.

    Args:
        trace: Folder of the trace.
        layer: Where to open, as in `View.open`.
        step: Likewise.
        tab: Likewise.
        compare: Another trace, to draw the comparison instead.
        size: Columns and rows.
        theme: Name of a theme. Settings and environment of whoever draws choose none.
        keys: Keys to press before the picture is taken, by Textual's names.

    Raises:
        DxrayError: There is no such trace, layer, step, view or theme.
    """
    if theme not in BUILTIN_THEMES:
        raise DxrayError(f"no theme {theme!r}; there are {', '.join(sorted(BUILTIN_THEMES))}")
    settings = Settings(theme=theme)
    if compare is not None:
        beside = open_comparison(open_trace(trace), open_trace(compare), layer=layer, step=step)
        return asyncio.run(_draw(CompareApp(CompareScreen(beside), shade=False, settings=settings), size, keys))
    loader, views = Loader(open_trace(trace)), load_views()
    snapshot = loader.snapshot()
    opening = find_opening(snapshot, layer=layer, step=step, tab=tab, tabs=views)
    browser = Browser(loader, opening, snapshot=snapshot, views=views, shade=False, settings=settings)
    return asyncio.run(_draw(browser, size, keys))


async def _draw(app: App[None], size: tuple[int, int], keys: Sequence[str]) -> str:
    async with app.run_test(size=size) as pilot:
        await _settle(app, pilot)
        for key in keys:
            await pilot.press(key)
            await _settle(app, pilot)
        return app.export_screenshot()


async def _settle(app: App[None], pilot: Pilot[None]) -> None:
    """Wait until all that was asked for has been read and drawn; what was read may ask for more."""
    for _ in range(2):
        await pilot.pause(0.2)  # a reader waits a moment for the next key
        await app.workers.wait_for_complete()
        await pilot.pause()


def _main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m diffusion_xray.viewer.screenshot", description=__doc__)
    parser.add_argument("trace", metavar="TRACE")
    parser.add_argument("out", metavar="OUT.svg", type=Path)
    parser.add_argument("--layer", metavar="GLOB", default="")
    parser.add_argument("--step", metavar="N", type=int)
    parser.add_argument("--tab", metavar="NAME", default="overview")
    parser.add_argument("--compare", metavar="TRACE", help="draw the comparison with another trace")
    parser.add_argument("--size", metavar="COLUMNSxROWS", default="120x40", type=_size)
    parser.add_argument("--theme", metavar="NAME", default=_PLAIN, help="its colours (%(default)s)")
    parser.add_argument("--keys", metavar="KEY", nargs="*", default=(), help="keys to press first, such as m or space")
    options = parser.parse_args(argv)
    try:
        svg = take_screenshot(
            options.trace,
            layer=options.layer,
            step=options.step,
            tab=options.tab,
            compare=options.compare,
            size=options.size,
            theme=options.theme,
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

"""What the export menu is handed, for the tests of what is exported."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from textual.pilot import Pilot

from diffusion_xray.viewer.app import Browser
from diffusion_xray.viewer.export.selection import Selection
from diffusion_xray.viewer.screens.export import ExportMenu


async def exported(app: Browser, keys: tuple[str, ...], settle: Callable[[Pilot[None]], Awaitable[None]]) -> Selection:
    """What the menu is handed after some keys, each followed by `settle`."""
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        for key in keys:
            await pilot.press(key)
            await settle(pilot)
        await pilot.press("e")
        menu = pilot.app.screen
        assert isinstance(menu, ExportMenu)
        return menu._selection

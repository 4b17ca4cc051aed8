"""Views of other packages: the example of the documentation, and broken ones."""

import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot

from diffusion_xray.tracer.plugins import PLUGINS
from diffusion_xray.viewer.app import Browser
from diffusion_xray.viewer.screens.main import MainScreen
from diffusion_xray.viewer.views.registry import BUILT_IN, load_views
from diffusion_xray.viewer.widgets.canvas import Canvas

Make = Callable[..., Browser]
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "view_plugin"

BROKEN = '''
"""Views that fail, each in a way of its own."""

from textual.binding import Binding

from diffusion_xray.viewer.views import View
from diffusion_xray.viewer.widgets.canvas import Canvas


class Painter(Canvas):
    def paint(self, width, height):
        raise ValueError("no [red]paint[/red] \\x1b[31mleft")

    def action_kick(self):
        raise RuntimeError("kicked")


def no_widget():
    raise OSError("no widget")


def no_read(reader, request):
    raise KeyError("no read")


def no_missing(scene):
    raise IndexError("no judgement")


PAINTS = View("paints", "Paints", "Fails to paint", Painter, keys=(Binding("x", "kick", "Kick", id="paints.kick"),))
OPENS = View("opens", "Opens", "Fails to open", no_widget)
READS = View("reads", "Reads", "Fails to read", lambda: Canvas(), read=no_read)
JUDGES = View("judges", "Judges", "Fails to judge", Painter, missing=no_missing)
TAKEN = View("stats", "Stats", "Takes another's id", Painter)
NUMBER = 7
'''


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, str], None]]:
    """Put a module and its entry points where packages are found."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delenv(PLUGINS)
    names = []

    def put(name: str, code: str, entry_points: str) -> None:
        names.append(name)
        (folder / f"{name}.py").write_text(code)
        info = folder / f"{name}-0.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
        (info / "entry_points.txt").write_text(f"[diffusion_xray.views]\n{entry_points}")

    yield put
    for name in names:
        sys.modules.pop(name, None)


async def settle(pilot: Pilot[None]) -> None:
    """Wait until what was asked for has been read and drawn."""
    await pilot.pause(0.1)
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()


def text(pilot: Pilot[None], selector: str) -> str:
    """The characters of a widget."""
    canvas = pilot.app.screen.query_one(selector, Canvas)
    return "\n".join(canvas.render_line(y).text for y in range(canvas.size.height))


def told(pilot: Pilot[None]) -> list[str]:
    """Titles and texts of the toasts."""
    return [f"{note.title}: {note.message}" for note in pilot.app._notifications]


async def test_example(browser: Make, install: Callable[[str, str, str], None]) -> None:
    """The example of the documentation has a tab, reads, draws, and its key works while it is shown and no longer."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    ((name, target),) = project["entry-points"]["diffusion_xray.views"].items()
    install("dead_channels", (EXAMPLE / "dead_channels.py").read_text(), f"{name} = {target}\n")
    async with browser("normal", layer="unet.conv_in", tab="channels").run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert "Channels" in text(pilot, "TabBar")
        lines = text(pilot, "#channels").splitlines()[:4]
        spreads = [float(line.split()[2]) for line in lines]
        assert spreads == sorted(spreads) and spreads[0] < spreads[-1]
        await pilot.press("r")
        assert text(pilot, "#channels").splitlines()[:4] == lines[::-1]
        screen = pilot.app.screen
        assert isinstance(screen, MainScreen)
        assert "channels.turn" in {binding.binding.id for binding in screen.active_bindings.values()}
        await pilot.press("1")
        await settle(pilot)
        assert "channels.turn" not in {binding.binding.id for binding in screen.active_bindings.values()}
        await pilot.press(screen.views["channels"].key)
        assert screen.scene.view.id == "channels"


async def test_example_without_tensors(browser: Make, install: Callable[[str, str, str], None]) -> None:
    """Where the example lacks the tensor, the line of code that keeps it is shown."""
    install("dead_channels", (EXAMPLE / "dead_channels.py").read_text(), "channels = dead_channels:VIEW\n")
    async with browser("statistics", layer="unet.conv_in", tab="channels").run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert "capture=Capture(modules='unet.conv_in')" in text(pilot, "#missing")


def test_what_does_not_load(install: Callable[[str, str, str], None]) -> None:
    """What cannot be imported, is no view or takes another's id is noted by name; the rest is there."""
    entries = ["absent = not_there:VIEW", "number = broken:NUMBER", "taken = broken:TAKEN", "good = broken:PAINTS"]
    install("broken", BROKEN, "\n".join(entries))
    views = load_views()
    assert set(views.failed) == {"absent", "number", "taken"}
    assert list(views) == [*(view.id for view in BUILT_IN), "paints"]
    assert views["stats"] in BUILT_IN


async def test_broken_views_are_named(browser: Make, install: Callable[[str, str, str], None]) -> None:
    """A view that fails while it loads, opens, reads, judges or paints is told of by name; the browser goes on."""
    entries = [f"{name.lower()} = broken:{name}" for name in ("PAINTS", "OPENS", "READS", "JUDGES", "ABSENT")]
    install("broken", BROKEN, "\n".join(entries))
    async with browser("normal").run_test(size=(120, 40), notifications=True) as pilot:
        await settle(pilot)
        assert any("'absent' does not load" in note for note in told(pilot))
        screen = pilot.app.screen
        assert isinstance(screen, MainScreen)
        await screen.action_tab("paints")
        await settle(pilot)
        assert "This view failed: ValueError: no [red]paint[/red] \\x1b[31mleft" in text(pilot, "#paints")
        await pilot.press("x")
        assert any("RuntimeError: kicked" in note for note in told(pilot))
        await screen.action_tab("opens")
        assert screen.scene.view.id == "paints"
        await pilot.pause()
        assert any("OSError: no widget" in note for note in told(pilot))
        await screen.action_tab("judges")
        await pilot.pause()
        assert "IndexError: no judgement" in text(pilot, "#missing")
        await screen.action_tab("reads")
        await settle(pilot)
        assert any("KeyError: 'no read'" in note for note in told(pilot))
        await pilot.press("2")
        await settle(pilot)
        assert "std" in text(pilot, "#stats")


async def test_a_broken_view_to_open_at(browser: Make, install: Callable[[str, str, str], None]) -> None:
    """Where the view asked for cannot be opened, the first one is."""
    install("broken", BROKEN, "opens = broken:OPENS\n")
    async with browser("normal", tab="opens").run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert "mean" in text(pilot, "#overview")

"""What the user has set for every trace."""

from collections.abc import Callable
from pathlib import Path

import pytest

from diffusion_xray.tracer import open_trace
from diffusion_xray.viewer.app import Browser
from diffusion_xray.viewer.compare.app import CompareApp
from diffusion_xray.viewer.compare.opening import open_comparison
from diffusion_xray.viewer.compare.screen import CompareScreen
from diffusion_xray.viewer.loader import Loader
from diffusion_xray.viewer.opening import find_opening
from diffusion_xray.viewer.screens.help import KeyHelp
from diffusion_xray.viewer.screens.main import MainScreen
from diffusion_xray.viewer.settings import Settings, load_settings
from diffusion_xray.viewer.views.image import ImageWish
from diffusion_xray.viewer.widgets.canvas import Canvas

from .waiting import until

Configured = Callable[[Settings], Browser]
SIZE = (120, 40)


@pytest.fixture
def configured(traces: dict[str, Path]) -> Configured:
    """Open a trace with settings."""

    def make(settings: Settings) -> Browser:
        loader = Loader(open_trace(traces["normal"]))
        return Browser(loader, find_opening(loader.snapshot(), layer="unet.conv_in"), settings=settings, shade=False)

    return make


async def test_keys_move(configured: Configured) -> None:
    """A key of the screen, of a list and of a view each act where they were moved to, and not where they were."""
    moved = {"step.back": "f5", "tree.down": "f6", "image.mosaic": "f7,f8", "tab.image": "f9"}
    async with configured(Settings(moved)).run_test(size=SIZE) as pilot:
        await pilot.press("f5", "f6", "f9")
        screen = pilot.app.screen
        assert isinstance(screen, MainScreen)
        assert screen.scene.site is not None
        assert (screen.scene.step, screen.scene.site.name) == (4, "unet.down_blocks.0")
        assert screen.scene.view.id == "image"
        await pilot.press("f8")
        assert screen.scene.wish == ImageWish(mosaic=True)
        await pilot.press("left_square_bracket", "j", "z")
        assert (screen.scene.step, screen.scene.wish) == (4, ImageWish(mosaic=True))
        assert "[ ]" not in screen.query_one("#footer", Canvas).render_line(0).text
        await pilot.press("question_mark")
        assert isinstance(pilot.app.screen, KeyHelp)
        told = [segment.text for strip in pilot.app.screen._compositor.render_strips() for segment in strip]
        assert any(text.strip() == "f5" for text in told)


async def test_keys_of_the_comparison_move(parted: dict[str, Path]) -> None:
    """So do those of the comparison."""
    opening = open_comparison(open_trace(parted["normal"]), open_trace(parted["late"]))
    app = CompareApp(CompareScreen(opening), shade=False, settings=Settings({"compare.step_on": "f5"}))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause(0.2)
        screen = pilot.app.screen
        assert isinstance(screen, CompareScreen)
        before = screen.state.link
        await pilot.press("f5")
        assert screen.state.link == before + 1


async def test_theme(configured: Configured) -> None:
    """The theme is the one that is set."""
    async with configured(Settings(theme="textual-light")).run_test(size=SIZE) as pilot:
        assert pilot.app.theme == "textual-light"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (Settings({"step.bakc": "f5"}), "step.bakc"),
        (Settings(theme="mauve[/]"), "mauve[/]"),
        (Settings(problem="config.toml: no"), "config.toml: no"),
    ],
)
async def test_what_is_not_understood_is_told(configured: Configured, settings: Settings, told: str) -> None:
    """A setting that means nothing is named, and the browser opens all the same."""
    async with configured(settings).run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, lambda: told in str([note.message for note in pilot.app._notifications]))


def test_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings come from the folder of the XDG specification; without a file there are none."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert load_settings() == Settings()
    (tmp_path / "dxray").mkdir()
    (tmp_path / "dxray" / "config.toml").write_text('theme = "nord"\n[keys]\n"step.on" = "ctrl+right"\n')
    assert load_settings() == Settings({"step.on": "ctrl+right"}, "nord")


@pytest.mark.parametrize("text", ["[keys", "keys = 3", "[keys]\na = 3", "theme = 3", "colour = 3", "\xff"])
def test_a_file_that_is_wrong(tmp_path: Path, text: str) -> None:
    """What is wrong with the file is told in one line that names it."""
    file = tmp_path / "config.toml"
    file.write_bytes(text.encode("latin-1"))
    problem = load_settings(file).problem
    assert problem.startswith(str(file)) and "\n" not in problem

"""Pinned layers, kept from one session to the next."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from diffusion_xray.tracer import open_trace
from diffusion_xray.viewer.app import Browser
from diffusion_xray.viewer.loader import Loader
from diffusion_xray.viewer.opening import find_opening
from diffusion_xray.viewer.pins import Pins
from diffusion_xray.viewer.widgets.canvas import Canvas
from diffusion_xray.viewer.widgets.layer_tree import LayerTree

SIZE = (120, 40)


@pytest.fixture
def reopened(traces: dict[str, Path], tmp_path: Path) -> Callable[[], Browser]:
    """Open the same trace as in another session."""

    def make() -> Browser:
        loader = Loader(open_trace(traces["normal"]))
        opening = find_opening(loader.snapshot(), layer="unet.conv_in")
        return Browser(loader, opening, pins=Pins(tmp_path / "state" / "pins.json", "normal.zarr"), shade=False)

    return make


async def test_pins_outlive_the_session(reopened: Callable[[], Browser]) -> None:
    """A layer that was pinned is pinned when the trace is opened again, until it is let go."""
    async with reopened().run_test(size=SIZE) as pilot:
        await pilot.press("asterisk", "down", "asterisk")
    async with reopened().run_test(size=SIZE) as pilot:
        await pilot.pause()
        assert pilot.app.screen.query_one(LayerTree).pins == {"unet.conv_in", "unet.down_blocks.0"}
        await pilot.press("P")
        tree = pilot.app.screen.query_one("#tree", Canvas)
        assert tree.render_line(0).text.startswith("* unet.conv_in")
        await pilot.press("asterisk")
    async with reopened().run_test(size=SIZE) as pilot:
        await pilot.pause()
        assert pilot.app.screen.query_one(LayerTree).pins == {"unet.down_blocks.0"}


async def test_pins_that_cannot_be_kept(reopened: Callable[[], Browser], tmp_path: Path) -> None:
    """Where the folder cannot be written to, the pin holds for this session, and why no longer is told."""
    (tmp_path / "state").write_text("a file where a folder should be")
    async with reopened().run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("asterisk")
        assert pilot.app.screen.query_one(LayerTree).pins == {"unet.conv_in"}
        assert [note.title for note in pilot.app._notifications] == ["Pins are not kept"]


def test_each_trace_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pins lie in the state folder, in a file for the full path of the trace; without any there is no file."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    one, other = Pins.of(Path("one.zarr")), Pins.of(Path("other.zarr"))
    assert one.write({"unet.b", "unet.a"}) == ""
    assert (one.read(), other.read()) == ({"unet.a", "unet.b"}, set())
    assert Pins.of(tmp_path / "one.zarr").read() == one.read()
    (kept,) = (tmp_path / "dxray" / "pins").iterdir()
    assert json.loads(kept.read_text()) == {"trace": str(tmp_path / "one.zarr"), "layers": ["unet.a", "unet.b"]}
    assert one.write(set()) == "" and not kept.exists()


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"layers": 3}', "\x00" * 3 * 2**20, '{"layers": [1, "unet"]}'])
def test_a_damaged_file_holds_nothing(tmp_path: Path, text: str) -> None:
    """What is no list of names is taken for none."""
    file = tmp_path / "pins.json"
    file.write_text(text)
    assert Pins(file).read() == ({"unet"} if "unet" in text else set())

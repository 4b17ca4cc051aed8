"""The comparison, driven by keys and the mouse."""

from __future__ import annotations

import io
import itertools
import math
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from textual.pilot import Pilot

from diffusion_xray.tracer import Capture, Tracer, open_trace
from diffusion_xray.tracer.cli import main
from diffusion_xray.tracer.comparison.divergence import Comparison, Evidence
from diffusion_xray.tracer.errors import SiteNotFoundError
from diffusion_xray.tracer.moments import Moments
from diffusion_xray.viewer.app import Browser
from diffusion_xray.viewer.command import TerminalError, View
from diffusion_xray.viewer.compare.app import CompareApp
from diffusion_xray.viewer.compare.canvas import PairCanvas
from diffusion_xray.viewer.compare.keys import KEYS
from diffusion_xray.viewer.compare.opening import open_comparison
from diffusion_xray.viewer.compare.panes import Pane
from diffusion_xray.viewer.compare.screen import CompareScreen
from diffusion_xray.viewer.compare.state import MODES, SORTS, TOLERANCES, Comparing
from diffusion_xray.viewer.compare.strip import DivergenceStrip
from diffusion_xray.viewer.compare.table import DivergenceTable
from diffusion_xray.viewer.screens.help import KeyHelp
from diffusion_xray.viewer.widgets.key_line import KeyLine

from ..families import FAMILIES, run
from ..parting import STEPS, record

SIZE = (120, 40)
Compare = Callable[..., CompareApp]


async def settle(pilot: Pilot[None]) -> None:
    """Wait until what was asked for has been read and drawn."""
    await pilot.pause(0.1)
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()
    await pilot.pause(0.1)
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()


def state(pilot: Pilot[None]) -> Comparing:
    """What the comparison shows."""
    screen = pilot.app.screen
    assert isinstance(screen, CompareScreen)
    return screen.state


def layer(pilot: Pilot[None]) -> str:
    """The name of the layer shown."""
    pair = state(pilot).pair
    return pair.a.name if pair else ""


def text(pilot: Pilot[None], selector: str) -> str:
    """The characters of a widget."""
    canvas = pilot.app.screen.query_one(selector, PairCanvas)
    return "\n".join(canvas.render_line(y).text for y in range(canvas.size.height))


async def test_it_opens_where_the_runs_part(compared: Compare) -> None:
    """Without a key, the first layer and step over the tolerance are on show, with A, B and their difference."""
    async with compared("normal", "late").run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert (layer(pilot), state(pilot).link) == ("unet.blocks.1.conv", 2)
        assert "first over: step 2 unet.blocks.1.conv" in text(pilot, "#compare-steps")
        assert "▶  unet.blocks.1.conv" in text(pilot, "#divergences")
        assert "rel L2" in text(pilot, "#pane-difference")
        assert pilot.app.screen.query_one("#compare-layers").border_subtitle == "9 of 9 over tolerance (by dtype)"


async def test_first_paint_reads_no_tensor(compared: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first picture has a bound for every layer, from statistics; tensors follow."""
    app = compared("normal", "seed")
    async with app.run_test(size=SIZE) as pilot:
        screen = app.screen
        assert isinstance(screen, CompareScreen)
        assert screen.state.table.relative_l2.min() > 0
        await settle(pilot)
        assert (screen.state.table.evidence == Evidence.TENSOR).all()
        assert not screen.state.running


@pytest.mark.parametrize(
    ("keys", "link"),
    [
        (["left_square_bracket"], 1),
        (["right_square_bracket"], 3),
        (["left_curly_bracket"], 0),
        (["right_curly_bracket"], STEPS - 1),
        (["home"], 0),
        (["end"], STEPS - 1),
        (["end", "right_square_bracket"], STEPS - 1),
    ],
)
async def test_step_keys(compared: Compare, keys: list[str], link: int) -> None:
    """Keys move through the linked steps and stop at both ends."""
    async with compared("normal", "late").run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press(*keys)
        assert state(pilot).link == link
        assert f"▲{link}" in text(pilot, "#compare-steps")


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        (["down"], "unet.blocks.1.act"),
        (["j", "j"], "unet.blocks.1"),
        (["up"], "unet.blocks.0"),
        (["k", "k", "k"], "unet.blocks.0.conv"),
        (["g"], "unet.conv_in"),
        (["G"], "unet"),
        (["G", "down"], "unet"),
        (["pageup"], "unet.conv_in"),
        (["pagedown"], "unet"),
    ],
)
async def test_layer_keys(compared: Compare, keys: list[str], name: str) -> None:
    """Keys move through the layers and stop at both ends; the pictures follow."""
    async with compared("normal", "late").run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press(*keys)
        await settle(pilot)
        assert layer(pilot) == name
        found = state(pilot).found
        assert found is not None and found.row == state(pilot).row and not state(pilot).loading


async def test_next_divergence(compared: Compare) -> None:
    """`n` goes from cause to consequence, a layer once, and begins again; `N` goes back."""
    async with compared("normal", "late").run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press("g", "home")
        await settle(pilot)
        seen = []
        for _ in range(5):
            await pilot.press("n")
            await pilot.pause()
            seen.append((layer(pilot), state(pilot).link))
        assert seen == [
            ("unet.blocks.1.conv", 2),
            ("unet.blocks.1.act", 2),
            ("unet.blocks.1", 2),
            ("unet.conv_out", 2),
            ("unet", 2),
        ]
        await pilot.press("n")
        assert (layer(pilot), state(pilot).link) == ("unet.conv_in", 3)
        await pilot.press("N", "N")
        assert (layer(pilot), state(pilot).link) == ("unet.conv_out", 2)


async def test_nothing_over(compared: Compare) -> None:
    """Equal traces say so, and `n` has nowhere to go."""
    async with compared("normal", "same").run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert pilot.app.screen.query_one("#compare-layers").border_subtitle == "no difference in 9 tensors"
        assert "equal in every element" in text(pilot, "#pane-difference")
        await pilot.press("n")
        assert [note.message for note in pilot.app._notifications] == ["No layer is over the tolerance."]


async def test_modes(compared: Compare) -> None:
    """`X` walks through the modes and each draws another picture; the wipe's edge moves with arrows."""
    async with compared("normal", "seed").run_test(size=SIZE) as pilot:
        await settle(pilot)
        pane = pilot.app.screen.query_one("#pane-difference", Pane)
        seen = set()
        for mode in MODES:
            assert state(pilot).mode == mode
            assert mode in str(pane.border_title)
            await pilot.pause()
            seen.add(tuple(str(pane.render_line(y)) for y in range(pane.size.height)))
            assert (pane.border_subtitle == "← → move the edge") == (mode == "wipe")
            if mode == "wipe":
                await pilot.press("right")
                assert state(pilot).wipe == pytest.approx(0.55)
                await pilot.press("h", "h")
                assert state(pilot).wipe == pytest.approx(0.45)
            await pilot.press("X")
        assert len(seen) == len(MODES)
        assert state(pilot).mode == "signed"


async def test_flicker_shows_both_in_turn(compared: Compare) -> None:
    """In the mode that flickers B takes the place of A and back, until the mode is left."""
    async with compared("normal", "seed").run_test(size=SIZE) as pilot:
        await settle(pilot)
        pilot.app.screen.set_mode("flicker")  # type: ignore[attr-defined]  # the comparison's screen
        shown = set()
        for _ in range(30):
            await pilot.pause(0.1)
            shown.add(state(pilot).flicker)
        assert shown == {False, True}
        await pilot.press("X")
        assert not state(pilot).flicker


async def test_sorting(compared: Compare) -> None:
    """`s` sorts by distance, first step and name, and back to execution order; the layer shown stays."""
    async with compared("normal", "late").run_test(size=SIZE) as pilot:
        await settle(pilot)
        orders = {}
        for sort in SORTS:
            assert state(pilot).sort == sort
            orders[sort] = state(pilot).order.tolist()
            assert layer(pilot) == "unet.blocks.1.conv"
            await pilot.press("s")
        assert orders["execution"] == list(range(9))
        largest = np.nanmax(state(pilot).table.relative_l2, axis=1)
        assert (np.diff(largest[orders["distance"]]) <= 0).all()
        names = [state(pilot).table.pairing.pairs[row].a.key for row in orders["name"]]
        assert names == sorted(names)
        assert orders["first"][0] == 4


async def test_tolerance(compared: Compare) -> None:
    """`t` takes the next tolerance; what is over it, and the step strip, follow."""
    async with compared("normal", "seed").run_test(size=SIZE) as pilot:
        await settle(pilot)
        for tolerance in [*TOLERANCES[1:], None]:
            await pilot.press("t")
            assert state(pilot).tolerance == tolerance
            assert "tol" in text(pilot, "#compare-header")
        assert "by dtype" in text(pilot, "#compare-header")
        pilot.app.screen.set_tolerance(100.0)  # type: ignore[attr-defined]  # the comparison's screen
        await pilot.pause()
        assert "none of 9" in str(pilot.app.screen.query_one("#compare-layers").border_subtitle)
        assert "first over" not in text(pilot, "#compare-steps")


async def test_linking_steps(compared: Compare) -> None:
    """`=` links the steps by timestep, sigma and index; what has no partner is said."""
    async with compared("normal", "few").run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert state(pilot).table.links.pairs == ((0, 0), (1, 1), (2, 2))
        await pilot.press("equals_sign")
        await settle(pilot)
        assert state(pilot).table.links.pairs == ((0, 0), (2, 1), (4, 2))
        await pilot.press("end")
        assert "step 4 ↔ 2" in text(pilot, "#compare-steps")
        assert "steps 3 in A only" in text(pilot, "#compare-steps")
        await pilot.press("equals_sign")
        await settle(pilot)
        assert "= links them in another way" in text(pilot, "#compare-steps")
        await pilot.press("equals_sign")
        await settle(pilot)
        assert state(pilot).table.links.by == "index"


async def test_swap(compared: Compare) -> None:
    """`S` makes B the one that counts; the layer shown stays."""
    async with compared("normal", "late").run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press("S")
        await settle(pilot)
        assert state(pilot).comparison.a.name == "late.zarr"
        assert layer(pilot) == "unet.blocks.1.conv"
        assert "A late.zarr" in str(pilot.app.screen.query_one("#pane-a").border_title)


async def test_channel_batch_colours_and_range(compared: Compare) -> None:
    """The keys of pictures are those of the main screen, and work on all three at once."""
    async with compared("normal", "late").run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press("full_stop", "full_stop", "comma", "greater_than_sign")
        await settle(pilot)
        assert "channel 1/4" in text(pilot, "#pane-a") and "channel 1/4" in text(pilot, "#pane-b")
        assert "batch 1/2" in text(pilot, "#pane-a")
        found = state(pilot).found
        assert found is not None and found.a is not None
        site = open_trace(state(pilot).comparison.a.path).site("unet.blocks.1.conv")
        assert (found.a == state(pilot).comparison.a.tensor(site, 2)[1:]).all()
        await pilot.press("less_than_sign", "c", "d")
        assert (state(pilot).look.batch, state(pilot).look.colours, state(pilot).look.clipped) == (0, "inferno", True)


async def test_focus_and_zoom(compared: Compare) -> None:
    """`tab` goes from the layers to A, B and the difference; `m` gives one the whole screen, `escape` takes it back."""
    async with compared("normal", "late").run_test(size=SIZE) as pilot:
        await settle(pilot)
        seen = []
        for _ in range(4):
            await pilot.press("tab")
            seen.append(pilot.app.focused.id if pilot.app.focused else None)
        assert seen == ["pane-a", "pane-b", "pane-difference", "divergences"]
        await pilot.press("tab", "m")
        await pilot.pause()
        assert pilot.app.screen.query_one("#pane-a").size.height > 25
        await pilot.press("escape")
        await pilot.pause()
        assert pilot.app.screen.maximized is None


async def test_facts(compared: Compare) -> None:
    """`i` shows what the two runs have in common, differences first; `escape` shows the pictures again."""
    async with compared("normal", "few").run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press("i")
        await pilot.pause()
        shown = text(pilot, "FactsView")
        assert re.search(r"≠ steps +6 +3", shown)
        assert re.search(r"= torch version", shown)
        assert "A only: 3, 4, 5" in shown
        await pilot.press("escape")
        await pilot.pause()
        assert not pilot.app.screen.query_one("#compare-facts").display


def reports(folder: Path) -> list[str]:
    """Names of the reports in a folder."""
    return sorted(path.name for path in folder.glob("compare-*"))


async def test_report(compared: Compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`e` writes Markdown, JSON and CSV into the working folder, and never over a file."""
    monkeypatch.chdir(tmp_path)
    async with compared("normal", "late").run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press("e")
        await settle(pilot)
        await pilot.press("e")
        await settle(pilot)
    assert reports(tmp_path) == sorted(
        f"compare-normal-late{number}.{ending}" for number in ("", "-2") for ending in ("md", "json", "csv")
    )
    assert "First: `unet.blocks.1.conv:output`, step 2" in (tmp_path / "compare-normal-late.md").read_text()


async def test_a_report_that_cannot_be_written(
    compared: Compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the report cannot be written the reason is told, and the comparison goes on."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    async with compared("normal", "late").run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press("e")
        await settle(pilot)
        assert [note.title for note in pilot.app._notifications] == ["Not written"]


async def test_help_and_leaving(compared: Compare) -> None:
    """`?` shows the keys and hides them; `escape` leaves the help, and ends no program that has nothing below it."""
    app = compared("normal", "late")
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press("question_mark")
        assert isinstance(pilot.app.screen, KeyHelp)
        await pilot.press("question_mark")
        assert isinstance(pilot.app.screen, CompareScreen)
        await pilot.press("question_mark", "escape")
        assert app.is_running and isinstance(pilot.app.screen, CompareScreen)
        await pilot.press("escape", "escape")
        await pilot.pause()
        assert app.is_running and isinstance(pilot.app.screen, CompareScreen)


@pytest.mark.parametrize("width", [80, 120])
async def test_the_last_line_says_what_leaves(compared: Compare, width: int) -> None:
    """The line of keys names `q`, `escape` only while it leads back to something, and the key of all others."""

    def keys() -> str:
        return pilot.app.screen.query_one(KeyLine).render_line(0).text

    async with compared("normal", "late").run_test(size=(width, 24)) as pilot:
        await settle(pilot)
        assert "q Leave" in keys() and "esc" not in keys()
        assert "e Report" in keys() and keys().endswith("ctrl+p all ")
        for key in ("i", "m"):
            await pilot.press(key)
            await settle(pilot)
            assert "esc Back" in keys()
            await pilot.press("escape")
            await settle(pilot)
            assert "esc" not in keys()


async def test_quit(compared: Compare) -> None:
    """`q` ends the application."""
    app = compared("normal", "late")
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("q")
    assert app.return_code == 0


def test_every_key_is_tried() -> None:
    """Each action of the comparison is pressed in a test of this module."""
    source = Path(__file__).read_text(encoding="utf-8")
    aliases = {
        "[": "left_square_bracket",
        "]": "right_square_bracket",
        "{": "left_curly_bracket",
        "}": "right_curly_bracket",
        "left,h": "h",
        "right,l": "right",
    }
    assert [b.key for b in KEYS if f'"{aliases.get(b.key, b.key)}"' not in source] == []
    ids = [binding.id for binding in (*KEYS, *DivergenceTable.BINDINGS) if not isinstance(binding, tuple)]
    assert len(ids) == len(set(ids)) and all(ids)


async def test_palette(compared: Compare) -> None:
    """The palette finds layers by words in any order, tolerances, modes and ways to link."""
    async with compared("normal", "late").run_test(size=SIZE) as pilot:
        await settle(pilot)
        wishes: tuple[tuple[str, Callable[[], bool]], ...] = (
            ("act 0", lambda: layer(pilot) == "unet.blocks.0.act"),
            ("tolerance 1e-3", lambda: state(pilot).tolerance == 1e-3),
            ("mode relative", lambda: state(pilot).mode == "relative"),
            ("link timestep", lambda: state(pilot).table.links.by == "timestep"),
        )
        for query, holds in wishes:
            await pilot.press("ctrl+p")
            await pilot.pause(0.2)
            await pilot.press(*(("space" if sign == " " else "minus" if sign == "-" else sign) for sign in query))
            await pilot.pause(0.5)
            await pilot.press("enter")
            await settle(pilot)
            assert holds(), query


async def test_mouse(compared: Compare) -> None:
    """A click chooses a row, and a drag along the strip a step."""
    async with compared("normal", "late").run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.click("#divergences", offset=(20, 2))
        await pilot.pause()
        assert layer(pilot) == "unet.blocks.0.conv"
        await pilot.mouse_down("#compare-steps", offset=(2, 0))
        await pilot.hover("#compare-steps", offset=(60, 0))
        await pilot.mouse_up("#compare-steps", offset=(60, 0))
        await pilot.pause()
        assert state(pilot).link == 3


async def test_pushed_on_the_browser(traces: dict[str, Path], browser: Callable[..., Browser]) -> None:
    """The comparison can be pushed on the main screen, and `escape` goes back there."""
    async with browser("normal").run_test(size=SIZE) as pilot:
        await settle(pilot)
        below = pilot.app.screen
        pilot.app.push_screen(
            CompareScreen(open_comparison(open_trace(traces["normal"]), open_trace(traces["faulty"])))
        )
        await settle(pilot)
        assert isinstance(pilot.app.screen, CompareScreen)
        assert layer(pilot) == "unet.down_blocks.1"
        assert "esc Back" in pilot.app.screen.query_one(KeyLine).render_line(0).text
        await pilot.press("ctrl+p")
        await pilot.pause(0.2)
        await pilot.press(*"mid")
        await pilot.pause(0.5)
        await pilot.press("enter")
        await settle(pilot)
        assert layer(pilot).startswith("unet.mid_block")
        await pilot.press("escape")
        await pilot.pause()
        assert pilot.app.screen is below


async def test_statistics_alone(compared: Compare) -> None:
    """Where one run kept no tensors, numbers stand in place of pictures, marked as such, with the line to capture."""
    async with compared("normal", "statistics").run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert (layer(pilot), state(pilot).link) == ("unet.conv_in", 2)
        told = text(pilot, "#pane-difference")
        assert "Statistics only, as B kept no tensors" in " ".join(told.split())
        assert "Capture(modules=" in told
        assert "Relative L2 at least" in " ".join(told.split())
        assert re.search(r"≥\S+ +– +– +2", text(pilot, "#divergences"))
        assert re.search(r"mean +-?\d", text(pilot, "#pane-a"))


async def test_modes_without_tensors(compared: Compare) -> None:
    """Where there are numbers alone, each mode of drawing says that it has nothing to draw, and what stands there."""
    async with compared("normal", "statistics").run_test(size=SIZE) as pilot:
        await settle(pilot)
        pane = pilot.app.screen.query_one("#pane-difference", Pane)
        for mode in MODES:
            assert str(pane.border_title) == f"X {mode}: no tensor" and not pane.border_subtitle
            told = " ".join(text(pilot, "#pane-difference").split())
            assert (f"No tensors to draw as {mode}: the numbers are A − B." in told) == (mode != "signed")
            await pilot.press("X")
            await pilot.pause()


@pytest.mark.parametrize("width", [80, 100, 120])
async def test_names_in_code_stay_whole(compared: Compare, width: int) -> None:
    """The line that would have captured a layer breaks before the name of it, never within."""
    async with compared("normal", "statistics").run_test(size=(width, 40)) as pilot:
        await settle(pilot)
        told = text(pilot, "#pane-difference")
        assert any(line.strip().endswith("'unet.conv_in')") for line in told.splitlines())
        assert "capture=Capture(modules='unet.conv_in')" in "".join(told.split())


async def test_a_name_wider_than_its_pane(compared: Compare, tmp_path: Path) -> None:
    """A name that no line has room for is cut, and keeps the end by which layers are told apart."""
    paths = [
        record(tmp_path / f"{side}.zarr", component="unet" * 10, capture="statistics", seed=seed).path
        for side, seed in (("a", 0), ("b", 1))
    ]
    async with compared(*paths).run_test(size=(80, 40)) as pilot:
        await settle(pilot)
        lines = [line.strip() for line in text(pilot, "#pane-difference").splitlines()]
        assert any(re.fullmatch(r"…(unet)*.*\.conv_in'\)", line) for line in lines)


async def test_other_shapes(compared: Compare) -> None:
    """A layer of another shape says both shapes in the list and in place of the picture."""
    async with compared("normal", "wide", layer="unet.conv_in").run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert "shapes differ" in text(pilot, "#divergences")
        told = " ".join(text(pilot, "#pane-difference").split())
        assert "shapes differ: 2×4×8×8 in A, 2×6×8×8 in B" in told


async def test_nothing_in_common(compared: Compare) -> None:
    """Traces without a common layer list what each has, and say how to name the layers; no key fails there."""
    async with compared("normal", "other").run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert "no layer in common" in " ".join(text(pilot, "#pane-difference").split())
        assert "unet.conv_in:output" in text(pilot, "#divergences") and "in A only" in text(pilot, "#divergences")
        await pilot.press("down", "n", "N", "X", "t", "s", "right_square_bracket", "equals_sign", "S", "i", "m")
        await settle(pilot)
        assert pilot.app.is_running


@pytest.mark.parametrize("pair", [("normal", "empty"), ("empty", "empty")])
async def test_traces_without_steps(compared: Compare, pair: tuple[str, str]) -> None:
    """A trace in which no step is complete can be compared; there is nothing to see, and nothing fails."""
    async with compared(*pair).run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press("right_square_bracket", "n", "end", "down")
        await settle(pilot)
        assert "= links them in another way" in text(pilot, "#compare-steps")


def torn(source: Path, path: Path) -> Path:
    """A copy of a trace in which the tensors of `conv_in` cannot be read at the last steps."""
    shutil.copytree(source, path)
    chunk = next(file for file in (path / "unet" / "conv_in" / "output").iterdir() if file.name.startswith("c"))
    chunk.write_bytes(chunk.read_bytes()[:2500])
    return path


async def test_a_broken_chunk(compared: Compare, parted: dict[str, Path], tmp_path: Path) -> None:
    """A tensor that cannot be read is a "?" with the reason; the rest works."""
    path = torn(parted["seed"], tmp_path / "broken.zarr")
    async with compared("normal", path, layer="unet.conv_in", step=5).run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert "Not readable" in text(pilot, "#pane-difference")
        assert [note.title for note in pilot.app._notifications] == ["Not readable"]
        row = next(line for line in text(pilot, "#divergences").splitlines() if "unet.conv_in" in line)
        assert "?" in row or row.startswith("▶")
        await pilot.press("down")
        await settle(pilot)
        assert "rel L2" in text(pilot, "#pane-difference")


async def test_what_cannot_be_read_is_counted(compared: Compare, parted: dict[str, Path], tmp_path: Path) -> None:
    """Runs that differ in nothing that can be read are never called equal without the tensors that cannot be."""
    path = torn(parted["normal"], tmp_path / "torn.zarr")
    async with compared("normal", path).run_test(size=SIZE) as pilot:
        await settle(pilot)
        told = pilot.app.screen.query_one("#compare-layers").border_subtitle
        assert told == "no difference in 8 of 9 tensors · 1 unreadable"
        await pilot.press("n")
        messages = [note.message for note in pilot.app._notifications]
        assert "No layer is over the tolerance; 1 of 9 cannot be read." in messages


async def test_unreadable_beside_differences(compared: Compare, parted: dict[str, Path], tmp_path: Path) -> None:
    """Where layers differ, those that cannot be read are counted beside them, in the frame and by `n`."""
    path = torn(parted["seed"], tmp_path / "torn.zarr")
    async with compared("normal", path).run_test(size=SIZE) as pilot:
        await settle(pilot)
        told = str(pilot.app.screen.query_one("#compare-layers").border_subtitle)
        assert told == "9 of 9 over tolerance (by dtype) · 1 unreadable"
        await pilot.press("n")
        assert [note.message for note in pilot.app._notifications][-1].endswith("; 1 of 9 cannot be read")


async def test_statistics_are_no_proof(compared: Compare, tmp_path: Path) -> None:
    """Tensors of which there are statistics alone are not among those without a difference."""
    traces = [record(tmp_path / f"{side}.zarr", capture=Capture(modules="unet.conv_in")).path for side in "ab"]
    async with compared(*traces).run_test(size=SIZE) as pilot:
        await settle(pilot)
        told = pilot.app.screen.query_one("#compare-layers").border_subtitle
        assert told == "no difference in 1 of 9 tensors · 8 from statistics"


async def test_control_characters_stay_out(compared: Compare, tmp_path: Path) -> None:
    """Names of a trace, of its layers and of its folder reach the terminal as escapes."""
    path = tmp_path / "b\x1b[31m[red].zarr"
    record(path, component="un\x1b[2Jet")
    async with compared(path, path).run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press("i", "s", "n", "i")
        await settle(pilot)
        shown = "".join(
            segment.text for y in range(SIZE[1]) for segment in pilot.app.screen._compositor.render_strips()[y]
        )
        assert "\x1b" not in shown
        assert "\\x1b" in shown


async def test_small_terminals(compared: Compare) -> None:
    """Below 60 × 16 the comparison asks for more room; at 80 × 24 everything is there."""
    async with compared("normal", "late").run_test(size=(50, 14)) as pilot:
        await settle(pilot)
        assert pilot.app.screen.query_one("#compare-small").display
        await pilot.resize_terminal(80, 24)
        await settle(pilot)
        assert not pilot.app.screen.query_one("#compare-small").display
        assert "unet.blocks.1.conv" in text(pilot, "#divergences")


async def test_a_list_of_many_layers_draws_what_is_in_sight(compared: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the list, no more rows are drawn than fit."""
    drawn: list[int] = []
    draw = DivergenceTable._draw

    def counted(table: DivergenceTable, shown: Comparing, row: int, name: int, width: int) -> Any:
        drawn.append(row)
        return draw(table, shown, row, name, width)

    monkeypatch.setattr(DivergenceTable, "_draw", counted)
    async with compared("normal", "late").run_test(size=SIZE) as pilot:
        await settle(pilot)
        screen = pilot.app.screen
        assert isinstance(screen, CompareScreen)
        screen.change(order=np.tile(np.arange(9), 11_112)[:100_000])
        await pilot.pause()
        drawn.clear()
        await pilot.press("pagedown")
        await pilot.pause()
        assert 0 < len(drawn) <= 3 * screen.query_one("#divergences").size.height


async def test_many_steps_at_once_are_few_reads(compared: Compare, traces: dict[str, Path]) -> None:
    """Keys in quick succession do not each read: the last one is shown."""
    app = compared("normal", "late")
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        comparison = state(pilot).comparison
        entries: list[tuple[int, int]] = []
        entry = Comparison.entry

        def counted(row: int, link: int, batch: int = 0) -> Any:
            entries.append((row, link))
            return entry(comparison, row, link, batch)

        comparison.entry = counted  # type: ignore[method-assign]  # counts the reads
        await pilot.press("home")
        await settle(pilot)
        entries.clear()
        screen = pilot.app.screen
        assert isinstance(screen, CompareScreen)
        for _ in itertools.repeat(None, STEPS):
            screen.action_step(1)
        await settle(pilot)
        assert entries == [(state(pilot).row, STEPS - 1)]


def test_wishes_are_checked_first(parted: dict[str, Path]) -> None:
    """An unknown trace, layer or step is told before anything is drawn; without a terminal that is told."""
    with pytest.raises(SiteNotFoundError, match=r"unet\.conv_in"):
        View().compare(parted["normal"], parted["late"], layer="unet.conv_inn")
    with pytest.raises(SiteNotFoundError, match="no step 9"):
        View().compare(parted["normal"], parted["late"], step=9)


def test_names_of_a_port(
    parted: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--names` pairs modules of other names; a rule without both sides is refused in one line."""
    monkeypatch.setattr(sys, "__stderr__", io.StringIO())
    names = {"unet": "other", "unet.**": "other.**"}
    screen = CompareScreen(open_comparison(open_trace(parted["normal"]), open_trace(parted["other"]), names=names))
    assert len(screen.state.table) == 9
    assert main(["view", str(parted["normal"]), "--compare", str(parted["late"])]) == 2
    assert "terminal" in capsys.readouterr().err  # no name was given, so none is missed
    paths = [str(parted["normal"]), "--compare", str(parted["other"])]
    assert main(["view", *paths, "--names", "unet"]) == 2
    assert "'unet' does not say what a module is called" in capsys.readouterr().err
    assert main(["view", *paths, "--names", "unet.*=other.**"]) == 2
    assert "have not the same wildcards" in capsys.readouterr().err
    assert main(["view", *paths, "--names", "unet=other"]) == 2
    assert "terminal" in capsys.readouterr().err
    assert main(["view", *paths, "--rename", "unet=nothing"]) == 2
    assert '"unet=nothing" brings no layers together' in capsys.readouterr().err
    table = tmp_path / "names.json"
    table.write_text('{"unet.**": "other.**"}')
    assert main(["view", *paths, "--map", str(table)]) == 2
    assert "terminal" in capsys.readouterr().err


def test_layers_are_listed_as_their_tensors_were_made(tmp_path: Path) -> None:
    """What began a step is listed before the layers of the denoiser, and those before what the scheduler made of it."""
    family = FAMILIES["sd"]()
    for name in ("a", "b"):
        with Tracer(family.pipeline, tmp_path / f"{name}.zarr") as tracer:
            run(family)
    trace = tracer.trace
    screen = CompareScreen(open_comparison(open_trace(tmp_path / "a.zarr"), open_trace(tmp_path / "b.zarr")))
    pairs = screen.state.table.pairing.pairs
    listed = [pairs[row].a.key for row in screen.state.order if row < len(pairs)]
    assert listed.index("latents:latents") < listed.index("unet.conv_in:output")
    assert listed.index("unet:output") < listed.index("latents:next_latents") < listed.index("vae.decoder:output")
    moments = Moments.of(tuple(trace.tables()))
    when = {
        site.key: np.nanmin(moments.of_table(table)[:, site.row]) for table in trace.tables() for site in table.sites
    }
    assert listed == sorted(listed, key=when.__getitem__)


def test_no_terminal(parted: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """`--compare` needs a terminal, and a second trace that exists."""
    monkeypatch.setattr(sys, "__stderr__", io.StringIO())
    with pytest.raises(TerminalError):
        View().compare(parted["normal"], parted["late"])
    assert main(["view", str(parted["normal"]), "--compare", "none.zarr"]) == 2
    assert "there is no trace at none.zarr" in capsys.readouterr().err


def test_opening_by_glob_and_step(parted: dict[str, Path]) -> None:
    """A glob opens at its first match, a step from the end counts back."""
    screen = CompareScreen(
        open_comparison(open_trace(parted["normal"]), open_trace(parted["late"]), layer="**.act", step=-1)
    )
    assert screen.state.pair is not None
    assert (screen.state.pair.a.name, screen.state.link) == ("unet.blocks.0.act", STEPS - 1)
    assert math.isnan(screen.state.table.cosine[0, 0])


async def test_shades(compared: Compare) -> None:
    """Without colours pictures are drawn in shades."""
    async with compared("normal", "seed", shade=True).run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert set("░▒▓█") & set(text(pilot, "#pane-a")) and "▀" not in text(pilot, "#pane-a")
        assert pilot.app.screen.query_one(DivergenceStrip).state is not None

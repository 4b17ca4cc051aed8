"""The browser, driven by keys and the mouse."""

import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from textual.containers import VerticalScroll
from textual.pilot import Pilot
from textual.widgets import Input

from diffusion_xray.tracer import open_trace
from diffusion_xray.tracer.layout import MEASURED
from diffusion_xray.tracer.process import describe_process
from diffusion_xray.viewer.app import Browser
from diffusion_xray.viewer.key_table import key_table
from diffusion_xray.viewer.loader import Answer, Loader
from diffusion_xray.viewer.previews import Previews
from diffusion_xray.viewer.scene import Scene
from diffusion_xray.viewer.screens.help import KeyHelp
from diffusion_xray.viewer.screens.keys import KEYS
from diffusion_xray.viewer.screens.main import MainScreen
from diffusion_xray.viewer.views.registry import BUILT_IN
from diffusion_xray.viewer.widgets.canvas import Canvas
from diffusion_xray.viewer.widgets.layer_tree import LayerTree
from diffusion_xray.viewer.widgets.step_strip import StepStrip

from .live import cut, until

Make = Callable[..., Browser]
SIZE = (120, 40)


async def settle(pilot: Pilot[None]) -> None:
    """Wait until what was asked for has been read and drawn."""
    await pilot.pause(0.1)
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()


def scene(pilot: Pilot[None]) -> Scene:
    """What the browser shows."""
    shown = pilot.app.screen.query_one(StepStrip).scene
    assert shown is not None
    return shown


def layer(pilot: Pilot[None]) -> str:
    """The name of the chosen layer."""
    site = scene(pilot).site
    return site.name if site else ""


def text(pilot: Pilot[None], selector: str) -> str:
    """The characters of a widget."""
    canvas = pilot.app.screen.query_one(selector, Canvas)
    return "\n".join(canvas.render_line(y).text for y in range(canvas.size.height))


async def test_first_paint_reads_no_tensor(browser: Make) -> None:
    """The first picture is drawn from statistics alone; the rest follows."""
    app = browser("normal")
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        assert "2×3×8×8 float32" in text(pilot, "#overview")
        await settle(pilot)
        assert scene(pilot).found is not None
        assert not any("tensor" in key for key in app._loader._cache)


@pytest.mark.parametrize(
    ("keys", "step"),
    [
        (["left_square_bracket"], 4),
        (["left_square_bracket", "left_square_bracket", "right_square_bracket"], 4),
        (["left_curly_bracket"], 0),
        (["home", "right_square_bracket"], 1),
        (["home", "right_curly_bracket"], 5),
        (["home", "end"], 5),
    ],
)
async def test_step_keys(browser: Make, keys: list[str], step: int) -> None:
    """Keys move through the steps and stop at both ends."""
    async with browser("normal").run_test(size=SIZE) as pilot:
        await pilot.press(*keys)
        await settle(pilot)
        assert scene(pilot).step == step
        assert not scene(pilot).loading


async def test_many_keys_read_little(browser: Make) -> None:
    """After a burst of keys the last step is shown, and answers for the others are dropped."""
    async with browser("normal", tab="image").run_test(size=SIZE) as pilot:
        await pilot.press(*["left_square_bracket", "right_square_bracket"] * 10, "home")
        await settle(pilot)
        assert (scene(pilot).step, scene(pilot).loading) == (0, False)
        assert scene(pilot).found is not None


async def test_play(browser: Make) -> None:
    """Space plays from the first step and stops at the last."""
    seen: list[Scene] = []
    async with browser("normal").run_test(size=SIZE) as pilot:
        await pilot.pause()
        strip = pilot.app.screen.query_one(StepStrip)
        pilot.app.screen.watch(strip, "scene", lambda shown: seen.append(shown), init=False)  # noqa: PLW0108 - Textual counts the parameters
        await pilot.press("space")
        await until(pilot, lambda: any(shown.playing for shown in seen) and not scene(pilot).playing)
    assert [step for step, _ in itertools.groupby(shown.step for shown in seen)] == [0, 1, 2, 3, 4, 5]


async def test_scrub_with_the_mouse(browser: Make) -> None:
    """A click on the strip chooses the step below it, a drag follows the mouse."""
    async with browser("normal").run_test(size=SIZE) as pilot:
        await pilot.pause()
        await pilot.click("#steps", offset=(2, 0))
        assert scene(pilot).step == 0
        await pilot.mouse_down("#steps", offset=(2, 0))
        await pilot.hover("#steps", offset=(60, 0))
        await pilot.mouse_up("#steps", offset=(60, 0))
        assert scene(pilot).step in {2, 3}


async def test_tree_keys(browser: Make) -> None:
    """Arrows and letters move in the tree, fold and unfold it."""
    async with browser("normal").run_test(size=SIZE) as pilot:
        await pilot.press("down", "j")
        assert layer(pilot) == "unet.down_blocks.0"
        await pilot.press("right", "down")
        assert layer(pilot) == "unet.down_blocks.0.conv"
        await pilot.press("left", "left", "k")
        assert layer(pilot) == "unet.conv_in"
        await pilot.press("G")
        assert layer(pilot) == "unet.conv_out"
        await pilot.press("g")
        assert layer(pilot) == "unet"


async def test_tree_click(browser: Make) -> None:
    """A click on a row chooses it."""
    async with browser("normal").run_test(size=SIZE) as pilot:
        await pilot.pause()
        await pilot.click("#tree", offset=(8, 1))
        assert layer(pilot) == "unet.conv_in"


@pytest.mark.parametrize(("key", "tab"), [("1", "overview"), ("2", "stats"), ("3", "hist"), ("4", "image")])
async def test_tabs(browser: Make, key: str, tab: str) -> None:
    """Numbers choose the view, and it is what is drawn."""
    async with browser("normal").run_test(size=SIZE) as pilot:
        await pilot.press(key)
        await settle(pilot)
        assert scene(pilot).view.id == tab
        assert pilot.app.screen.query_one(f"#{tab}").display


async def test_tab_click(browser: Make) -> None:
    """A click on a tab's name chooses it."""
    async with browser("normal").run_test(size=SIZE) as pilot:
        await pilot.pause()
        await pilot.click("TabBar", offset=(17, 1))
        assert scene(pilot).view.id == "stats"


async def test_faults_in_order(browser: Make) -> None:
    """`n` goes to the earliest fault first, whatever was chosen before, and `N` back."""
    async with browser("faulty", layer="unet.conv_out", step=0).run_test(size=SIZE) as pilot:
        await pilot.press("n")
        await settle(pilot)
        shown = scene(pilot)
        assert shown.site is not None and (shown.site.name, shown.step) == ("unet.down_blocks.1", 4)
        assert "first ✗ step 4 unet.down_blocks.1" in text(pilot, "#steps")
        await pilot.press("n")
        assert scene(pilot).site == scene(pilot).snapshot.faults[1].site
        await pilot.press("N")
        assert scene(pilot).site == shown.site


async def test_fault_is_seen_before_any_key(browser: Make) -> None:
    """The mark and its step stand at the leaf, at each ancestor and in the header."""
    async with browser("faulty").run_test(size=SIZE) as pilot:
        await pilot.pause()
        rows = {row.split()[1]: row for row in text(pilot, "#tree").splitlines() if len(row.split()) > 1}
        assert rows["unet"].rstrip().endswith("✗4")
        assert rows["down_blocks.1"].rstrip().endswith("✗4")
        assert "✗ 12 non-finite" in text(pilot, "#header")
        assert "+Inf" in text(pilot, "#overview")


async def test_fault_without_any(browser: Make) -> None:
    """`n` in a sound trace says that there is nothing to find."""
    async with browser("normal").run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("n")
        assert "Every value is finite" in str([note.message for note in pilot.app._notifications])


async def test_filter(browser: Make) -> None:
    """Words filter the layers; enter keeps the filter, escape ends it."""
    async with browser("normal").run_test(size=SIZE) as pilot:
        await pilot.press("slash", *"conv", "space", *"mid")
        assert layer(pilot) == "unet.mid_block.conv"
        await pilot.press("enter")
        assert isinstance(pilot.app.focused, LayerTree)
        assert "conv_in" not in text(pilot, "#tree")
        await pilot.press("escape")
        assert "conv_in" in text(pilot, "#tree")
        assert not pilot.app.screen.query_one("#filter", Input).display


async def test_filter_that_finds_nothing(browser: Make) -> None:
    """A filter that no layer passes says so."""
    async with browser("normal").run_test(size=SIZE) as pilot:
        await pilot.press("slash", *"xyz")
        assert "no layer holds these words" in text(pilot, "#tree")


async def test_look_keys(browser: Make) -> None:
    """Keys change how things are drawn, and the picture says how."""
    async with browser("normal", layer="unet.conv_in", tab="image").run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert "channel 0 of 4 · batch 0 of 2" in text(pilot, "#image")
        await pilot.press("full_stop", "full_stop", "comma", "greater_than_sign", "c", "d", "L", "s")
        look = scene(pilot).look
        assert (look.channel, look.batch, look.colours) == (1, 1, "inferno")
        assert (look.clipped, look.log, look.statistic) == (True, True, "mean")
        assert "channel 1 of 4 · batch 1 of 2" in text(pilot, "#image")
        assert "inferno · p1–p99" in text(pilot, "TabBar")


async def test_what_else_was_kept_is_named(browser: Make, embedded: Path) -> None:
    """Where a layer's output was not kept but its queries and keys were, the Image view says which key leads there."""
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn2"
    async with browser(embedded, layer=name, tab="image").run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert "of this output; o goes on to" in text(pilot, "#missing")
        await pilot.press("o")
        await settle(pilot)
        assert "channel 0" in text(pilot, "#image")


async def test_statistics_only(browser: Make) -> None:
    """Without tensors the picture says why, and which line of code would have kept them."""
    async with browser("statistics", layer="unet.mid_block", tab="image").run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert "capture=Capture(modules='unet.mid_block')" in text(pilot, "#missing")
        await pilot.press("3")
        await settle(pilot)
        assert "over the steps" in text(pilot, "#hist")


async def test_step_without_tensor(browser: Make) -> None:
    """A step that the capture left out is said to be so, not shown as NaN."""
    async with browser("sparse", layer="unet.mid_block", tab="image", step=1).run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert "not kept at step 1" in text(pilot, "#missing")
        await pilot.press("right_square_bracket")
        await settle(pilot)
        assert "feature map" in text(pilot, "#image")


async def test_empty_trace(browser: Make) -> None:
    """A run that failed before its first step opens, and says how it ended."""
    async with browser("empty").run_test(size=SIZE) as pilot:
        for key in ("1", "2", "3", "4", "space", "n", "right_square_bracket", "o", "s", "m", "m"):
            await pilot.press(key)
        await settle(pilot)
        assert "failed" in text(pilot, "#header")
        await pilot.press("1")
        assert "RuntimeError" in text(pilot, "#overview")


async def test_failed_trace(browser: Make) -> None:
    """A run that failed half-way shows its error below the steps it has."""
    async with browser("failed").run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert "ended by RuntimeError" in text(pilot, "#steps")
        assert scene(pilot).snapshot.steps == 2


async def test_text_of_a_trace_controls_nothing(browser: Make) -> None:
    """Escape sequences are shown as text, and square brackets are no markup."""
    async with browser("failed").run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert "the [red]power[/red] went \\x1b[31mout" in text(pilot, "#steps")


async def test_hostile_names(browser: Make, traces: dict[str, Path], tmp_path: Path) -> None:
    """A layer's name with markup and control characters is shown as it is, everywhere."""
    path = tmp_path / "hostile [bold].zarr"
    shutil.copytree(traces["normal"], path)
    document = json.loads((path / "zarr.json").read_text())
    for node in document["consolidated_metadata"]["metadata"].values():
        for site in node["attributes"].get("sites", ()):
            site["name"] = site["name"].replace("conv_in", "[red]\x1b[31m[/x]")
    (path / "zarr.json").write_text(json.dumps(document))
    async with browser(path, layer="unet.[red]\x1b[31m[/x]").run_test(size=(160, 40)) as pilot:
        await settle(pilot)
        assert "[red]\\x1b[31m[/x]" in text(pilot, "#tree")
        assert "[red]\\x1b[31m[/x]" in text(pilot, "TabBar")
        assert "hostile [bold].zarr" in text(pilot, "#header")
        await pilot.press("4")
        await settle(pilot)
        await pilot.press("ctrl+p", *"red")
        await pilot.pause(0.3)
        assert "\x1b" not in pilot.app.export_screenshot()


async def test_damaged_chunk(browser: Make, traces: dict[str, Path], tmp_path: Path) -> None:
    """A tensor that cannot be read is told once; the browser goes on."""
    path = tmp_path / "damaged.zarr"
    shutil.copytree(traces["normal"], path)
    for chunk in (path / "unet" / "mid_block").rglob("c*"):
        if chunk.is_file():
            index = chunk.read_bytes()[: 128 * 16]
            chunk.write_bytes(index + b"\xff" * 65536)
    async with browser(path, layer="unet.mid_block", tab="image").run_test(size=SIZE, notifications=True) as pilot:
        await settle(pilot)
        assert "cannot be read" in text(pilot, "#image")
        assert len(pilot.app._notifications) == 1
        await pilot.press("2")
        await settle(pilot)
        assert "std" in text(pilot, "#stats")


async def test_previews(browser: Make) -> None:
    """Decoded latents are shown with the method that made them."""
    async with browser("normal").run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert "Capture(latents=True)" in text(pilot, "#preview")
        screen = pilot.app.screen
        assert isinstance(screen, MainScreen)
        info = dataclasses.replace(screen.snapshot.info, preview={"method": "linear fit", "r2": 0.96})
        screen.snapshot = dataclasses.replace(
            screen.snapshot, info=info, has_previews=True, prompts=((0, "a [red]circle[/red]"),)
        )
        pixels = np.full((16, 16, 3), 200, dtype=np.uint8)
        screen.post_message(
            MainScreen.Read(screen.scene.view, screen.request, Answer(None, previews=Previews(latents=pixels)))
        )
        await pilot.pause()
        preview = text(pilot, "#preview")
        assert "latents 16×16" in preview and "▀▀▀▀" in preview
        assert "by linear fit, R² 0.96" in preview and "[red]circle[/red]" in preview


async def test_stats_table(browser: Make) -> None:
    """The table has a line for every step, and a click on one goes there."""
    async with browser("normal", tab="stats").run_test(size=SIZE) as pilot:
        await pilot.pause()
        lines = text(pilot, "#stats").splitlines()
        assert [line.split()[0] for line in lines[1:7]] == ["0", "1", "2", "3", "4", "5"]
        assert len(lines[0].split()) <= len(MEASURED) + 1
        await pilot.click("#stats", offset=(10, 3))
        assert scene(pilot).step == 2


async def test_shades(browser: Make) -> None:
    """Where colours are few, pictures are of shades."""
    async with browser("normal", tab="image", shade=True).run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert "▀" not in text(pilot, "#image")
        assert "▓" in text(pilot, "#image")


async def test_zoom(browser: Make) -> None:
    """`m` gives the view the whole screen and takes it back; steps can still be walked."""
    async with browser("normal", tab="image").run_test(size=SIZE) as pilot:
        await settle(pilot)
        before = pilot.app.screen.query_one("#image").size
        await pilot.press("m", "left_square_bracket")
        await settle(pilot)
        assert pilot.app.screen.query_one("#image").size.width > before.width
        assert scene(pilot).step == 4
        await pilot.press("m")
        await pilot.pause()
        assert pilot.app.screen.query_one("#image").size == before


async def test_help_lists_every_key(browser: Make) -> None:
    """`?` shows them in a list that keys scroll, and hides it; each key has an id and says what it does."""
    assert all(key.id and key.tooltip and key.description for key in KEYS)
    assert len({key.id for key in KEYS}) == len(KEYS)
    async with browser("normal").run_test(size=SIZE) as pilot:
        await pilot.press("question_mark")
        await pilot.pause()
        assert isinstance(pilot.app.screen, KeyHelp)
        told = "\n".join(
            str(segment.text) for strip in pilot.app.screen._compositor.render_strips() for segment in strip
        )
        assert "Go to a step or layer" in told and "Compare with another trace" in told
        scroll = pilot.app.screen.query_one(VerticalScroll)
        await pilot.press("end")
        await until(pilot, lambda: scroll.scroll_offset.y > 0)
        await pilot.press("question_mark")
        await pilot.pause()
        assert isinstance(pilot.app.screen, MainScreen)


async def test_palette_goes_to_a_layer(browser: Make) -> None:
    """Words in the palette find a layer; blanks part words."""
    async with browser("normal").run_test(size=SIZE) as pilot:
        await pilot.press("ctrl+p", *"conv", "space", *"mid")
        await pilot.pause(0.5)
        await pilot.press("enter")
        await settle(pilot)
        assert layer(pilot) == "unet.mid_block.conv"


async def test_palette_goes_to_a_step(browser: Make) -> None:
    """The command "Go to step…" lists the steps with their timesteps."""
    async with browser("normal").run_test(size=SIZE) as pilot:
        await pilot.press("ctrl+p", *"go", "space", *"step")
        await pilot.pause(0.5)
        await pilot.press("enter")
        await pilot.pause(0.3)
        await pilot.press(*"t=700")
        await pilot.pause(0.5)
        await pilot.press("enter")
        await settle(pilot)
        assert scene(pilot).step == 2


async def test_narrow(browser: Make) -> None:
    """At 80 columns the tree is a page of its own, and a layer opens from it."""
    async with browser("normal").run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        screen = pilot.app.screen
        assert not screen.query_one("#side").display and screen.query_one("#centre").display
        await pilot.press("b")
        await pilot.pause()
        assert screen.query_one("#side").display and not screen.query_one("#centre").display
        await pilot.press("down", "enter")
        await pilot.pause()
        assert screen.query_one("#centre").display
        assert layer(pilot) == "unet.conv_in"


@pytest.mark.parametrize("size", [(59, 40), (120, 15)])
async def test_too_small(browser: Make, size: tuple[int, int]) -> None:
    """Below 60 × 16 there is a note instead of a heap of fragments."""
    async with browser("normal").run_test(size=size) as pilot:
        await pilot.pause()
        assert pilot.app.screen.query_one("#small").display
        assert not pilot.app.screen.query_one("#body").display


@pytest.mark.parametrize("theme", ["textual-light", "nord", "ansi-dark"])
async def test_themes(browser: Make, theme: str) -> None:
    """A change of theme repaints everything without a fault."""
    app = browser("faulty")
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        before = app.screen.query_one("#header", Canvas).render_line(0)
        app.theme = theme
        await pilot.pause()
        assert app.screen.query_one("#header", Canvas).render_line(0) != before


async def test_live(browser: Make, traces: dict[str, Path], tmp_path: Path) -> None:
    """A run being written is followed until the user goes back, and from `F` on again."""
    path = tmp_path / "live.zarr"
    shutil.copytree(traces["normal"], path)
    cut(path, 2, "recording")
    app = browser(path)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        assert "● LIVE 2/6" in text(pilot, "#header")
        assert scene(pilot).step == 1 and scene(pilot).following
        cut(path, 3, "recording")
        await until(pilot, lambda: scene(pilot).snapshot.steps == 3)
        assert scene(pilot).step == 2
        await pilot.press("left_square_bracket")
        cut(path, 5, "recording")
        await until(pilot, lambda: scene(pilot).snapshot.steps == 5)
        assert scene(pilot).step == 1
        await pilot.press("F")
        assert scene(pilot).step == 4 and scene(pilot).following
        cut(path, 6, "complete")
        await until(pilot, lambda: not scene(pilot).snapshot.is_live)
        assert scene(pilot).step == 5
        assert "complete" in text(pilot, "#header")


def dead_process() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        return child.pid


async def test_the_writer_dies(browser: Make, traces: dict[str, Path], tmp_path: Path) -> None:
    """A run whose process has ended without a word is interrupted, with the steps it came to."""
    path = tmp_path / "dead.zarr"
    shutil.copytree(traces["normal"], path)
    cut(path, 2, "recording")
    async with browser(path).run_test(size=SIZE) as pilot:
        await pilot.pause()
        assert "● LIVE 2/6" in text(pilot, "#header")
        assert "◐" in text(pilot, "#steps")
        document = json.loads((path / "zarr.json").read_text())
        document["attributes"]["process"] = describe_process() | {"pid": dead_process()}
        (path / "zarr.json").write_text(json.dumps(document))
        await until(pilot, lambda: not scene(pilot).snapshot.is_live)
        assert "◼ interrupted 2/6" in text(pilot, "#header")
        assert "the process that wrote this has ended" in text(pilot, "#steps")
        assert "◐" not in text(pilot, "#steps")


async def test_a_quiet_run(browser: Make, traces: dict[str, Path], tmp_path: Path) -> None:
    """Where nothing tells whether the writer lives, the header says for how long nothing has come."""
    path = tmp_path / "quiet.zarr"
    shutil.copytree(traces["normal"], path)
    cut(path, 2, "recording")
    for file in [path / "zarr.json", *(path / "committed").iterdir()]:
        os.utime(file, (time.time() - 310, time.time() - 310))
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["process"] = describe_process() | {"machine": "another"}
    (path / "zarr.json").write_text(json.dumps(document))
    os.utime(path / "zarr.json", (time.time() - 310, time.time() - 310))
    async with browser(path).run_test(size=SIZE) as pilot:
        await pilot.pause()
        assert "nothing new for 5 min 2/6" in text(pilot, "#header")


async def test_steps_that_came_while_looking_back(browser: Make, traces: dict[str, Path], tmp_path: Path) -> None:
    """Whoever goes back is told how many steps have come since, and `F` shows the newest."""
    path = tmp_path / "live.zarr"
    shutil.copytree(traces["normal"], path)
    cut(path, 2, "recording")
    async with browser(path).run_test(size=SIZE) as pilot:
        await pilot.press("left_square_bracket")
        assert "F to follow" in text(pilot, "#steps")
        cut(path, 5, "recording")
        await until(pilot, lambda: scene(pilot).snapshot.steps == 5)
        assert scene(pilot).step == 0
        assert "▲ 3 new steps – F" in text(pilot, "#steps")
        await pilot.press("F")
        assert scene(pilot).step == 4 and scene(pilot).unseen == 0


async def test_nothing_new_is_nothing_read(traces: dict[str, Path]) -> None:
    """Looking again at a trace that has not changed gives back the same object, at the cost of a small file."""
    loader = Loader(open_trace(traces["normal"]))
    assert loader.snapshot(refresh=True) is loader.snapshot(refresh=True)


def test_documented_keys() -> None:
    """docs/viewer.md holds the tables that are made from the bindings."""
    text = (Path(__file__).parents[2] / "docs" / "viewer.md").read_text(encoding="utf-8")
    assert key_table() in text, "run python -m diffusion_xray.viewer.key_table, and put its output into the page"


def test_every_key_is_described() -> None:
    """Each key of each view has an id of its own, and a tooltip."""
    keys = [*KEYS, *(key for view in BUILT_IN for key in view.keys)]
    assert all(key.id and key.tooltip for key in keys)
    assert len({key.id for key in keys}) == len(keys)


async def test_footer(browser: Make) -> None:
    """The line at the bottom names the keys that fit, and a click presses one."""
    async with browser("normal").run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        line = text(pilot, "#footer")
        assert "[ ] Step" in line and "? Help" in line and "ctrl+p" in line
        await pilot.click("#footer", offset=(2, 0))
        assert scene(pilot).step == 5
        await pilot.click("#footer", offset=(line.index("Play"), 0))
        assert scene(pilot).playing

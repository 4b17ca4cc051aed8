"""A trace is untrusted: whatever its texts hold, nothing of it reaches the terminal but letters."""

import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from textual.pilot import Pilot

from diffusion_xray.tracer import open_trace
from diffusion_xray.tracer.cli import main
from diffusion_xray.tracer.info import printable
from diffusion_xray.viewer.app import Browser
from diffusion_xray.viewer.export.formats import FORMATS
from diffusion_xray.viewer.export.selection import Selection
from diffusion_xray.viewer.loader import Loader
from diffusion_xray.viewer.opening import find_opening
from diffusion_xray.viewer.screens.export import CopyMenu, ExportMenu

from .hostile import HOSTILE, make_hostile
from .terminal import Terminal, strangers

SHOWN = printable(HOSTILE)
LAYER = f"unet.mid_block{HOSTILE}"


@pytest.fixture(scope="session")
def hostile(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace of the embedded model with hostile texts everywhere."""
    return make_hostile(
        embedded, tmp_path_factory.mktemp("hostile") / f"run{HOSTILE.replace('/', '').replace(chr(0), '')}.zarr"
    )


@pytest.mark.parametrize(
    "command",
    [
        "info",
        "ls",
        "stats",
        "attention",
        "check --attention",
        "info --json",
        "ls --json",
        "stats --json",
        "attention --json",
        "check --attention --json",
        "attention --word circle",
        "stats unet.nowhere",
        "view --layer unet.nowhere",
    ],
)
def test_commands(hostile: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    """No command prints a control character, in text, as JSON or as an error; markup is text."""
    name, *options = command.split()
    main([name, str(hostile), *options])
    printed = "".join(capsys.readouterr())
    assert printed and all(sign.isprintable() or sign == "\n" for sign in printed)
    if "--json" in options:
        assert "check" in command or "\\u001b]52" in printed
    else:
        assert "\\x1b]52" in printed


def test_every_part_was_reached(hostile: Path) -> None:
    """The fixture is hostile in names, classes, dimensions, tokens, prompts, gaps, taps and errors."""
    trace = open_trace(hostile)
    module = trace.modules[LAYER]
    [first, *_] = trace.prompts
    texts = [module.module_class, *module.site.dims, module.site.torch_dtype, first.text[0], first.tokens[0][1]]
    texts += [str(gap["reason"]) for gap in trace.info.gaps]
    texts += [str(tap["error"]) for tap in trace.info.tap_failures]
    texts += [str(trace.info.error["message"]), trace.info.pipeline, trace.info.status, *trace.info.taps]
    assert [text for text in texts if HOSTILE not in text] == []


@pytest.mark.parametrize("size", [(200, 50), (80, 24)], ids=str)
def test_browser(hostile: Path, size: tuple[int, int]) -> None:
    """In a terminal every view, the filter, the help and the palette send nothing but what Textual draws with."""
    with Terminal(["view", str(hostile)], folder=hostile.parent, size=size, COLORTERM="truecolor") as terminal:
        terminal.until("\\x1b]52")
        for keys in ("1", "2", "3", "4", "5", "6", "7", "o", "n", "c", "m", "m", "\x1b[B\x1b[B", "b", "b", "?", "?"):
            terminal.press(keys)
            terminal.settle()
        terminal.press("/")
        terminal.until("words of a layer's name")
        terminal.press("mid_block")
        terminal.settle()
        terminal.press("\x1b")
        terminal.settle()
        terminal.press("\x10")
        terminal.settle()
        terminal.press("mid block")
        terminal.until("unet.mid_block\\x1b")
        terminal.press("\x1b")
        terminal.settle()
        assert strangers(terminal.sent) == []
        assert terminal.leave() == 0
        assert strangers(terminal.sent) == []


def test_strangers_are_found() -> None:
    """The check that the tests above rely on sees every kind of sequence that is not Textual's."""
    for sequence in (
        "\x1b]52;c;aGk=\x07",
        "\x1b]0;x\x1b\\",
        "\x1b[5n",
        "\x9b2J",
        "\u202e",
        "\x07",
        "\x7f",
        "\x1bP1q\x1b\\",
    ):
        assert strangers(f"before{sequence}after".encode()), repr(sequence)
    assert strangers(b"\x1b[38;2;1;2;3mtext\x1b[0m\x1b[1;1H\x1b[?25l\r\n") == []


def chosen(path: Path, layer: str = LAYER) -> Selection:
    """A layer of a trace, as the menus get it."""
    trace = open_trace(path)
    snapshot = Loader(trace).snapshot()
    site = find_opening(snapshot, layer=layer).site
    return Selection(str(path), snapshot, site, 1)


@pytest.mark.parametrize("suffix", [".py", ".sh", ".statistics.csv"])
def test_exported_text(hostile: Path, suffix: str) -> None:
    """Code, command and table hold no control character, whatever trace and layer are called."""
    make = next(form.make for form in FORMATS if form.suffix == suffix)
    assert make is not None
    text = make(chosen(hostile)).decode()
    assert all(sign.isprintable() or sign == "\n" for sign in text)
    if suffix == ".py":
        compile(text, "snippet", "exec")


async def shown(pilot: Pilot[None]) -> str:
    """The screen as the text of its SVG, which has to be well-formed."""
    await pilot.pause(0.2)
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()
    svg = pilot.app.export_screenshot()
    return "".join(ET.fromstring(svg).itertext()).replace("\xa0", " ")


async def test_screens_and_pictures_of_them(hostile: Path) -> None:
    """Menus, toasts and the SVG of the screen show escapes as text, and markup as it is written."""
    loader = Loader(open_trace(hostile))
    app = Browser(loader, find_opening(loader.snapshot(), layer=LAYER), shade=False)
    async with app.run_test(size=(400, 40)) as pilot:
        texts = [await shown(pilot)]
        for menu in (ExportMenu(chosen(hostile)), CopyMenu(chosen(hostile))):
            app.push_screen(menu)
            texts.append(await shown(pilot))
            await pilot.press("escape")
        app.push_screen(ExportMenu(chosen(hostile), folder=f"none{HOSTILE}"))
        await pilot.pause()
        await pilot.press("c")
        texts.append(await shown(pilot))
        for text in texts:
            assert "\\x1b]52" in text
            assert all(sign.isprintable() or sign == "\n" for sign in text)
        assert SHOWN in texts[0] and "[red]markup[/red]" in texts[0]


async def test_copies_are_safe_to_paste(hostile: Path) -> None:
    """Nothing that is copied can end a paste or run by itself: it is text and line ends."""
    loader = Loader(open_trace(hostile))
    app = Browser(loader, find_opening(loader.snapshot(), layer=LAYER), shade=False)
    async with app.run_test(size=(120, 40)) as pilot:
        for key in ("v", "p", "t", "c", "y"):
            app.push_screen(CopyMenu(chosen(hostile)))
            await pilot.pause()
            await pilot.press(key)
            await pilot.pause()
            assert app.clipboard and all(sign.isprintable() or sign == "\n" for sign in app.clipboard)
            assert key == "y" or "\n" not in app.clipboard


async def test_broken_chunk(browser: Callable[..., Browser], traces: dict[str, Path], tmp_path: Path) -> None:
    """A chunk that cannot be read is a "?" and a toast in one view; the others go on."""
    path = tmp_path / "broken.zarr"
    shutil.copytree(traces["normal"], path)
    for chunk in (path / open_trace(path).site("unet.conv_in").array).glob("c*"):
        chunk.write_bytes(chunk.read_bytes()[:-40])
    async with browser(path, layer="unet.conv_in", step=5, tab="image").run_test(size=(120, 40)) as pilot:
        assert "?" in await shown(pilot)
        assert [note.title for note in pilot.app._notifications] == ["Not readable"]
        await pilot.press("1")
        assert "std over steps" in await shown(pilot)
        await pilot.press("4", "down")
        assert "feature map" in await shown(pilot)

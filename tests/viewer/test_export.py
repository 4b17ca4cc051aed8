"""What leaves the browser: files, commands, code, clipboard."""

import csv
import inspect
import io
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import textual
from numpy.typing import NDArray
from PIL import Image
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Input

from diffusion_xray.tracer import open_trace
from diffusion_xray.tracer.cli import command_parser
from diffusion_xray.tracer.errors import SiteNotFoundError, StoreError
from diffusion_xray.tracer.info import SiteInfo
from diffusion_xray.tracer.layout import MEASURED
from diffusion_xray.viewer.app import Browser
from diffusion_xray.viewer.export.files import write_new
from diffusion_xray.viewer.export.formats import FORMATS, Format
from diffusion_xray.viewer.export.selection import Selection
from diffusion_xray.viewer.export.sheet import Taken
from diffusion_xray.viewer.export.text import file_stem, full_path, quoted, snippet, view_command
from diffusion_xray.viewer.loader import Loader
from diffusion_xray.viewer.look import Look
from diffusion_xray.viewer.opening import find_opening
from diffusion_xray.viewer.palette import FAULT
from diffusion_xray.viewer.planes import plane_of
from diffusion_xray.viewer.screens.export import CopyMenu, ExportMenu

Select = Callable[..., Selection]
DRAWN_WITH = "8.2.8"
NASTY = 'it\'s; $(touch x) `y` "q" \\ \n\x1b[31m ü\u202e -x'


@pytest.fixture
def select(traces: dict[str, Path]) -> Select:
    """Choose a layer of one of the traces, or of a path."""

    def make(trace: str | Path, layer: str = "unet.down_blocks.0", step: int = 3, **options: Any) -> Selection:
        path = traces[trace] if isinstance(trace, str) else trace
        opened = open_trace(path)
        snapshot = Loader(opened).snapshot()
        site = find_opening(snapshot, layer=layer).site

        def read() -> NDArray[Any] | None:
            return opened.tensor(site, step) if site is not None else None

        return Selection(full_path(str(path)), snapshot, site, step, read=read, **options)

    return make


def form(suffix: str) -> Format:
    """The format with an ending."""
    return next(form for form in FORMATS if form.suffix == suffix)


def made(selection: Selection, suffix: str) -> bytes:
    """The bytes of a format."""
    make = form(suffix).make
    assert make is not None
    return make(selection)


def test_tensor(select: Select, traces: dict[str, Path]) -> None:
    """The NPY file holds the tensor of the step, bit for bit, and is read without pickle."""
    kept = np.load(io.BytesIO(made(select("normal"), ".npy")), allow_pickle=False)
    trace = open_trace(traces["normal"])
    np.testing.assert_array_equal(kept, trace.tensor(trace.site("unet.down_blocks.0"), 3))


def test_picture(select: Select) -> None:
    """Every value of the plane is a square of the same whole number of pixels, in the colours of the map."""
    selection = select("normal", tab="image", look=Look(channel=2, batch=1))
    picture = np.asarray(Image.open(io.BytesIO(made(selection, ".png"))))
    factor = 512 // 8
    left = (picture.shape[1] - 512) // 2
    plane = picture[72 : 72 + 512, left : left + 512].reshape(8, factor, 8, factor, 3)
    assert (plane == plane[:, :1, :, :1]).all()
    brightest = np.unravel_index(selection.shown().values.argmax(), (8, 8))
    assert tuple(plane[brightest[0], 0, brightest[1], 0]) == (253, 231, 37)


def test_picture_of_faults(select: Select) -> None:
    """What is not finite is magenta, also where nothing is finite."""
    selection = select("faulty", "unet.down_blocks.1", 5)
    assert not np.isfinite(selection.shown().values).any()
    picture = np.asarray(Image.open(io.BytesIO(made(selection, ".png"))))
    assert (picture == FAULT).all(axis=-1).sum() == 512 * 512


def test_values_of_the_plane(select: Select) -> None:
    """The CSV of the plane gives back its exact values."""
    selection = select("normal", look=Look(channel=1))
    values = np.loadtxt(io.StringIO(made(selection, ".plane.csv").decode()), delimiter=",")
    np.testing.assert_array_equal(values, selection.shown().values)


def test_statistics(select: Select) -> None:
    """The CSV of the statistics has a line a step, with timestep and exact numbers."""
    selection = select("statistics")
    rows = list(csv.DictReader(io.StringIO(made(selection, ".statistics.csv").decode())))
    assert [row["step"] for row in rows] == list("012345")
    assert float(rows[2]["timestep"]) == 700.0
    assert list(rows[0])[3:] == list(MEASURED)
    assert selection.site is not None
    assert [float(row["std"]) for row in rows] == selection.snapshot.series(selection.site, "std").tolist()


@pytest.mark.parametrize(("trace", "suffix"), [("statistics", ".png"), ("statistics", ".npy"), ("empty", ".plane.csv")])
def test_nothing_to_export(select: Select, trace: str, suffix: str) -> None:
    """What was not kept is refused with the reason that the menu shows."""
    selection = select(trace, "" if trace == "empty" else "unet.mid_block")
    reason = form(suffix).why_not(selection)
    assert reason
    with pytest.raises(SiteNotFoundError, match=reason):
        made(selection, suffix)


def run(code: str) -> dict[str, Any]:
    """The names that some code leaves."""
    names: dict[str, Any] = {}
    exec(compile(code, "snippet", "exec"), names)
    return names


def test_snippet_of_a_plane(select: Select) -> None:
    """Run, the code of the image view gives the plane that is shown."""
    selection = select("normal", tab="image", look=Look(channel=6, batch=3))
    np.testing.assert_array_equal(run(snippet(selection))["plane"], selection.shown().values)


@pytest.mark.parametrize(
    "shape", [(2, 3, 8, 8), (2, 9, 4), (2, 10, 4), (2, 5), (7,), (), (2, 3, 2, 4, 4), (0, 3, 4, 4)], ids=str
)
def test_snippet_picks_as_the_view_does(select: Select, shape: tuple[int, ...]) -> None:
    """Whatever the shape, the code picks from the tensor what the picture shows."""
    selection = select("normal", tab="image", look=Look(channel=5, batch=1))
    assert selection.site is not None
    selection = replace(selection, site=replace(selection.site, shape=shape))
    pick = snippet(selection).splitlines()[-1].removeprefix("plane = tensor.values")
    values = np.arange(np.prod(shape, dtype=int), dtype=np.float64).reshape(shape)
    assert selection.site is not None
    shown = plane_of(values, selection.site, selection.look).values
    np.testing.assert_array_equal(eval(f"values{pick}", {"values": values}), shown)


@pytest.mark.parametrize(("tab", "name"), [("overview", "std"), ("stats", "std"), ("hist", "histogram")])
def test_snippet_of_statistics(select: Select, tab: str, name: str) -> None:
    """Run, the code of the other views gives the series, or the histogram of the step."""
    selection = select("normal", tab=tab)
    value = run(snippet(selection))[name]
    assert selection.site is not None
    if name == "std":
        np.testing.assert_array_equal(value.values, selection.snapshot.series(selection.site, "std"))
    else:
        assert value.counts.sum() == 2 * 4 * 8 * 8


def test_snippet_of_a_view(select: Select, traces: dict[str, Path]) -> None:
    """A view that knows better gives its own lines, which find the open trace."""
    names = run(snippet(select("normal", taken=Taken(python="steps = trace.n_steps"))))
    assert names["steps"] == 6


def test_snippet_without_a_layer(select: Select) -> None:
    """An empty trace has code as well."""
    assert "open_trace" in snippet(select("empty", ""))


def parsed(command: str, folder: Path) -> list[str]:
    """The words that a shell makes of a command line."""
    script = f"dxray() {{ printf '%s\\0' \"$@\"; }}\n{command}"
    out = subprocess.run(["bash", "-c", script], capture_output=True, check=True, cwd=folder)
    assert out.stderr == b"" and not list(folder.iterdir())
    return [os.fsdecode(word) for word in out.stdout.split(b"\0")[:-1]]


@pytest.mark.parametrize("tab", ["overview", "stats", "hist", "image"])
def test_command_opens_here(select: Select, tmp_path: Path, tab: str) -> None:
    """The command, parsed as the command line does, opens the same tensor, step and view."""
    selection = select("normal", "unet.down_blocks.0.act", 4, tab=tab)
    words = parsed(view_command(selection), tmp_path)
    options = command_parser().parse_args(words)
    assert open_trace(options.trace).name == "normal.zarr"
    opening = find_opening(selection.snapshot, layer=options.layer, step=options.step, tab=options.tab)
    assert (opening.site, opening.step, opening.tab) == (selection.site, 4, tab)


def test_command_names_the_tensor(select: Select, tmp_path: Path) -> None:
    """A tensor that is not the layer's first output is named as `dxray ls` does."""
    selection = select("normal")
    assert selection.site is not None
    layer = selection.snapshot.layers["unet.down_blocks.0"]
    assert layer.module is not None
    second = replace(selection.site, call=1)
    module = replace(layer.module, sites=(*layer.module.sites, second))
    layers = {**selection.snapshot.layers, layer.name: replace(layer, module=module)}
    selection = replace(selection, site=second, snapshot=replace(selection.snapshot, layers=layers))
    options = command_parser().parse_args(parsed(view_command(selection), tmp_path))
    assert options.layer == "unet.down_blocks.0:output_call1"
    assert find_opening(selection.snapshot, layer=options.layer).site == second


@pytest.mark.parametrize("name", [NASTY, "--json", "-", "\udcff"], ids=ascii)
def test_command_is_quoted(select: Select, tmp_path: Path, name: str) -> None:
    """No name of a trace or a layer can run anything, hide anything, or be taken for an option."""
    selection = select("normal")
    assert selection.site is not None
    site = replace(selection.site, name=f"-unet.{name}")
    command = view_command(replace(selection, trace=name, site=site))
    assert command.isprintable()
    options = command_parser().parse_args(parsed(command, tmp_path))
    assert (options.trace, options.layer) == (name, f"-unet.{name}:output")


def test_plain_words_stay_plain() -> None:
    """What needs no quotes has none."""
    assert quoted(["dxray", "view", "a b", "run.zarr"]) == "dxray view 'a b' run.zarr"
    assert shlex.split(quoted(["a'b", "ü"])) == ["a'b", "ü"]


@pytest.mark.parametrize("name", [NASTY, "../../etc/passwd", "", "." * 500, "a/b\0c", "unet." + "x" * 5000], ids=ascii)
def test_file_names_are_safe(select: Select, tmp_path: Path, name: str) -> None:
    """Whatever a layer is called, its file lies in the folder and has a plain name."""
    selection = select("normal")
    assert selection.site is not None
    site: SiteInfo = replace(selection.site, name=name)
    stem = file_stem(replace(selection, site=site, snapshot=replace(selection.snapshot, title=name)))
    path = write_new(tmp_path, stem, ".png", b"data")
    assert path.parent == tmp_path and [path] == list(tmp_path.iterdir())
    assert path.name[0] not in ".-" and path.name.isascii() and len(path.name) < 200


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A name that is taken gets a number, also where a link is in the way."""
    (tmp_path / "a.png").write_bytes(b"old")
    (tmp_path / "a-2.png").symlink_to(tmp_path / "elsewhere")
    path = write_new(tmp_path, "a", ".png", b"new")
    assert path.name == "a-3.png" and path.read_bytes() == b"new"
    assert (tmp_path / "a.png").read_bytes() == b"old" and not (tmp_path / "elsewhere").exists()


def test_no_such_folder(tmp_path: Path) -> None:
    """A folder that is not there, or is a file, is told in one line."""
    (tmp_path / "file").touch()
    for folder in (tmp_path / "none", tmp_path / "file", "\0"):
        with pytest.raises(StoreError, match="cannot write into") as caught:
            write_new(folder, "a", ".png", b"")
        assert "\n" not in str(caught.value)


def files_in(folder: Path) -> list[Path]:
    """What was written."""
    return sorted(folder.iterdir())


async def opened(pilot: Pilot[None], menu: ExportMenu | CopyMenu) -> None:
    """Push a menu, and wait until it is there."""
    await pilot.pause(0.2)
    await pilot.app.workers.wait_for_complete()
    pilot.app.push_screen(menu)
    await pilot.pause(0.1)


def notes(pilot: Pilot[None]) -> str:
    """What toasts say."""
    return "\n".join(note.message for note in pilot.app._notifications)


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.suffix)
async def test_menu_writes(browser: Callable[..., Browser], select: Select, tmp_path: Path, kind: Format) -> None:
    """The letter of each format writes one file, says where, and leaves the menu."""
    app = browser("normal", layer="unet.down_blocks.0", step=3)
    async with app.run_test(size=(100, 30)) as pilot:
        await opened(pilot, ExportMenu(select("normal"), folder=str(tmp_path)))
        await pilot.press(kind.key)
        await app.workers.wait_for_complete()
        await pilot.pause(0.2)
        path = tmp_path / f"normal-unet.down_blocks.0-step3{kind.suffix}"
        assert path.stat().st_size and files_in(tmp_path) == [path]
        assert f"written to {path}" in notes(pilot)
        assert not isinstance(app.screen, ExportMenu)


async def test_menu_keeps_what_is_there(browser: Callable[..., Browser], select: Select, tmp_path: Path) -> None:
    """A second export goes into another file, and the toast says that the first is untouched."""
    async with browser("normal").run_test(size=(100, 30)) as pilot:
        for _ in range(2):
            await opened(pilot, ExportMenu(select("normal"), folder=str(tmp_path)))
            await pilot.press("y")
            await pilot.app.workers.wait_for_complete()
            await pilot.pause(0.1)
        assert "untouched" in notes(pilot)
        assert len(files_in(tmp_path)) == 2


async def test_picture_of_the_screen_is_without_the_menu(
    browser: Callable[..., Browser], select: Select, tmp_path: Path
) -> None:
    """The SVG shows the screen below, not the menu that asked for it."""
    async with browser("normal", layer="unet.down_blocks.0").run_test(size=(100, 30)) as pilot:
        await opened(pilot, ExportMenu(select("normal"), folder=str(tmp_path)))
        await pilot.press("s")
        await pilot.pause(0.2)
        text = files_in(tmp_path)[0].read_text(encoding="utf-8")
        assert "unet.down_blocks.0" in text and "Picture&#160;of" not in text


async def test_menu_folder(browser: Callable[..., Browser], select: Select, tmp_path: Path) -> None:
    """Another folder can be typed; one that cannot be written is told in one line and the browser goes on."""
    app = browser("normal")
    async with app.run_test(size=(100, 30)) as pilot:
        await opened(pilot, ExportMenu(select("normal"), folder=str(tmp_path / "none")))
        await pilot.press("c")
        await app.workers.wait_for_complete()
        await pilot.pause(0.1)
        assert "cannot write into" in notes(pilot)
        await opened(pilot, ExportMenu(select("normal"), folder=""))
        await pilot.press("tab")
        field = app.screen.query_one("#folder", Input)
        assert field.has_focus
        field.value = str(tmp_path)
        await pilot.press("enter", "c")
        await app.workers.wait_for_complete()
        assert len(files_in(tmp_path)) == 1


async def test_menu_says_why_not(browser: Callable[..., Browser], select: Select, tmp_path: Path) -> None:
    """What cannot be exported is there with its reason, and its letter does nothing."""
    app = browser("statistics")
    async with app.run_test(size=(100, 30)) as pilot:
        await opened(pilot, ExportMenu(select("statistics"), folder=str(tmp_path)))
        assert "only&#160;statistics&#160;were&#160;kept" in app.export_screenshot()
        await pilot.press("p", "t", "v")
        await pilot.pause(0.1)
        assert isinstance(app.screen, ExportMenu) and not files_in(tmp_path)


async def test_broken_chunk(
    browser: Callable[..., Browser], select: Select, traces: dict[str, Path], tmp_path: Path
) -> None:
    """A tensor that cannot be read is told in a toast, and nothing is left behind."""
    path = tmp_path / "broken.zarr"
    shutil.copytree(traces["normal"], path)
    selection = select(path)
    assert selection.site is not None
    for chunk in (path / selection.site.array).glob("c*"):
        chunk.write_bytes(chunk.read_bytes()[:20] + b"\xff" * 64)
    (tmp_path / "out").mkdir()
    async with browser("normal").run_test(size=(100, 30)) as pilot:
        await opened(pilot, ExportMenu(selection, folder=str(tmp_path / "out")))
        await pilot.press("t")
        await pilot.app.workers.wait_for_complete()
        await pilot.pause(0.1)
        assert [note.title for note in pilot.app._notifications] == ["Not exported"]
        assert not files_in(tmp_path / "out")


@pytest.mark.parametrize("key", ["v", "p", "t", "c", "y"])
async def test_copy(browser: Callable[..., Browser], select: Select, key: str) -> None:
    """Each letter hands its text to the terminal's clipboard."""
    app, selection = browser("normal"), select("normal", tab="image")
    async with app.run_test(size=(100, 30)) as pilot:
        await opened(pilot, CopyMenu(selection))
        await pilot.press(key)
        await pilot.pause(0.1)
        texts = {"v": selection.number(), "p": "unet.down_blocks.0", "t": selection.trace}
        texts |= {"c": view_command(selection), "y": snippet(selection)}
        assert app.clipboard == texts[key]
        assert "copied" in notes(pilot) and not isinstance(app.screen, CopyMenu)


async def test_copy_the_value_under_the_cursor(browser: Callable[..., Browser], select: Select) -> None:
    """A view with a cursor gives its value; without one it is the statistic, exactly."""
    selection = select("normal")
    assert selection.site is not None
    assert float(selection.number()) == selection.snapshot.at(selection.site, 3)["std"]
    async with browser("normal").run_test(size=(100, 30)) as pilot:
        await opened(pilot, CopyMenu(replace(selection, value="0.031")))
        await pilot.press("v")
        assert pilot.app.clipboard == "0.031"


async def test_escape_leaves(browser: Callable[..., Browser], select: Select, tmp_path: Path) -> None:
    """Escape leaves a menu with nothing done."""
    async with browser("normal").run_test(size=(80, 24)) as pilot:
        for menu in (ExportMenu(select("normal"), folder=str(tmp_path)), CopyMenu(select("normal"))):
            await opened(pilot, menu)
            await pilot.press("escape")
            await pilot.pause()
            assert pilot.app.screen is not menu
        assert not files_in(tmp_path) and pilot.app.clipboard == ""


class Page(Browser):
    """The browser as it is behind a web page, with what that would download."""

    CSS_PATH = str(Path(inspect.getfile(Browser)).with_name("app.tcss"))
    delivered: tuple[str, bytes] = ("", b"")

    @property
    def is_web(self) -> bool:
        """Behind a page."""
        return True

    def deliver_binary(self, path_or_file: Any, **options: Any) -> str | None:
        """Keep what is downloaded."""
        self.delivered = (options["save_filename"], path_or_file.read())
        return None


async def test_a_web_page_downloads(select: Select, traces: dict[str, Path], tmp_path: Path) -> None:
    """Behind a web page nothing is written where the trace lies: the file goes to whoever looks at the page."""
    loader = Loader(open_trace(traces["normal"]))
    app = Page(loader, find_opening(loader.snapshot()), shade=False)
    async with app.run_test(size=(100, 30)) as pilot:
        for key, suffix in (("y", ".py"), ("s", ".svg")):
            await opened(pilot, ExportMenu(select("normal"), folder=str(tmp_path)))
            assert not app.screen.query("#folder")
            await pilot.press(key)
            await app.workers.wait_for_complete()
            await pilot.pause(0.2)
            assert app.delivered[0] == f"normal-unet.down_blocks.0-step3{suffix}" and app.delivered[1]
        assert not files_in(tmp_path)


class Alone(App[None]):
    """A menu with nothing below it."""

    def __init__(self, menu: ExportMenu | CopyMenu) -> None:
        super().__init__()
        self._menu = menu

    def on_mount(self) -> None:
        """Show the menu."""
        self.push_screen(self._menu)


@pytest.mark.skipif(textual.__version__ != DRAWN_WITH, reason=f"pictures are of textual {DRAWN_WITH}")
@pytest.mark.parametrize("size", [(100, 30), (60, 16)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("menu", [ExportMenu, CopyMenu], ids=["export", "copy"])
@pytest.mark.parametrize("trace", ["normal", "statistics"])
def test_menus(
    snap_compare: Callable[..., bool],
    select: Select,
    trace: str,
    menu: type[ExportMenu | CopyMenu],
    size: tuple[int, int],
) -> None:
    """The menus look as they did, in a window as small as the browser takes."""
    selection = replace(select(trace), trace=f"{trace}.zarr")
    assert snap_compare(Alone(menu(selection)), terminal_size=size)

"""What is exported of an attention map: picture, numbers, and code that computes the same."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from textual.pilot import Pilot

from diffusion_xray.tracer import open_trace
from diffusion_xray.viewer.app import Browser
from diffusion_xray.viewer.export.formats import FORMATS
from diffusion_xray.viewer.export.selection import Selection
from diffusion_xray.viewer.export.text import file_stem, snippet
from diffusion_xray.viewer.loader import Loader
from diffusion_xray.viewer.reader import Reader
from diffusion_xray.viewer.views.attention_code import code_of
from diffusion_xray.viewer.views.attention_read import read_attention
from diffusion_xray.viewer.views.attention_seen import Seen
from diffusion_xray.viewer.views.attention_wish import Wish
from diffusion_xray.viewer.views.protocol import Request

from ..attending import Call, made_trace
from .exporting import exported as after_keys

Make = Callable[..., Browser]
TOKENS = ["<|startoftext|>", "an</w>", "ot", "ter</w>", "red</w>", "<|endoftext|>", "<|endoftext|>"]


def draw(*shape: int) -> NDArray[np.float32]:
    """Normal numbers, the same for a shape each time."""
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="session")
def attending(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Attention to words on two grids, of places to each other, of both, of a video, and of tokens."""
    text = [("text", (7,))]
    calls = [
        Call("made.small", draw(3, 2, 3, 6, 4), draw(3, 2, 3, 7, 4), [("image", (2, 3))], text),
        Call("made.large", draw(3, 2, 3, 24, 4), draw(3, 2, 3, 7, 4), [("image", (4, 6))], text),
        Call("made.own", draw(3, 2, 3, 24, 4), draw(3, 2, 3, 24, 4), [("image", (4, 6))], [("image", (4, 6))]),
        Call(
            "made.joint",
            draw(3, 2, 3, 31, 4),
            draw(3, 2, 3, 31, 4),
            [*text, ("image", (4, 6))],
            [*text, ("image", (4, 6))],
        ),
        Call("video.cross", draw(3, 2, 3, 48, 4), draw(3, 2, 3, 7, 4), [("image", (2, 4, 6))], text),
        Call("video.self", draw(3, 2, 3, 48, 4), draw(3, 2, 3, 48, 4), [("image", (2, 4, 6))], [("image", (2, 4, 6))]),
        Call("tokens.own", draw(3, 2, 3, 7, 4), draw(3, 2, 3, 7, 4), text, text),
    ]
    path = tmp_path_factory.mktemp("attending") / "attending.zarr"
    made_trace(
        path,
        calls,
        prompts=[("text_encoder", "an otter red", [TOKENS])],
        arguments={"prompt": "an otter red"},
        guidance={name: {"batch": ["unconditional", "conditional"]} for name in ("made", "video")},
        captured=[0, 1, 2],
    )
    return path


def read(path: Path, layer: str, **wish: Any) -> Seen:
    """What the view reads, to its end."""
    loader = Loader(open_trace(path))
    site = loader.trace.modules[layer].site
    for _ in range(500):
        found = read_attention(Reader(loader, lambda: False), Request(site, 1, 3, Wish(**wish)))
        assert isinstance(found, Seen)
        if not found.further:
            return found
    pytest.fail("it never came to an end")


def run(code: str, path: Path) -> dict[str, Any]:
    """The names that some code leaves, with the trace open."""
    names: dict[str, Any] = {"trace": open_trace(path)}
    exec(compile(code, "snippet", "exec"), names)
    return names


@pytest.mark.parametrize("heads", ["mean", "max", "single"])
@pytest.mark.parametrize(
    ("layer", "wish"),
    [
        ("made.small", {"word": "otter"}),
        ("made.small", {"word": "otter", "added": ("red",)}),
        ("made.small", {"word": "otter", "wide": True}),
        ("made.own", {"place": (0.1, 0.9)}),
        ("made.own", {"place": (0.1, 0.9), "reverse": True}),
        ("made.own", {"place": (0.1, 0.9), "wide": True}),
        ("made.joint", {"word": "red", "entry": 0}),
        ("made.joint", {"places": True}),
        ("made.joint", {"places": True, "reverse": True}),
        ("video.cross", {"word": "otter"}),
        ("video.self", {"frame": 0}),
        ("video.self", {"frame": 0, "reverse": True}),
    ],
    ids=str,
)
def test_code_of_a_map(attending: Path, layer: str, wish: dict[str, Any], heads: str) -> None:
    """Run, the code gives the map that is shown, of words and places, of one layer and of the mean of several."""
    seen = read(attending, layer, heads=heads, head=1, **wish)
    assert seen.map is not None
    np.testing.assert_allclose(run(code_of(seen), attending)["plane"], seen.map, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("heads", ["mean", "max", "single"])
@pytest.mark.parametrize("reverse", [False, True])
def test_code_of_tokens(attending: Path, heads: str, reverse: bool) -> None:
    """Run, the code gives the bars that are shown of a token, whose pieces are joined."""
    seen = read(attending, "tokens.own", heads=heads, head=1, word="otter", reverse=reverse)
    assert seen.row is not None
    np.testing.assert_allclose(run(code_of(seen), attending)["row"], seen.row, rtol=1e-4, atol=1e-7)


def test_code_of_small_maps(attending: Path) -> None:
    """Run, the code gives every small map: those of the heads of a layer, and those of all layers."""
    one = read(attending, "made.small", word="otter", spread="heads")
    assert one.tiles is not None
    np.testing.assert_allclose(run(code_of(one), attending)["planes"], np.stack(one.tiles.maps[0]), rtol=1e-4)  # type: ignore[arg-type]
    every = read(attending, "made.small", word="otter", spread="layers")
    assert every.tiles is not None
    planes = run(code_of(every), attending)["planes"]
    assert [name for name, _ in planes] == list(every.tiles.rows)
    for found, shown in zip(planes.values(), every.tiles.maps, strict=True):
        np.testing.assert_allclose(found, np.stack(shown), rtol=1e-4)  # type: ignore[arg-type]


async def settle(pilot: Pilot[None]) -> None:
    """Wait until the map has been read and drawn, all parts of it."""
    for _ in range(100):
        await pilot.pause(0.1)
        await pilot.app.workers.wait_for_complete()
        await pilot.pause()
        shown = pilot.app.screen.scene  # type: ignore[attr-defined]
        if not shown.loading and not (isinstance(shown.found, Seen) and shown.found.further):
            return
    pytest.fail("it never came to an end")


async def exported(browser: Make, path: Path, layer: str, *keys: str) -> Selection:
    """What the export menu is handed after some keys."""
    return await after_keys(browser(path, tab="attention", layer=layer, step=1), keys, settle)


def why_not(selection: Selection, suffix: str) -> str:
    """The reason that the menu shows."""
    return next(form for form in FORMATS if form.suffix == suffix).why_not(selection)


def made(selection: Selection, suffix: str) -> bytes:
    """The bytes of a format, which the menu offers."""
    form = next(form for form in FORMATS if form.suffix == suffix)
    assert form.why_not(selection) == "" and form.make is not None
    return form.make(selection)


async def test_a_map_is_exported(browser: Make, attending: Path) -> None:
    """Picture, numbers and code of a map are those of the map; the caption says of what, and the file is named so."""
    selection = await exported(browser, attending, "made.large", "full_stop", "full_stop")
    caption = selection.sheet().caption
    assert caption.startswith("attention to ") and "head 1" in caption and "conditional" in caption and "4x6" in caption
    plane = np.load(io.BytesIO(made(selection, ".npy")))
    assert plane.shape == (4, 6)
    values = np.loadtxt(io.StringIO(made(selection, ".plane.csv").decode()), delimiter=",")
    np.testing.assert_allclose(values, plane, rtol=1e-6)
    np.testing.assert_allclose(run(snippet(selection), attending)["plane"], plane, rtol=1e-4)
    picture = np.asarray(Image.open(io.BytesIO(made(selection, ".png"))))
    y, x = np.unravel_index(plane.argmax(), plane.shape)
    left = (picture.shape[1] - 6 * 85) // 2
    assert tuple(picture[72 + y * 85 + 40, left + x * 85 + 40]) == (253, 231, 37)
    assert "-attention-" in file_stem(selection)


async def test_heads_are_exported(browser: Make, attending: Path) -> None:
    """Of small maps of heads, picture, array and CSV hold each head."""
    selection = await exported(browser, attending, "made.large", "z")
    assert [tile.label for tile in selection.sheet().tiles] == ["head 0", "head 1", "head 2"]
    assert np.load(io.BytesIO(made(selection, ".npy"))).shape == (3, 4, 6)
    assert made(selection, ".plane.csv").decode().splitlines()[4].startswith("head 1,0,")
    assert made(selection, ".png")


async def test_layers_are_exported(browser: Make, attending: Path) -> None:
    """Maps of layers on several grids are one picture and one CSV, but no one array."""
    selection = await exported(browser, attending, "made.large", "A")
    assert made(selection, ".png") and "made.small head 2,1," in made(selection, ".plane.csv").decode()
    assert why_not(selection, ".npy") == "layers differ in size; z shows those of one"


async def test_tokens_are_exported(browser: Make, attending: Path) -> None:
    """Bars of tokens are a CSV of a line below their names; they are no picture but that of the screen."""
    selection = await exported(browser, attending, "tokens.own")
    names, shares = made(selection, ".plane.csv").decode().splitlines()
    assert names.split(",")[1:3] == ["an", "otter"]
    np.testing.assert_allclose(sum(map(float, shares.split(","))), 1, rtol=1e-5)
    assert why_not(selection, ".png") == "bars are no map; s takes the screen"


async def test_a_map_that_is_not_there_yet(browser: Make, attending: Path) -> None:
    """While another step is read, the map of the one before is not exported in its name."""
    async with browser(attending, tab="attention", layer="made.large", step=1).run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        screen = pilot.app.screen
        screen.select(screen._site, 2)  # type: ignore[attr-defined]
        selection = screen._selection()  # type: ignore[attr-defined]
        for suffix in (".png", ".npy", ".plane.csv"):
            assert why_not(selection, suffix) == "the map is still being computed"

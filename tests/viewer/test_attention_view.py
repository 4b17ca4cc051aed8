"""The attention view: words, places, tokens; every key; what is said where there is nothing to see."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import textual
from numpy.typing import NDArray
from textual.pilot import Pilot

from diffusion_xray.tracer import Trace, Tracer, open_trace
from diffusion_xray.tracer.errors import SiteNotFoundError
from diffusion_xray.viewer.app import Browser
from diffusion_xray.viewer.command import View as Command
from diffusion_xray.viewer.loader import Loader
from diffusion_xray.viewer.opening import Opening, find_opening
from diffusion_xray.viewer.reader import Reader
from diffusion_xray.viewer.screens.main import MainScreen
from diffusion_xray.viewer.views.attention import ATTENTION
from diffusion_xray.viewer.views.attention_code import code_of
from diffusion_xray.viewer.views.attention_opening import with_attention
from diffusion_xray.viewer.views.attention_read import read_attention
from diffusion_xray.viewer.views.attention_seen import Offer, Seen
from diffusion_xray.viewer.views.attention_wish import Wish
from diffusion_xray.viewer.views.protocol import Missing, Request
from diffusion_xray.viewer.widgets.attention import AttentionPage
from diffusion_xray.viewer.widgets.attention_map import AttentionMap
from diffusion_xray.viewer.widgets.attention_words import WordList, bar, percent
from diffusion_xray.viewer.widgets.canvas import Canvas
from diffusion_xray.viewer.widgets.layer_tree import LayerTree

from ..attending import CROSS, SELF, Call, made_trace
from ..families import FAMILIES, Family, run

Make = Callable[..., Browser]
SIZE = (120, 40)
TEXT = "text_encoder.encoder.layers.1.self_attn"
VAE = "vae.decoder.mid_block.attentions.0"
ESCAPE = "\x1b[31mred\x1b[0m"
TOKENS = ["<|startoftext|>", "an</w>", "ot", "ter</w>", f"{ESCAPE}</w>", "<|endoftext|>", "<|endoftext|>"]
NEGATIVE = ["<|startoftext|>", "blurry</w>", *["<|endoftext|>"] * 5]


def draw(*shape: int) -> NDArray[np.float32]:
    """Normal numbers, the same for a shape each time."""
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Attention of every kind, four steps: cross, self, joint, video, of text, of a resampler, and linear."""
    image: list[tuple[str, Sequence[int]]] = [("image", (4, 6))]
    text: list[tuple[str, Sequence[int]]] = [("text", (7,))]
    calls = [
        Call("made.cross", draw(4, 2, 3, 24, 4), draw(4, 2, 3, 7, 4), image, text),
        Call("made.own", draw(4, 2, 3, 24, 4), draw(4, 2, 3, 24, 4), image, image),
        Call("made.joint", draw(4, 2, 3, 31, 4), draw(4, 2, 3, 31, 4), text + image, text + image),
        Call("made.video", draw(4, 2, 3, 48, 4), draw(4, 2, 3, 7, 4), [("image", (2, 4, 6))], text),
        Call("made.resampler", draw(4, 2, 3, 3, 4), draw(4, 2, 3, 5, 4), [("other", (3,))], [("other", (5,))]),
        Call(
            "made.linear",
            draw(4, 2, 3, 24, 4),
            draw(4, 2, 3, 24, 4),
            image,
            image,
            softmax=False,
            reason="it is linear",
        ),
    ]
    path = tmp_path_factory.mktemp("made") / "made.zarr"
    made_trace(
        path,
        calls,
        prompts=[("text_encoder", "an otter red", [TOKENS]), ("text_encoder", "blurry", [NEGATIVE])],
        arguments={"prompt": "an otter red", "negative_prompt": "blurry"},
        guidance={"made": {"batch": ["unconditional", "conditional"]}},
        captured=[0, 1, 3],
    )
    return path


def read(path: Path, layer: str, step: int = 1, **wish: Any) -> Any:
    """What the view reads, to its end."""
    loader = Loader(open_trace(path))
    site = loader.trace.modules[layer].site
    for _ in range(500):
        request = Request(site, step, loader.trace.n_steps, Wish(**wish))
        found = read_attention(Reader(loader, lambda: False), request)
        if not isinstance(found, Seen) or not found.further:
            return found
    pytest.fail("it never came to an end")


async def settle(pilot: Pilot[None]) -> None:
    """Wait until what was asked for has been read and drawn, all parts of it."""
    for _ in range(200):
        await pilot.pause(0.1)
        await pilot.app.workers.wait_for_complete()
        await pilot.pause()
        shown = screen(pilot).scene
        if not shown.loading and not (isinstance(shown.found, Seen) and shown.found.further):
            return
    pytest.fail("it never came to an end")


def screen(pilot: Pilot[None]) -> MainScreen:
    """The screen."""
    shown = pilot.app.screen
    assert isinstance(shown, MainScreen)
    return shown


def seen(pilot: Pilot[None]) -> Seen:
    """What was read."""
    found = screen(pilot).scene.found
    assert isinstance(found, Seen)
    return found


def text(pilot: Pilot[None], selector: str) -> str:
    """The characters of a widget."""
    canvas = pilot.app.screen.query_one(selector, Canvas)
    return "\n".join(canvas.render_line(y).text for y in range(canvas.size.height))


def the_map(pilot: Pilot[None]) -> str:
    """The characters right of the words."""
    return text(pilot, "#attention-map")


# What is read


def test_a_map_is_that_of_the_trace(embedded: Path) -> None:
    """The map of a word is the one that `Trace.word_map` computes, of one layer, of one head and of all layers."""
    trace = open_trace(embedded)
    cases: list[tuple[dict[str, Any], tuple[str, ...], dict[str, Any]]] = [
        ({}, (), {"layers": CROSS}),
        ({"heads": "single", "head": 2}, (), {"layers": CROSS, "heads": 2}),
        ({"wide": True}, (), {}),
        ({"wide": True}, ("square",), {}),
    ]
    for wish, added, choice in cases:
        found = read(embedded, CROSS, word="circle", added=added, **wish)
        expected = trace.word_map(["circle", *added], step=1, **choice).sum("word")
        np.testing.assert_allclose(found.map, expected.values, rtol=1e-4)
    assert len(found.layers) == 4 and found.scope == "unet.**"


def test_pictures_of_two_sizes(tmp_path: Path) -> None:
    """Where a run changes the size of its pictures each step shows its own grid, and the code taken gives it."""
    family = FAMILIES["sd"]()
    path = tmp_path / "run.zarr"
    with Tracer(family.pipeline, path, capture="attention") as tracer:
        for size in (32, 48):
            run(Family("sd", family.pipeline, family.call | {"height": size, "width": size}))
    trace = tracer.trace
    layer = next(name for name, calls in trace.attention_modules.items() if calls[0].kind == "cross")
    steps = trace.n_steps
    grids = set()
    for step in (0, steps - 1):
        found = read(path, layer, step)
        assert not found.absent
        grids.add(found.grid)
        made: dict[str, Any] = {"trace": trace}
        exec(code_of(found), made)
        np.testing.assert_allclose(made["plane"], found.map, rtol=1e-5)
        known = ~np.isnan(found.over_steps)
        assert known.all()
        mass = trace.word_mass(found.names[found.chosen[0]], layers=layer).values[:, 0, 0]
        np.testing.assert_allclose(found.over_steps, mass, rtol=1e-4)
    assert len(grids) == 2


def test_shares_are_those_of_the_trace(embedded: Path) -> None:
    """Bars and the strip over the steps hold what `Trace.word_mass` says; over the words they sum to 1."""
    trace = open_trace(embedded)
    found = read(embedded, CROSS, word="circle")
    mass = trace.word_mass(layers=CROSS).isel(layer=0)
    np.testing.assert_allclose(found.mass, mass.sel(step=1).values, rtol=1e-4)
    np.testing.assert_allclose(found.over_steps, mass.sel(word="circle").values, rtol=1e-4)
    assert found.names == tuple(mass["word"].values) and abs(found.mass.sum() - 1) < 1e-4


def test_a_row_and_a_column_are_those_of_the_trace(embedded: Path) -> None:
    """Where a place looks is a row of the map, who looks at it a column."""
    attention = open_trace(embedded).attention(SELF).isel(step=1, batch=1)
    found = read(embedded, SELF, place=(0.3, 0.8))
    assert found.query == (2, 6)
    np.testing.assert_allclose(found.map.ravel(), attention.isel(query=22).mean("head"), rtol=1e-4)
    turned = read(embedded, SELF, place=(0.3, 0.8), reverse=True, heads="max")
    np.testing.assert_allclose(turned.map.ravel(), attention.isel(key=22).max("head"), rtol=1e-4)


def test_branches_are_entries(embedded: Path) -> None:
    """The conditional branch comes first; the other has the words of the negative prompt."""
    assert read(embedded, CROSS).branch == "conditional"
    other = read(embedded, CROSS, entry=0)
    assert other.branch == "unconditional" and other.names == ("<|startoftext|>", "<|endoftext|>")


def test_branches_are_calls(tmp_path: Path) -> None:
    """Where each branch is a call of its own, the calls are walked as entries."""
    shape = [("image", (2, 2))], [("text", (7,))]
    calls = [Call("made.attn", draw(1, 1, 1, 4, at), draw(1, 1, 1, 7, at), *shape) for at in (4, 8)]
    given = [("text_encoder", "an otter red", [TOKENS]), ("text_encoder", "blurry", [NEGATIVE])]
    path = tmp_path / "calls.zarr"
    arguments = {"prompt": "an otter red", "negative_prompt": "blurry"}
    made_trace(path, calls, prompts=given, branches=("unconditional", "conditional"), arguments=arguments)
    first = read(path, "made.attn", step=0)
    assert (first.branch, first.call.call, first.entry, first.entries) == ("conditional", 1, 1, 2)
    other = read(path, "made.attn", step=0, entry=0)
    assert (other.branch, other.call.call) == ("unconditional", 0) and "blurry" in other.names


def test_joint_attention(made: Path) -> None:
    """A joint layer shows words, or what a place of the picture sees of the picture."""
    words = read(made, "made.joint", word="otter")
    assert words.kinds == ("words", "places") and words.map.shape == (4, 6)
    full = open_trace(made).attention("made.joint").isel(step=1, batch=1).mean("head").values
    np.testing.assert_allclose(words.map.ravel(), full[7:, [2, 3]].sum(1), rtol=1e-4)
    place = read(made, "made.joint", places=True, place=(0.6, 0.1))
    np.testing.assert_allclose(place.map.ravel(), full[7 + 12, 7:], rtol=1e-4)


def test_small_maps(embedded: Path) -> None:
    """The mosaic has every head of the layer, the grid every head of every layer alike."""
    trace = open_trace(embedded)
    expected = trace.head_maps("circle", step=1)
    grid = read(embedded, CROSS, word="circle", spread="layers").tiles
    assert grid.rows == tuple(expected["layer"].values) and grid.columns == (0, 1, 2, 3)
    np.testing.assert_allclose(np.array(grid.maps), expected.values, rtol=1e-4)
    mosaic = read(embedded, CROSS, word="circle", spread="heads").tiles
    np.testing.assert_allclose(np.array(mosaic.maps[0]), expected.sel(layer=CROSS).values, rtol=1e-4)
    places = read(embedded, SELF, place=(0.0, 0.0), spread="layers").tiles
    assert len(places.rows) == 4
    np.testing.assert_allclose(np.ravel(places.maps[1][3]), trace.attention(SELF)[1, 1, 3, 0], rtol=1e-4)


def test_tokens(embedded: Path) -> None:
    """In a text encoder a token's row has a share for each word; turned around, who looks at it."""
    attention = open_trace(embedded).attention(TEXT)[0].mean("head").values
    found = read(embedded, TEXT, word="circle")
    assert found.kind == "tokens" and found.keys[3] == "circle"
    np.testing.assert_allclose(found.row[:4], attention[3, :4], rtol=1e-4)
    assert (found.row[4:] == 0).all()  # it is causal
    turned = read(embedded, TEXT, word="circle", reverse=True)
    np.testing.assert_allclose(turned.row[:11], attention[:11, 3], atol=1e-6)


def test_what_neither_looks_nor_reads(made: Path) -> None:
    """Positions that are neither picture nor text go by their numbers."""
    found = read(made, "made.resampler")
    assert found.names == ("0", "1", "2") and found.keys == ("0", "1", "2", "3", "4")
    assert abs(found.row.sum() - 1) < 1e-5


def test_a_long_answer_comes_in_parts(made: Path) -> None:
    """A cancelled answer stops at once; one that takes long is taken up where it was left."""
    loader = Loader(open_trace(made))
    request = Request(loader.trace.modules["made.cross"].site, 1, 4, Wish())
    stopped = read_attention(Reader(loader, lambda: True), request)
    assert isinstance(stopped, Seen) and stopped.further and stopped.map is None and stopped.done == 0
    assert not any("shares" in key for key in loader._cache)
    whole = read_attention(Reader(loader, lambda: False), request)
    assert isinstance(whole, Seen) and whole.map is not None


def test_steps_without_tensors(made: Path) -> None:
    """A step that was not captured has no map, and no bar."""
    found = read(made, "made.cross", step=2)
    assert found.absent and found.map is None
    assert np.isnan(read(made, "made.cross", step=1).over_steps).tolist() == [False, False, True, False]


def test_reasons(made: Path, embedded: Path, traces: dict[str, Path]) -> None:
    """A layer without a map says why, with the line that would have recorded it where there is one."""
    linear = read(made, "made.linear")
    assert isinstance(linear, Missing) and "it is linear" in linear.why and not linear.code
    nothing = read(traces["normal"], "unet.conv_in")
    assert isinstance(nothing, Missing) and 'capture="attention"' in nothing.code
    offer = read(embedded, "unet.mid_block")
    assert isinstance(offer, Offer) and offer.below and [call.module for call in offer.calls] == [SELF, CROSS]
    near = read(embedded, "unet.conv_in")
    assert isinstance(near, Offer) and not near.below and len(near.calls) == 8
    mean = read(embedded, "unet.mid_block", wide=True, word="circle")
    assert mean.layers == (CROSS,) and mean.scope == "unet.mid_block.**"


def test_queries_that_were_not_kept(tmp_path: Path) -> None:
    """An attention layer whose queries were left out names the line that keeps them."""
    from diffusion_xray.pipelines.shapes.load import load_pipeline
    from diffusion_xray.tracer import Capture, Tracer

    pipe = load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    with Tracer(pipe, tmp_path / "some.zarr", capture=Capture(attention=CROSS)):
        pipe("a red circle", num_inference_steps=1)
    found = read(tmp_path / "some.zarr", TEXT, step=0)
    assert isinstance(found, Missing) and found.code.endswith(f"capture=Capture(attention={TEXT!r}))")


# Keys


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (["down"], ["left"]),
        (["j", "j"], ["of"]),
        (["up"], ["red"]),
        (["k", "k"], ["a"]),
        (["G"], ["<|endoftext|>"]),
        (["g"], ["<|startoftext|>"]),
        (["space", "down"], ["left", "circle"]),
        (["space", "down", "space", "up"], ["circle", "left"]),
        (["space", "down", "up", "space"], ["circle"]),
    ],
)
async def test_word_keys(browser: Make, embedded: Path, keys: list[str], names: list[str]) -> None:
    """Words are walked by arrows and letters, and added by the space bar; the first has no key of its own."""
    async with browser(embedded, layer=CROSS, step=1, tab="attention").run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert [seen(pilot).names[at] for at in seen(pilot).chosen] == ["circle"]
        await pilot.press(*keys)
        await settle(pilot)
        assert [seen(pilot).names[at] for at in seen(pilot).chosen] == names
        assert the_map(pilot).splitlines()[0].strip().startswith(" + ".join(names)[:20])


@pytest.mark.parametrize(
    ("keys", "changed"),
    [
        (["full_stop"], {"heads": "single", "head": 0}),
        (["full_stop", "full_stop"], {"heads": "single", "head": 1}),
        (["comma", "comma"], {"heads": "single", "head": -1}),
        (["a"], {"heads": "max"}),
        (["a", "a"], {"heads": "single"}),
        (["a", "a", "a"], {"heads": "mean"}),
        (["z"], {"spread": "heads"}),
        (["z", "z"], {"spread": ""}),
        (["A"], {"spread": "layers"}),
        (["L"], {"wide": True}),
        (["L", "L"], {"wide": False}),
        (["less_than_sign"], {"entry": 0}),
        (["greater_than_sign"], {"entry": 0}),
        (["t"], {"reverse": False}),
        (["i"], {"places": False}),
        (["left_parenthesis"], {"frame": None}),
    ],
)
async def test_keys_of_words(browser: Make, embedded: Path, keys: list[str], changed: dict[str, Any]) -> None:
    """Each key asks for what it says, and what comes is drawn."""
    async with browser(embedded, layer=CROSS, step=1, tab="attention").run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press(*keys)
        await settle(pilot)
        wish = seen(pilot).wish
        assert {name: getattr(wish, name) for name in changed} == changed
        assert not screen(pilot).scene.error
        if wish.heads == "single" and not wish.spread:
            assert f"head {wish.head % 4}" in the_map(pilot)
        assert ("unconditional 1/2" in the_map(pilot)) == (wish.entry == 0)


async def test_keys_of_places(browser: Make, embedded: Path) -> None:
    """Arrows move the place that looks, `t` turns around, the value below is that of the place."""
    async with browser(embedded, layer=SELF, step=1, tab="attention").run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert screen(pilot).focused is pilot.app.screen.query_one(AttentionMap)
        assert "where (4, 4) looks" in the_map(pilot) and "⊕" in the_map(pilot)
        first = seen(pilot).map
        await pilot.press("up", "left", "left", "h", "k", "down", "j", "right", "l", "up")
        await settle(pilot)
        assert seen(pilot).query == (3, 3)
        assert "where (3, 3) looks" in the_map(pilot)
        assert first is not None and seen(pilot).map is not None and (first != seen(pilot).map).any()
        await pilot.press("t")
        await settle(pilot)
        assert "who looks at (3, 3)" in the_map(pilot)
        found = seen(pilot)
        assert found.map is not None and percent(float(found.map[3, 3])) in the_map(pilot)


async def test_keys_of_joint_attention(browser: Make, made: Path) -> None:
    """`i` goes from words to places and back, and the keys go with it."""
    async with browser(made, layer="made.joint", step=1, tab="attention").run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert seen(pilot).kind == "words" and pilot.app.screen.query_one(WordList).display
        await pilot.press("i")
        await settle(pilot)
        assert seen(pilot).kind == "places" and not pilot.app.screen.query_one(WordList).display
        await pilot.press("right", "t", "i")
        await settle(pilot)
        assert seen(pilot).kind == "words" and screen(pilot).focused is pilot.app.screen.query_one(WordList)


async def test_frames(browser: Make, made: Path) -> None:
    """A video shows one frame, which `(` and `)` walk."""
    async with browser(made, layer="made.video", step=1, tab="attention").run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert "frame 2/2" in the_map(pilot)
        await pilot.press("right_parenthesis")
        await settle(pilot)
        assert "frame 1/2" in the_map(pilot)
        await pilot.press("left_parenthesis")
        await settle(pilot)
        assert "frame 2/2" in the_map(pilot)


async def test_tokens_are_bars(browser: Make, embedded: Path) -> None:
    """A text encoder shows a row of bars for the token under the cursor; maps are not offered."""
    async with browser(embedded, layer=TEXT, tab="attention").run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press("g", "down")
        await settle(pilot)
        assert "where a looks" in the_map(pilot) and "█" in the_map(pilot)
        await pilot.press("t", "z", "A", "L", "space", "a")
        await settle(pilot)
        assert "who looks at a" in the_map(pilot) and "max of 4 heads" in the_map(pilot)
        await pilot.press("tab", "down", "up")
        await settle(pilot)
        assert seen(pilot).wish.spread == "" and not seen(pilot).wish.wide


async def test_overlay_range_and_colours(browser: Make, embedded: Path) -> None:
    """`O` says how much of the picture is seen, `d` and `c` work as everywhere, and each changes the picture."""
    async with browser(embedded, layer=CROSS, step=1, tab="attention").run_test(size=SIZE) as pilot:
        await settle(pilot)
        canvas = pilot.app.screen.query_one(AttentionMap)

        def painted() -> str:
            return repr([canvas.render_line(y) for y in range(canvas.size.height)])

        looks = {painted()}
        for key, said in (("O", "overlay 100 %"), ("O", "overlay 40 %"), ("O", "overlay 70 %")):
            await pilot.press(key)
            assert said in the_map(pilot)
            looks.add(painted())
        assert len(looks) == 3
        for key in ("d", "c"):
            await pilot.press(key)
            assert painted() not in looks
            looks.add(painted())


async def test_small_maps_are_opened(browser: Make, embedded: Path) -> None:
    """In the mosaic arrows choose a head and enter opens it; in the grid it goes to the layer, too."""
    async with browser(embedded, layer=CROSS, step=1, tab="attention").run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press("z")
        await settle(pilot)
        assert all(f"head {head}" in the_map(pilot) for head in range(4))
        await pilot.press("right", "enter")
        await settle(pilot)
        assert (seen(pilot).wish.spread, seen(pilot).head) == ("", 1)
        assert "head 1" in "".join(the_map(pilot).splitlines()[:2])
        await pilot.press("A")
        await settle(pilot)
        assert "up_blocks.0.attentions.1" in the_map(pilot)
        await pilot.press("up", *["down"] * 6, "up", "right", "enter")
        await settle(pilot)
        shown = screen(pilot).scene.site
        assert shown is not None and shown.name == "unet.up_blocks.0.attentions.0.transformer_blocks.0.attn2"
        assert seen(pilot).head == 2


async def test_offers(browser: Make, embedded: Path) -> None:
    """A layer that holds attention offers it; arrows choose, `w` goes there, `L` averages over it."""
    async with browser(embedded, layer="unet.mid_block", step=1, tab="attention").run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert SELF in the_map(pilot) and CROSS in the_map(pilot)
        await pilot.press("L")
        await settle(pilot)
        assert "unet.mid_block.**" in the_map(pilot)
        await pilot.press("L")
        await settle(pilot)
        await pilot.press("down", "w")
        await settle(pilot)
        shown = screen(pilot).scene.site
        assert shown is not None and shown.name == CROSS
        assert seen(pilot).kind == "words"


# The mouse, and who has the keys


async def test_mouse(browser: Make, embedded: Path) -> None:
    """A click on a word chooses it, with shift it is added; a click on the picture is the place; one below a step."""
    async with browser(embedded, layer=CROSS, step=1, tab="attention").run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.click("#attention-words", offset=(5, 9))
        await settle(pilot)
        assert seen(pilot).wish.word == "square"
        await pilot.click("#attention-words", offset=(5, 4), shift=True)
        await settle(pilot)
        assert seen(pilot).wish.added == ("circle",)
        left, top, width, height = pilot.app.screen.query_one(AttentionMap)._frame
        await pilot.click("#attention-map", offset=(left + width - 1, top))
        await settle(pilot)
        assert seen(pilot).query == (0, 7)
        assert "share at (0, 7)" in text(pilot, "#attention-words")
        await pilot.hover("#attention-map", offset=(left, top + height - 1))
        assert "at (7, 0)" in the_map(pilot)
        await pilot.hover("#attention-map", offset=(0, 0))
        assert "at (0, 7)" in the_map(pilot)
        await pilot.click("#attention-steps", offset=(2, 2))
        await settle(pilot)
        assert screen(pilot).scene.step == 0


async def test_focus(browser: Make, embedded: Path) -> None:
    """The page takes the keys when it is chosen, not while one walks the layers, and gives them back."""
    async with browser(embedded, layer=CROSS, step=1).run_test(size=SIZE) as pilot:
        await settle(pilot)
        tree = pilot.app.screen.query_one(LayerTree)
        assert screen(pilot).focused is tree
        await pilot.press("5")
        await settle(pilot)
        assert screen(pilot).focused is pilot.app.screen.query_one(WordList)
        await pilot.press("tab")
        assert screen(pilot).focused is pilot.app.screen.query_one(AttentionMap)
        tree.focus()
        await pilot.press("up", "up")
        await settle(pilot)
        assert screen(pilot).focused is tree
        await pilot.press("down", "down", "tab")
        await settle(pilot)
        await pilot.press("2")
        await settle(pilot)
        assert screen(pilot).focused is tree


async def test_words_stay_from_layer_to_layer(browser: Make, embedded: Path) -> None:
    """What was chosen is looked at in the next layer and at the next step, too."""
    async with browser(embedded, layer=CROSS, step=1, tab="attention").run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press("G", "up", "right_square_bracket")
        await settle(pilot)
        screen(pilot).go_to_layer("unet.up_blocks.0.attentions.0.transformer_blocks.0.attn2")
        await settle(pilot)
        found = seen(pilot)
        assert found.names[found.chosen[0]] == "white" and screen(pilot).scene.step == 2
        assert "share of white over the steps" in text(pilot, "#attention-steps")


# What is wrong


async def test_damaged_queries(browser: Make, embedded: Path, tmp_path: Path) -> None:
    """Queries that cannot be read are told of where the map would be; other layers go on."""
    path = tmp_path / "damaged.zarr"
    shutil.copytree(embedded, path)
    (chunk,) = (path / CROSS.replace(".", "/") / "_io" / "query").glob("c*")
    chunk.write_bytes(chunk.read_bytes()[: 128 * 16] + b"\xff" * 65536)
    async with browser(path, layer=CROSS, step=1, tab="attention").run_test(size=SIZE, notifications=True) as pilot:
        await settle(pilot)
        assert "? The queries and keys of step 1 cannot be read" in " ".join(the_map(pilot).split())
        assert "?" in text(pilot, "#attention-steps")
        assert pilot.app._notifications
        screen(pilot).go_to_layer(SELF)
        await settle(pilot)
        assert "where (4, 4) looks" in the_map(pilot)


async def test_nothing_raw_reaches_the_terminal(browser: Make, made: Path) -> None:
    """Control characters of a token are shown as escapes wherever it stands."""
    async with browser(made, layer="made.cross", step=1, tab="attention").run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press("G", "up", "space")
        await settle(pilot)
        assert seen(pilot).names[seen(pilot).chosen[0]] == ESCAPE
        for page in ("#attention-words", "#attention-map", "#attention-steps"):
            assert "\x1b" not in text(pilot, page) and "\\x1b[31m" in text(pilot, page)


async def test_states_without_a_map(browser: Make, made: Path, traces: dict[str, Path]) -> None:
    """A linear layer, a step that was not captured, a trace without attention or without steps: each says so."""
    async with browser(made, layer="made.linear", step=1, tab="attention").run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert "it is linear" in the_map(pilot)
        screen(pilot).go_to_layer("made.cross")
        screen(pilot).go_to_step(2)
        await settle(pilot)
        assert "were not kept" in the_map(pilot)
        await pilot.press("z", "L", "O", "a", "down", "space", "w", "enter")
        await settle(pilot)
    async with browser("statistics", tab="attention").run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert 'Tracer(pipe, "run.zarr", capture="attention")' in the_map(pilot)
        await pilot.press("z", "A", "L", "O", "a", "t", "i", "comma", "greater_than_sign", "left_parenthesis", "w")
        await settle(pilot)
    async with browser("empty", tab="attention").run_test(size=SIZE) as pilot:
        await pilot.pause(0.2)
        assert "no" in text(pilot, "#missing").lower()


async def test_few_colours(browser: Make, embedded: Path) -> None:
    """With few colours maps are shades with numbers, the place marked."""
    app = browser(embedded, layer=SELF, step=1, tab="attention", shade=True)
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert "⊕" in the_map(pilot) and "▓" in the_map(pilot) and "▀" not in the_map(pilot)
        await pilot.press("A")
        await settle(pilot)
        assert "▀" not in the_map(pilot)


@pytest.mark.parametrize("size", [(60, 16), (61, 17), (99, 20), (100, 30), (200, 60)])
async def test_sizes(browser: Make, made: Path, size: tuple[int, int]) -> None:
    """Every form of the page can be drawn at any size that the browser takes."""
    async with browser(made, layer="made.cross", step=1, tab="attention").run_test(size=size) as pilot:
        await settle(pilot)
        for keys in (["z"], ["A"], ["A"], ["m"]):
            await pilot.press(*keys)
            await settle(pilot)
        for name in ("made.own", "made.resampler", "made.linear", "made"):
            if name in screen(pilot).snapshot.layers:
                screen(pilot).go_to_layer(name)
                await settle(pilot)
                assert the_map(pilot).strip()


# From the command line


def opened(path: Path, layer: str = CROSS, **at: Any) -> Opening:
    """Where `dxray view --token … --head …` opens."""
    trace: Trace = open_trace(path)
    where = find_opening(Loader(trace).snapshot(), layer=layer, tab="attention")
    return with_attention(trace, where, **at)


def test_openings(embedded: Path) -> None:
    """A word, a phrase and a head are found before anything is drawn; what does not exist is named with what does."""
    assert opened(embedded, token="Circle").wish == Wish(word="circle")
    assert opened(embedded, token="red circle").wish == Wish(word="red", added=("circle",))
    assert opened(embedded, token="a#1", head=2).wish == Wish(word="a#1", heads="single", head=2)
    assert opened(embedded, "unet.conv_in", token="white").wish == Wish(word="white")
    with pytest.raises(SiteNotFoundError, match=r"no word 'otter'.*circle"):
        opened(embedded, token="otter")
    with pytest.raises(SiteNotFoundError, match=r"no head 9; it has 0, 1, 2, 3"):
        opened(embedded, head=9)
    with pytest.raises(SiteNotFoundError, match=r"no layer of .* has an attention head 9; they have 0, 1, 2, 3"):
        opened(embedded, "unet.conv_in", head=9)


def test_a_head_from_a_layer_without_attention(embedded: Path) -> None:
    """Where the layer has no attention, the head is the one that the next layer with attention is opened at."""
    assert opened(embedded, "unet.conv_in", head=2).wish == Wish(heads="single", head=2)


async def test_opens_at_a_word(embedded: Path) -> None:
    """The browser opens with the word and the head that were asked for."""
    loader = Loader(open_trace(embedded))
    app = Browser(loader, opened(embedded, token="blue square", head=3))
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        title = "".join(the_map(pilot).splitlines()[:2])
        assert "blue + square" in title and "head 3" in title


def test_the_command_checks_before_it_draws(embedded: Path) -> None:
    """`dxray view --token` refuses a word that is not there, before it looks for a terminal."""
    with pytest.raises(SiteNotFoundError, match="no word 'otter'"):
        Command().open(embedded, layer=CROSS, token="otter")


# Small things


def test_shares_fit_their_column() -> None:
    """A share takes at most seven characters, and a bar its columns."""
    shares = [0, 1e-9, 4e-6, 0.00123, 0.0101, 0.0999, 0.5, 0.99951, 1.0, float("nan")]
    assert [percent(share) for share in shares] == [
        "0 %", "<.001 %", "<.001 %", "0.12 %", "1.0 %", "10.0 %", "50.0 %", "100 %", "100 %", "–",
    ]  # fmt: skip
    assert [bar(level, 4) for level in (0, 1e-6, 0.5, 1, 2, float("nan"))] == [
        "    ", "▏   ", "██  ", "████", "████", "    ",
    ]  # fmt: skip


def test_every_key_has_an_id_and_help() -> None:
    """Keys can be moved by their ids, and say what they do."""
    keys = [*ATTENTION.keys, *WordList.BINDINGS, *AttentionMap.BINDINGS]
    assert all(key.id.startswith("attention.") and key.tooltip for key in keys)  # type: ignore[union-attr]
    assert len({key.id for key in keys}) == len(keys)  # type: ignore[union-attr]
    for key in ATTENTION.keys:
        assert hasattr(AttentionPage, f"action_{key.action.partition('(')[0]}")


# Pictures


@pytest.mark.skipif(textual.__version__ != "8.2.8", reason="pictures are of textual 8.2.8")
class TestPictures:
    """How it looks."""

    @pytest.mark.parametrize("size", [(120, 40), (80, 24)], ids=lambda size: f"{size[0]}x{size[1]}")
    @pytest.mark.parametrize(
        ("layer", "keys"),
        [(CROSS, []), (CROSS, ["A"]), (CROSS, ["L"]), (SELF, ["right"]), (SELF, ["z"]), (TEXT, []), ("unet", [])],
        ids=["words", "grid", "all-layers", "place", "heads", "tokens", "offer"],
    )
    def test_screen(
        self,
        snap_compare: Callable[..., bool],
        browser: Make,
        embedded: Path,
        layer: str,
        keys: list[str],
        size: tuple[int, int],
    ) -> None:
        """Each form of the page looks as it did."""

        async def press(pilot: Pilot[None]) -> None:
            await settle(pilot)
            await pilot.press(*keys)
            await settle(pilot)

        app = browser(embedded, layer=layer, step=1, tab="attention")
        assert snap_compare(app, terminal_size=size, run_before=press)

    @pytest.mark.parametrize("layer", [CROSS, SELF], ids=["words", "place"])
    def test_light_theme(self, snap_compare: Callable[..., bool], browser: Make, embedded: Path, layer: str) -> None:
        """In a light theme everything can be read."""

        async def lighten(pilot: Pilot[None]) -> None:
            pilot.app.theme = "textual-light"
            await settle(pilot)

        app = browser(embedded, layer=layer, step=1, tab="attention")
        assert snap_compare(app, terminal_size=(120, 40), run_before=lighten)

    def test_no_colour(
        self, snap_compare: Callable[..., bool], browser: Make, embedded: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without colours the map alone is drawn, in greys."""
        monkeypatch.setitem(os.environ, "NO_COLOR", "1")
        app = browser(embedded, layer=CROSS, step=1, tab="attention")
        assert snap_compare(app, terminal_size=(120, 40), run_before=settle)

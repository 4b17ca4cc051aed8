"""Whoever shows a map that the run did not use, or may not have used, says so; of proven ones nothing is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from textual.pilot import Pilot

from diffusion_xray.tracer import open_trace
from diffusion_xray.tracer.cli import main
from diffusion_xray.viewer.app import Browser
from diffusion_xray.viewer.widgets.attention_map import AttentionMap

from ..attending import Call, made_trace
from .exporting import exported

Make = Callable[..., Browser]
TOKENS = ["<|startoftext|>", "an</w>", "otter</w>", "<|endoftext|>"]
EDITED = {"proven": [[2, 3]], "edited": [[0, 1]], "deviation": 0.5}
SENTENCE = "the result is not these shares times the values, off by 50 %"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, the second edited at two of four steps; and one of tokens that cannot be told."""
    random = np.random.default_rng(0)
    query, key = (random.standard_normal((4, 1, 2, size, 4)).astype(np.float32) for size in (16, 4))
    image, text = [("image", (4, 4))], [("text", (4,))]
    calls = [
        Call("made.a", query, key, image, text),
        Call("made.b", query, key, image, text, used=EDITED),
        Call("made.c", key, key, [("other", (4,))], [("other", (4,))], door="get_attention_scores"),
    ]
    path = tmp_path_factory.mktemp("doubt") / "made.zarr"
    made_trace(path, calls, prompts=[("text_encoder", "an otter", [TOKENS])], arguments={"prompt": "an otter"})
    return path


@pytest.fixture
def dxray(path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What `dxray attention` prints."""

    def run(*arguments: str) -> str:
        assert main(["attention", str(path), *arguments]) == 0
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ((), " in 1 of 2 layers at steps 0–1"),
        (("--step", "1"), " in 1 of 2 layers"),
        (("--layer", "made.b"), " at steps 0–1"),
        (("--layer", "made.b", "--step", "0"), ""),
        (("--step", "3"), None),
        (("--layer", "made.a"), None),
    ],
)
def test_a_map_of_a_word(dxray: Callable[..., str], options: tuple[str, ...], where: str | None, path: Path) -> None:
    """In layers and at steps that were edited the last line says so; elsewhere there is none."""
    for drawing in (("--word", "otter"), ("--grid", "words"), ("--grid", "heads", "--word", "otter")):
        last = dxray(*drawing, *options).splitlines()[-1]
        if where is None:
            assert "edited" not in last
        else:
            assert last == f"edited after the softmax{where}: {SENTENCE}"


def test_the_lists(dxray: Callable[..., str]) -> None:
    """Beside the shares of words, and in the line of each module."""
    lines = dxray().splitlines()
    assert f"edited after the softmax in 1 of 2 layers at steps 0–1: {SENTENCE}" in lines
    ends = {line.split()[0]: line.split("  ")[-1].strip() for line in lines if line.startswith("made.")}
    assert ends["made.b"] == "edited after the softmax at steps 0–1"
    assert ends["made.c"] == "not proven to be what the run used"
    assert ends["made.a"] == "text 4"


def test_numbers_for_programs(dxray: Callable[..., str]) -> None:
    """JSON has the doubt, and for each step and layer what it is."""
    facts = json.loads(dxray("--json"))
    assert facts["doubt"] == f"edited after the softmax in 1 of 2 layers at steps 0–1: {SENTENCE}"
    uses = {(row["layer"], row["step"]): row["use"] for row in facts["by_step_and_layer"]}
    assert [uses["made.b", step] for step in range(4)] == ["edited", "edited", "proven", "proven"]
    assert {uses["made.a", step] for step in range(4)} == {"proven"}
    assert json.loads(dxray("--json", "--step", "2"))["doubt"] is None


def test_a_picture_has_it_below(dxray: Callable[..., str], tmp_path: Path) -> None:
    """A PNG is taller by the lines that say it."""
    sizes = {}
    for layer in ("made.a", "made.b"):
        dxray("--word", "otter", "--layer", layer, "--out", str(tmp_path / f"{layer}.png"))
        with Image.open(tmp_path / f"{layer}.png") as picture:
            sizes[layer] = picture.height
    assert sizes["made.b"] > sizes["made.a"]


def test_arrays_carry_it(path: Path) -> None:
    """Every array of shares has an attribute; those that are proven have none."""
    trace = open_trace(path)
    assert "doubt" not in trace.word_map("otter", step=2).attrs and "doubt" not in trace.attention("made.a").attrs
    for array in (
        trace.attention("made.b"),
        trace.word_map("otter"),
        trace.word_mass(step=1),
        trace.head_maps("otter", step=[0, 3]),
    ):
        assert array.attrs["doubt"].startswith("edited after the softmax")


async def settle(pilot: Pilot[None]) -> None:
    """Wait until the map has been read and drawn."""
    await pilot.pause(0.1)
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()


def shown(pilot: Pilot[None]) -> str:
    """The map's characters."""
    canvas = pilot.app.screen.query_one(AttentionMap)
    return "\n".join(canvas.render_line(y).text for y in range(canvas.size.height))


@pytest.mark.parametrize(("layer", "step", "doubt"), [("made.b", 1, True), ("made.b", 2, False), ("made.a", 1, False)])
async def test_the_browser(browser: Make, path: Path, layer: str, step: int, doubt: bool) -> None:
    """A line under the title, at the steps it holds for; the captions of pictures that leave it have it too."""
    async with browser(path, layer=layer, step=step, tab="attention").run_test(size=(150, 40)) as pilot:
        await settle(pilot)
        assert ("⚠ edited after the softmax" in shown(pilot)) == doubt
    selection = await exported(browser(path, layer=layer, step=step, tab="attention"), (), settle)
    assert ("edited after the softmax" in selection.sheet().caption) == doubt


async def test_the_browser_where_it_cannot_be_told(browser: Make, path: Path) -> None:
    """Bars of tokens have the line too."""
    async with browser(path, layer="made.c", step=1, tab="attention").run_test(size=(150, 40)) as pilot:
        await settle(pilot)
        assert "⚠ not proven to be what the run used" in shown(pilot)

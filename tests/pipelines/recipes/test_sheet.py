from __future__ import annotations

import io
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffusion_xray.pipelines.recipes.lab import Shown
from diffusion_xray.pipelines.recipes.outcome import Outcome
from diffusion_xray.pipelines.recipes.page import Entry
from diffusion_xray.pipelines.recipes.registry import Listed
from diffusion_xray.pipelines.recipes.sheet import contact_sheet

COLOURS = [(200, 20 * number, 250 - 20 * number) for number in range(12)]
SIZES = st.tuples(st.integers(20, 900), st.integers(20, 900))


def entry(file: Path | None) -> Entry:
    """A recipe with one figure, or none."""
    figures = (Shown(file, "what there is to see"),) if file else ()
    return Entry(Listed("a", "a", "a"), outcome=Outcome("a", None, 1.0, (), figures, (), "dxray run a"))


def boxes(sheet: bytes, count: int) -> list[tuple[int, int, int, int] | None]:
    """Where each of the first colours lies on a sheet."""
    picture = Image.open(io.BytesIO(sheet))
    assert picture.mode == "RGB"
    found = []
    for colour in COLOURS[:count]:
        bands = [
            band.point(lambda value, wanted=part: 255 * (value == wanted))
            for band, part in zip(picture.split(), colour, strict=True)
        ]
        mask = Image.merge("RGB", bands).convert("L").point(lambda value: 255 * (value == 255))
        found.append(mask.getbbox())
    return found


@given(st.lists(SIZES, min_size=1, max_size=len(COLOURS)))
def test_every_figure_is_on_it_whole_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[tuple[int, int]]
) -> None:
    """Figures of any shape are on the sheet, in their proportions, one after another, and none over another."""
    folder = tmp_path_factory.mktemp("figures")
    for number, size in enumerate(sizes):
        Image.new("RGB", size, COLOURS[number]).save(folder / f"{number}.png")
    found = boxes(contact_sheet([entry(folder / f"{number}.png") for number in range(len(sizes))]), len(sizes))
    for box, (width, height) in zip(found, sizes, strict=True):
        assert box is not None
        shown = (box[2] - box[0], box[3] - box[1])
        assert abs(shown[0] * height / width - shown[1]) <= 1 + 0.5 * height / width
    for before, after in itertools.pairwise(found):
        assert before is not None and after is not None
        assert after[0] >= before[2] or after[1] >= before[3]


def test_a_film_shows_its_middle(tmp_path: Path) -> None:
    """Of a film the frame in the middle is shown: the first is noise."""
    frames = [Image.new("RGB", (60, 40), colour) for colour in ("black", COLOURS[0], "black")]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    assert boxes(contact_sheet([entry(tmp_path / "film.gif")]), 1) != [None]


def test_nothing_to_show(tmp_path: Path) -> None:
    """Recipes that failed or have no figure are left out, and a sheet of none of them is a picture all the same."""
    sheet = contact_sheet([Entry(Listed("a", "a", "a"), error="it broke"), entry(None)])
    assert Image.open(io.BytesIO(sheet)).size[1] > 0

"""Arrays to cells, without a terminal."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from diffusion_xray.viewer import palette, render

PLANES = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40), elements=st.floats(width=32))
SIDES = st.integers(1, 30)


@pytest.mark.parametrize("name", [name for name in palette.MAPS if name not in palette.DIVERGING])
def test_map_grows_brighter(name: str) -> None:
    """Every map but a diverging one rises in luminance, so it can be read without colours."""
    brightness = palette.luminance(palette.colour_map(name))
    assert (np.diff(brightness) > -0.004).all()
    assert brightness[-1] - brightness[0] > 0.5


def test_diverging_map_is_brightest_in_the_middle() -> None:
    """A diverging map is palest at zero and about as dark at both ends."""
    brightness = palette.luminance(palette.colour_map("coolwarm"))
    assert 100 < brightness.argmax() < 156


@given(PLANES, SIDES, SIDES, st.booleans(), st.booleans())
def test_heat_map_stays_in_its_rectangle(
    plane: np.ndarray, rows: int, columns: int, keep_aspect: bool, shade: bool
) -> None:
    """Whatever the plane holds, the picture has at least one cell and never more than it was given."""
    cells = render.heat_map(plane, rows=rows, columns=columns, low=-1, high=1, keep_aspect=keep_aspect, shade=shade)
    assert 1 <= cells.shape[0] <= rows and 1 <= cells.shape[1] <= columns
    if not shade:
        assert cells.foreground is not None and cells.background is not None
        assert cells.foreground.shape == cells.background.shape == (*cells.shape, 3)


@given(PLANES.filter(lambda plane: not np.isfinite(plane).all()), SIDES, SIDES)
def test_no_fault_is_averaged_away(plane: np.ndarray, height: int, width: int) -> None:
    """Whatever the size it is drawn at, a value that is not finite is still seen."""
    assert not np.isfinite(render.resample(plane, height, width)).all()


def test_two_pixels_to_a_cell() -> None:
    """The upper pixel is in the foreground of the half block, the lower one in the background."""
    cells = render.heat_map(np.array([[0.0], [1.0]]), rows=1, columns=1, low=0, high=1, colours="gray")
    assert cells.glyphs.tolist() == [["▀"]]
    assert cells.foreground is not None and cells.foreground[0, 0].tolist() == [6, 6, 6]
    assert cells.background is not None and cells.background[0, 0].tolist() == [250, 250, 250]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_fault_has_its_own_colour(value: float) -> None:
    """NaN and both infinities are drawn in the colour that no map holds, or as a sign without colours."""
    plane = np.array([[value, 0.0], [0.0, 1.0]])
    cells = render.heat_map(plane, rows=1, columns=2, low=0, high=1)
    assert cells.foreground is not None and tuple(cells.foreground[0, 0]) == palette.FAULT
    shaded = render.heat_map(plane, rows=2, columns=4, low=0, high=1, shade=True)
    assert shaded.foreground is None
    assert render.FAULT_SIGN in shaded.glyphs


def test_heat_map_keeps_proportions() -> None:
    """A square plane is as many pixels wide as high: twice as many columns as rows of cells."""
    cells = render.heat_map(np.zeros((64, 64)), rows=10, columns=80, low=0, high=1)
    assert cells.shape == (10, 20)


def test_resample_averages_blocks() -> None:
    """A plane shrunk by a whole factor is the mean of its blocks."""
    plane = np.arange(16.0).reshape(4, 4)
    assert render.resample(plane, 2, 2).tolist() == [[2.5, 4.5], [10.5, 12.5]]


def test_picture_keeps_colours() -> None:
    """A picture of one colour has that colour in every pixel."""
    rgb = np.full((8, 8, 3), (10, 200, 30), dtype=np.uint8)
    cells = render.picture(rgb, rows=4, columns=8)
    assert cells.shape == (4, 8)
    assert cells.foreground is not None and (cells.foreground == (10, 200, 30)).all()


def test_colour_bar_runs_from_low_to_high() -> None:
    """The colour bar begins with the first colour of the map and ends with the last; shades likewise."""
    bar = render.colour_bar(10, colours="inferno")
    assert bar.foreground is not None
    assert bar.foreground[0, [0, -1]].tolist() == palette.colour_map("inferno")[[0, -1]].tolist()
    assert "".join(render.colour_bar(10, shade=True).glyphs[0]) == "  ░░▒▒▓▓██"


def test_bars_are_in_eighths() -> None:
    """Bars fill whole cells from below and end in an eighth; what is not zero is never invisible."""
    rows = ["".join(row) for row in render.bars([0, 1, 4, 12, 16, 0.001], rows=2)]
    assert rows == ["   ▄█ ", " ▁▄██▁"]


@given(st.lists(st.floats(), max_size=50), st.integers(1, 8))
def test_bars_take_any_number(values: list[float], rows: int) -> None:
    """Bars of anything have one column a value and only block characters."""
    cells = render.bars(values, rows=rows)
    assert cells.shape == (rows, len(values))
    assert set(cells.ravel()) <= set(" ▁▂▃▄▅▆▇█")


def test_braille_line_rises() -> None:
    """A straight line goes from the lower left corner to the upper right one."""
    cells = render.braille_line(np.arange(8.0), rows=2, columns=4, low=0, high=7)
    assert cells[1, 0] != " " and cells[0, 3] != " "
    assert cells[0, 0] == " " and cells[1, 3] == " "


def test_braille_line_leaves_gaps() -> None:
    """Where a value is not finite, the line has a gap."""
    values = np.array([1, 1, np.nan, np.nan, np.nan, np.inf, 1, 1.0])
    cells = render.braille_line(values, rows=1, columns=8, low=0, high=2)
    assert cells[0, 0] != " " and cells[0, -1] != " " and cells[0, 3] == " "


@given(arrays(np.float64, st.integers(0, 40), elements=st.floats()), st.integers(1, 12))
def test_sparkline_has_a_sign_for_every_column(values: np.ndarray, columns: int) -> None:
    """A sparkline is never longer than it may be, nor than the series."""
    line = render.sparkline(values, np.zeros(values.size, dtype=bool), columns)
    assert len(line) == min(columns, values.size)


def test_one_large_step_hides_no_other() -> None:
    """A step 30 orders of magnitude above the others does not cost them their digits."""
    assert render.sample_series(np.array([1e30, 1.0, 3.0, 5.0]), 2).tolist() == [5e29, 4]
    assert render.sample_series(np.array([1.0, 2.0]), 4).tolist() == [1, 1, 2, 2]


def test_sparkline_marks_faults() -> None:
    """A faulty step shows even where several steps share a column."""
    faults = np.zeros(80, dtype=bool)
    faults[79] = True
    assert render.sparkline(np.ones(80), faults, 8) == "███████✗"


def test_scale_of_a_constant() -> None:
    """Values without a range are drawn in the middle, not divided by zero."""
    assert render.scale([3.0, 3.0, np.nan], 3, 3).tolist()[:2] == [0.5, 0.5]

"""Heat over pictures."""

from __future__ import annotations

import numpy as np
import pytest

from diffusion_xray.viewer.plates import heat_over, plate, share, strip, table

PICTURE = np.full((8, 8, 3), 200, np.uint8)


def test_heat_is_bright_where_it_is_high() -> None:
    """Luminance grows with the heat, over a picture and alone, and lies within the size asked for."""
    heat = np.outer(np.ones(4), np.arange(4)) / 3
    for picture in (None, PICTURE * 0):
        drawn = heat_over(heat, picture, high=1.0, size=(16, 32)).astype(int)
        assert drawn.shape == (16, 32, 3)
        light = drawn.sum(axis=(0, 2))
        assert light[2] < light[16] < light[30]


def test_what_is_not_known_stays_grey() -> None:
    """Where a map is NaN the picture is shown grey and without heat."""
    heat = np.array([[np.nan, 1.0]])
    drawn = heat_over(heat, PICTURE, high=1.0, size=(4, 8))
    assert (drawn[:, 0] == 200).all()
    assert (drawn[:, -1] != 200).any()


@pytest.mark.parametrize("heat", [np.zeros((4, 4)), np.full((4, 4), np.nan), np.full((4, 4), np.inf)])
def test_maps_without_a_range_can_be_drawn(heat: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> None:
    """A map of zeros, or of nothing that is finite, makes a picture like any other."""
    assert plate(heat, PICTURE, title="a", caption="b").size == (894, 574)
    assert strip(np.stack([heat, heat]), PICTURE).shape == (16, 33, 3)


def test_long_labels_are_cut() -> None:
    """Text never runs out of the picture, however long a prompt is."""
    heats = np.random.default_rng(0).random((2, 3, 4, 4))
    rows, columns = ["word " * 50, "b"], ["step 0", "step 1", "x" * 100]
    drawn = table(heats, None, rows=rows, columns=columns, title="t" * 1000, caption="c" * 1000)
    pixels = np.asarray(drawn)
    assert (pixels[:, -12:] == pixels[0, 0]).all()
    assert drawn.width < 900


def test_shares_read_well() -> None:
    """Shares are percentages of two digits."""
    assert [share(value) for value in (0, 0.0012, 0.034, 0.4, 1)] == ["0 %", "0.12 %", "3.4 %", "40 %", "100 %"]

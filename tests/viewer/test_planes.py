"""Which part of a tensor is a picture, and in which range."""

import math

import numpy as np
import pytest

from diffusion_xray.tracer.info import SiteInfo
from diffusion_xray.viewer.look import CHANGES, Look
from diffusion_xray.viewer.planes import plane_of, value_range


def site(name: str = "unet.block") -> SiteInfo:
    """A site of that name."""
    return SiteInfo.from_attributes({"name": name}, row=0, stepped=True)


def test_feature_map() -> None:
    """A channel of a batch entry; both numbers wrap around."""
    tensor = np.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    plane = plane_of(tensor, site(), Look(channel=4, batch=3))
    assert (plane.values == tensor[1, 1]).all()
    assert (plane.channels, plane.batches, plane.spatial) == (3, 2, True)


def test_tokens_are_pixels() -> None:
    """A square number of tokens is an image of one channel."""
    tensor = np.arange(1 * 16 * 3.0).reshape(1, 16, 3)
    plane = plane_of(tensor, site(), Look(channel=2))
    assert (plane.values == tensor[0, :, 2].reshape(4, 4)).all()
    assert plane.spatial


def test_words_are_no_pixels() -> None:
    """Tokens of a text encoder stay a matrix, however many there are."""
    plane = plane_of(np.zeros((1, 16, 3)), site("text_encoder.layer"), Look())
    assert plane.values.shape == (16, 3)
    assert not plane.spatial


@pytest.mark.parametrize("shape", [(), (7,), (2, 7), (1, 20, 3), (1, 2, 3, 4, 5), (0, 3, 4, 4), (1, 2, 3, 4, 5, 6)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
def test_every_shape_has_a_plane(shape: tuple[int, ...], dtype: str) -> None:
    """Any tensor comes out as two dimensions."""
    assert plane_of(np.zeros(shape, dtype=dtype), site(), Look(channel=9, batch=9)).values.ndim == 2


def test_range() -> None:
    """The range leaves out what is not finite; percentiles leave out outliers; a diverging map is symmetric."""
    values = np.append(np.linspace(-1, 3, 1001), [1000.0, np.nan, np.inf])
    assert value_range(values, Look()) == (-1, 1000)
    assert value_range(values, Look(clipped=True))[1] < 3.1
    assert value_range(np.array([-1.0, 3.0]), Look(colours="coolwarm")) == (-3, 3)
    assert all(math.isnan(end) for end in value_range(np.array([np.nan]), Look()))


@pytest.mark.parametrize("change", CHANGES)
def test_look_comes_back_or_goes_on(change: str) -> None:
    """Whatever a key changes, pressing it often enough never fails; lists start again at their end."""
    look = Look()
    seen = {look}
    for _ in range(12):
        look = CHANGES[change](look)
        seen.add(look)
    assert len(seen) > 1 or change.startswith("previous")

"""The conditional part is known by how guidance put the parts together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffusion_xray.tracer.recording.guidance_fit import conditional_part


def parts(count: int = 2, batch: int = 2) -> list[Tensor]:
    """Predictions that differ a little, as those of guidance do."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(batch, 4, 8, 8, generator=generator)
    return [common + 0.1 * torch.randn(batch, 4, 8, 8, generator=generator) for _ in range(count)]


def guided(u: Tensor, c: Tensor, w: float) -> Tensor:
    """Classifier-free guidance."""
    return u + w * (c - u)


@pytest.mark.parametrize("scale", [1.5, 3.0, 15.0])
def test_either_order(scale: float) -> None:
    """The part with a weight above one is conditional, wherever it stands."""
    u, c = parts()
    assert conditional_part([u, c], guided(u, c, scale)) == 1
    assert conditional_part([c, u], guided(u, c, scale)) == 0


def test_rescaled_and_negated() -> None:
    """Guidance that is rescaled for each picture, or of which the sign is changed, tells the same."""
    u, c = parts()
    result = guided(u, c, 7.5)
    factor = c.std((1, 2, 3), keepdim=True) / result.std((1, 2, 3), keepdim=True)
    for changed in (result * (0.7 * factor + 0.3), -result):
        assert conditional_part([u, c], changed) == 1
        assert conditional_part([c, u], changed) == 0


def test_half_precision() -> None:
    """Rounding to 16 bit is not taken for something else."""
    u, c = (part.half() for part in parts())
    assert conditional_part([u, c], guided(u, c, 5.0)) == 1


@pytest.mark.parametrize("scale", [0.0, 0.4, 1.0])
def test_between_the_parts_it_could_be_either(scale: float) -> None:
    """Without guidance proper there is nothing to tell."""
    u, c = parts()
    assert conditional_part([u, c], guided(u, c, scale)) is None


def test_three_parts() -> None:
    """Of image and text guidance, and of perturbed attention, the one that guidance moves towards."""
    u, i, t = parts(3)
    assert conditional_part([t, i, u], u + 7.5 * (t - i) + 1.5 * (i - u)) == 0
    u, c, p = parts(3)
    assert conditional_part([u, c, p], u + 5.0 * (c - u) + 3.0 * (c - p)) == 1
    assert conditional_part([t, i, u], u + 2.0 * (t - i) + 3.0 * (i - u)) is None, "two are moved towards"


def test_what_was_made_otherwise_tells_nothing() -> None:
    """Neither does a result that is no combination, equal parts, other shapes, NaN, nor pictures that disagree."""
    u, c = parts()
    other = torch.randn(u.shape, generator=torch.Generator().manual_seed(9))
    assert conditional_part([u, c], guided(u, c, 3.0) + 0.5 * other) is None
    assert conditional_part([u, u.clone()], u) is None
    assert conditional_part([u, c], guided(u, c, 3.0)[:, :2]) is None
    assert conditional_part([u, c * torch.nan], guided(u, c, 3.0)) is None
    assert conditional_part([u], u) is None
    mixed = torch.cat([guided(u, c, 3.0)[:1], guided(c, u, 3.0)[1:]])
    assert conditional_part([u, c], mixed) is None


def test_a_weight_for_each_frame() -> None:
    """Video pipelines may begin with frames that are not guided and grow from there; mixed orders tell nothing."""
    generator = torch.Generator().manual_seed(0)
    u, c = (torch.randn(2, 6, 4, 8, 8, generator=generator) for _ in range(2))
    growing = torch.linspace(1, 3, 6).view(1, 6, 1, 1, 1)
    assert conditional_part([u, c], u + growing * (c - u)) == 1
    assert conditional_part([c, u], u + growing * (c - u)) == 0
    assert conditional_part([u, c], u + torch.linspace(0, 1, 6).view(1, 6, 1, 1, 1) * (c - u)) is None
    crossed = torch.tensor([3.0, -2, 3, -2, 3, -2]).view(1, 6, 1, 1, 1)
    assert conditional_part([u, c], u + crossed * (c - u)) is None

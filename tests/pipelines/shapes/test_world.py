"""The shapes world: captions, drawing, masks and the held-out share."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_xray.pipelines.shapes.world import (
    BACKGROUNDS,
    COLOURS,
    IMAGE_SIZE,
    POSITIONS,
    RELATIONS,
    SHAPES,
    Object,
    Scene,
    coverage,
    is_held_out,
    render,
    sample_scene,
)

_THING = rf"a (?:(?:small|big) )?(?:{'|'.join(COLOURS)}) (?:{'|'.join(SHAPES)})"
_PLACE = rf"at the (?:{'|'.join(filter(None, POSITIONS))})|(?:{'|'.join(RELATIONS)}) {_THING}"
_GRAMMAR = re.compile(rf"{_THING}(?: (?:{_PLACE}))? on (?:{'|'.join(BACKGROUNDS)})")

scenes = st.builds(lambda seed: sample_scene(np.random.default_rng(seed)), st.integers(0, 2**32 - 1))


@given(scenes)
def test_captions_stay_in_the_grammar(scene: Scene) -> None:
    """Every caption matches the grammar, and leaving out the articles leaves out nothing else."""
    assert _GRAMMAR.fullmatch(scene.caption())
    assert scene.caption(articles=False).split() == [word for word in scene.caption().split() if word != "a"]


@given(scenes)
def test_masks_equal_the_drawn_pixels(scene: Scene) -> None:
    """Where a mask is one the picture has the object's colour, and where all are zero it is background."""
    picture, masks = render(scene)
    assert picture.shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
    assert picture.dtype == np.uint8
    assert masks.shape == (len(scene.objects), IMAGE_SIZE, IMAGE_SIZE)
    assert masks.dtype == np.float32
    for thing, mask in zip(scene.objects, masks, strict=True):
        assert (picture[mask == 1] == COLOURS[thing.colour]).all()
        assert (mask == 1).any()
    assert (picture[(masks == 0).all(0)] == BACKGROUNDS[scene.background]).all()


@given(scenes)
def test_objects_stay_inside_and_apart(scene: Scene) -> None:
    """No object is cut off (a star, the widest, reaches 1.1 radii), and no pixel is mostly in two objects."""
    for thing in scene.objects:
        assert 1.1 * thing.radius <= min(thing.x, thing.y, IMAGE_SIZE - thing.x, IMAGE_SIZE - thing.y)
    _, masks = render(scene)
    assert ((masks > 0.5).sum(0) <= 1).all()


@given(scenes)
def test_objects_differ_in_colour(scene: Scene) -> None:
    """Two objects never share a colour, so a colour names its object."""
    assert len({thing.colour for thing in scene.objects}) == len(scene.objects)


@given(scenes)
def test_relations_hold_between_the_centres(scene: Scene) -> None:
    """The first object of a two-object scene stands where its caption says."""
    if len(scene.objects) == 2:
        first, second = scene.objects
        holds = {
            "left of": first.x < second.x,
            "right of": first.x > second.x,
            "above": first.y < second.y,
            "below": first.y > second.y,
        }
        assert holds[scene.placement]


def test_a_tenth_of_the_captions_is_held_out() -> None:
    """About one caption in ten is kept from training."""
    rng = np.random.default_rng(0)
    captions = {scene.caption(): scene for scene in (sample_scene(rng) for _ in range(6000))}
    share = np.mean([is_held_out(scene) for scene in captions.values()])
    assert 0.08 < share < 0.12


@pytest.mark.parametrize(
    ("scene", "held_out"),
    [
        (Scene((Object("purple", "square", "", 0, 0, 9),), "right", "gray"), True),
        (Scene((Object("yellow", "ring", "", 0, 0, 9),), "left", "black"), True),
        (Scene((Object("red", "circle", "", 0, 0, 9),), "", "white"), False),
    ],
)
def test_the_held_out_captions_never_change(scene: Scene, held_out: bool) -> None:
    """Which captions are held out depends on their words alone, or shipped weights could not be measured again."""
    assert is_held_out(scene) is held_out


def test_drawing_is_repeatable() -> None:
    """The same seed gives the same scene and the same picture."""
    first, second = (sample_scene(np.random.default_rng(4)) for _ in range(2))
    assert first == second
    assert (render(first)[0] == render(second)[0]).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_larger_radii_cover_more(shape: str) -> None:
    """The area of a shape grows with its radius."""
    areas = [coverage(shape, 32, 32, radius).sum() for radius in (8, 10, 12, 14)]
    assert areas == sorted(areas)
    assert areas[-1] > 2 * areas[0]


def test_unknown_shapes_are_named() -> None:
    """An unknown shape raises an error that names it and the known ones."""
    with pytest.raises(ValueError, match=r"unknown shape 'heart'.*circle"):
        coverage("heart", 32, 32, 10)

"""The judge: passes what is right, names what is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from diffusion_xray.pipelines.shapes.judge import Verdict, judge, object_masks
from diffusion_xray.pipelines.shapes.world import (
    BACKGROUNDS,
    COLOURS,
    POSITIONS,
    SHAPES,
    Scene,
    render,
    sample_scene,
)

ALL_RIGHT = Verdict(background=True, colour=True, placement=True, shape=True, size=True, no_foreign=True)
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

seeds = st.integers(0, 2**32 - 1)
swaps = settings(max_examples=40)


def scene_of(seed: int, *, objects: int | None = None) -> Scene:
    """The scene that a seed draws."""
    return sample_scene(np.random.default_rng(seed), objects=objects)


def picture_of(scene: Scene) -> NDArray[np.uint8]:
    """The true picture of a scene."""
    return render(scene)[0]


def test_every_rendered_scene_is_right() -> None:
    """300 true pictures are right in every respect."""
    rng = np.random.default_rng(0)
    wrong = [s.caption() for s in (sample_scene(rng) for _ in range(300)) if judge(picture_of(s), s) != ALL_RIGHT]
    assert wrong == []


def test_noise_is_no_mistake() -> None:
    """Noise of 8 grey levels on every pixel does not change the verdict."""
    rng = np.random.default_rng(1)
    for scene in (sample_scene(rng) for _ in range(40)):
        noisy = np.clip(picture_of(scene) + rng.normal(0, 8, (64, 64, 3)), 0, 255).astype(np.uint8)
        assert judge(noisy, scene).everything, scene.caption()


@swaps
@given(seeds, st.sampled_from(list(BACKGROUNDS)))
def test_another_background_is_wrong(seed: int, background: str) -> None:
    """A caption with another background fails on the background and on nothing else."""
    scene = scene_of(seed)
    verdict = judge(picture_of(scene), replace(scene, background=background))
    assert verdict == replace(ALL_RIGHT, background=background == scene.background)


@swaps
@given(seeds, st.sampled_from(list(COLOURS)))
def test_another_colour_is_wrong(seed: int, colour: str) -> None:
    """A caption with a colour that is not in the picture fails on the colour."""
    scene = scene_of(seed)
    asked = replace(scene, objects=(replace(scene.objects[0], colour=colour), *scene.objects[1:]))
    present = colour in {thing.colour for thing in scene.objects[1:]}
    if not present:
        assert judge(picture_of(scene), asked).colour == (colour == scene.objects[0].colour)


@swaps
@given(seeds, st.sampled_from(SHAPES), st.booleans())
def test_another_shape_is_wrong(seed: int, shape: str, last: bool) -> None:
    """A caption with another shape, of either object, fails on the shape and on nothing else."""
    scene = scene_of(seed)
    things = list(scene.objects)
    index = -1 if last else 0
    true = things[index].shape
    things[index] = replace(things[index], shape=shape)
    verdict = judge(picture_of(scene), replace(scene, objects=tuple(things)))
    assert verdict == replace(ALL_RIGHT, shape=shape == true)


@swaps
@given(seeds)
def test_the_opposite_relation_is_wrong(seed: int) -> None:
    """A caption with the opposite relation fails on the placement and on nothing else."""
    scene = scene_of(seed, objects=2)
    verdict = judge(picture_of(scene), replace(scene, placement=OPPOSITE[scene.placement]))
    assert verdict == replace(ALL_RIGHT, placement=False)


@swaps
@given(seeds, st.sampled_from(POSITIONS))
def test_another_position_is_wrong(seed: int, position: str) -> None:
    """A caption with another position fails on the placement, one that states none never does."""
    scene = scene_of(seed, objects=1)
    if scene.placement:
        verdict = judge(picture_of(scene), replace(scene, placement=position))
        assert verdict == replace(ALL_RIGHT, placement=position in ("", scene.placement))


@swaps
@given(seeds)
def test_the_other_size_is_reported_but_does_not_count(seed: int) -> None:
    """A caption with the other size fails on the size, which `everything` leaves out."""
    scene = scene_of(seed, objects=1)
    thing = scene.objects[0]
    if thing.size:
        asked = replace(scene, objects=(replace(thing, size="big" if thing.size == "small" else "small"),))
        verdict = judge(picture_of(scene), asked)
        assert not verdict.size
        assert verdict.everything


def test_a_colour_that_was_not_asked_for_is_wrong() -> None:
    """A patch of another palette colour fails on the colour, a patch of any other colour is reported as foreign."""
    scene = Scene((scene_of(3, objects=1).objects[0],), "", "white")
    scene = replace(scene, objects=(replace(scene.objects[0], colour="red", x=20, y=20, radius=10),))
    for patch, colour_right in ((COLOURS["green"], False), ((90, 60, 20), True)):
        picture = picture_of(scene)
        picture[50:55, 50:55] = patch
        verdict = judge(picture, scene)
        assert verdict.colour is colour_right
        assert not verdict.no_foreign


@pytest.mark.parametrize("value", [0, 128, 255])
def test_an_empty_picture_has_only_a_background(value: int) -> None:
    """A flat picture fails on everything that needs an object."""
    scene = replace(scene_of(5, objects=2), background={0: "black", 128: "gray", 255: "white"}[value])
    verdict = judge(np.full((64, 64, 3), value, np.uint8), scene)
    assert verdict == Verdict(background=True, colour=False, placement=False, shape=False, size=False, no_foreign=True)


@swaps
@given(seeds)
def test_the_masks_of_objects_come_from_the_picture(seed: int) -> None:
    """The pixels found of each object are those it was drawn with, wherever the scene says it is."""
    scene = scene_of(seed)
    picture, drawn = render(scene)
    elsewhere = replace(scene, objects=tuple(replace(thing, x=0, y=0, radius=1) for thing in scene.objects))
    found = object_masks(picture, elsewhere)
    assert found is not None
    assert found.shape == drawn.shape
    wrong = found != (
        drawn >= 0.5
    )  # a whole edge may cover half of its pixels, which the levels of a picture cannot tell
    assert np.abs(drawn[wrong] - 0.5).max(initial=0) < 0.02


def test_no_masks_of_what_is_not_there() -> None:
    """Where an object of the asked colour and shape is not to be found, or the background is another, there is none."""
    scene = Scene((replace(scene_of(3, objects=1).objects[0], colour="red", shape="star"),), "", "white")
    thing = scene.objects[0]
    picture = picture_of(scene)
    assert object_masks(picture, scene) is not None
    for asked in (
        replace(scene, background="gray"),
        replace(scene, objects=(replace(thing, colour="blue"),)),
        replace(scene, objects=(replace(thing, shape="ring"),)),
    ):
        assert object_masks(picture, asked) is None


def test_other_picture_formats_are_refused() -> None:
    """A picture of another shape or type raises an error that names what came and what is taken."""
    with pytest.raises(ValueError, match=r"uint8 \(64, 64, 3\).*float32 \(64, 64, 3\)"):
        judge(np.zeros((64, 64, 3), np.float32), scene_of(0))

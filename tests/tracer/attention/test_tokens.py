"""What positions stand for."""

from __future__ import annotations

from typing import Any

import pytest

from diffusion_xray.tracer.attention.tokens import Part, kind_of, part_labels, parts_from_attributes, places

IMAGE = {"kind": "image", "start": 0, "shape": [2, 3]}
TEXT = {"kind": "text", "start": 6, "shape": [4]}


def test_parts_cover_the_sequence() -> None:
    """A joint sequence is read as its parts in order, each with its span."""
    image, text = parts_from_attributes([IMAGE, TEXT], 10)
    assert (image.kind, image.shape, image.span) == ("image", (2, 3), slice(0, 6))
    assert (text.kind, text.size, text.span) == ("text", 4, slice(6, 10))
    assert part_labels([image, text]).tolist() == ["image"] * 6 + ["text"] * 4


@pytest.mark.parametrize(
    "broken",
    [
        None,
        [],
        {},
        "image",
        [IMAGE],
        [TEXT],
        [TEXT, IMAGE],
        [IMAGE, TEXT, TEXT],
        [IMAGE, None],
        [IMAGE, {**TEXT, "start": 5}],
        [{**IMAGE, "shape": [6]}, TEXT],
        [{**IMAGE, "shape": [2, -3]}, TEXT],
        [{**IMAGE, "shape": [2, 3.0]}, TEXT],
        [{**IMAGE, "shape": [True, 6]}, TEXT],
        [{**IMAGE, "shape": "23"}, TEXT],
        [{**IMAGE, "shape": [10**30, 10**30]}, TEXT],
        [{**IMAGE, "kind": ["image"]}, TEXT],
    ],
    ids=repr,
)
def test_parts_that_do_not_fit_are_unknown(broken: Any) -> None:
    """Whatever does not cover the sequence in order says nothing about it."""
    assert parts_from_attributes(broken, 10) == (Part("other", 0, (10,)),)


def test_places_are_row_major() -> None:
    """Positions of an image lie row by row, those of a video frame by frame, and others nowhere."""
    found = places([Part("text", 0, (2,)), Part("image", 2, (2, 3))])
    assert found["y"].tolist() == [-1, -1, 0, 0, 0, 1, 1, 1]
    assert found["x"].tolist() == [-1, -1, 0, 1, 2, 0, 1, 2]
    video = places([Part("image", 0, (2, 1, 2))])
    assert {axis: place.tolist() for axis, place in video.items()} == {
        "frame": [0, 0, 1, 1],
        "y": [0, 0, 0, 0],
        "x": [0, 1, 0, 1],
    }
    assert places([Part("other", 0, (3,))]) == {}


def test_kinds_of_attention() -> None:
    """Own positions make self-attention, others cross-attention, image and text among the keys joint attention."""
    image, text, other = Part("image", 0, (2, 2)), Part("text", 0, (5,)), Part("other", 0, (5,))
    assert kind_of([image], [image]) == kind_of([text], [text]) == kind_of([other], [other]) == "self"
    assert kind_of([image], [text]) == kind_of([image], [other]) == "cross"
    assert kind_of([other], [Part("other", 0, (3,))]) == "cross"
    assert kind_of([image], [text, image]) == kind_of([image, text], [image, text]) == "joint"

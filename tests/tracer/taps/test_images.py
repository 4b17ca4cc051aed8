"""Pictures are found in whatever a pipeline returns, and what is no picture is not taken for one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from diffusion_xray.tracer import Tracer
from diffusion_xray.tracer.taps.images import images_in, pictures_of

GREEN = np.zeros((2, 6, 8, 3), np.uint8)
GREEN[..., 1] = 200
PIL = [Image.fromarray(picture) for picture in GREEN]
PT = torch.from_numpy(np.moveaxis(GREEN, -1, 1).copy()).float() / 255


@pytest.mark.parametrize(
    ("result", "shape"),
    [
        (SimpleNamespace(images=PIL), (2, 6, 8, 3)),
        (SimpleNamespace(image=PIL[0]), (1, 6, 8, 3)),
        (SimpleNamespace(videos=[PIL, PIL]), (2, 2, 6, 8, 3)),
        (SimpleNamespace(videos=PT[None]), (1, 2, 6, 8, 3)),
        (SimpleNamespace(frames=PT[None].transpose(1, 2)), (1, 2, 6, 8, 3)),
        (SimpleNamespace(images=[picture.convert("L") for picture in PIL]), (2, 6, 8, 1)),
        ((PIL, None), (2, 6, 8, 3)),
        ({"images": PIL, "latents": torch.zeros(1, 4, 8, 8)}, (2, 6, 8, 3)),
        (SimpleNamespace(values={"image": PIL[0], "images": PT}), (2, 6, 8, 3)),
        (PIL, (2, 6, 8, 3)),
        (GREEN, (2, 6, 8, 3)),
        (PT, (2, 6, 8, 3)),
        (PT[0], (1, 6, 8, 3)),
    ],
)
def test_pictures_are_found(result: Any, shape: tuple[int, ...]) -> None:
    """In fields, singly or in lists, bare, in a state, in any layout: they come with the colours last."""
    (found,) = pictures_of(result)
    assert found.shape == shape
    largest = 1 if shape[-1] == 1 else found.reshape(-1, shape[-1]).argmax(axis=1).min()
    assert largest == 1


@pytest.mark.parametrize(
    "result",
    [
        None,
        "done",
        torch.zeros(1, 4, 8, 8),
        torch.zeros(1, 16, 8, 8),
        torch.zeros(3),
        SimpleNamespace(audios=np.zeros((1, 2, 100))),
        SimpleNamespace(values={"image": PIL[0], "latents": torch.zeros(1, 4, 8, 8)}),
        SimpleNamespace(images=[]),
        SimpleNamespace(images=["a.png"]),
        [1.0, 2.0],
        {"loss": torch.zeros(())},
    ],
)
def test_other_things_are_no_pictures(result: Any) -> None:
    """Latents, sounds, numbers, and the picture that a pipeline was given are not what it returned."""
    assert pictures_of(result) == []


def test_pictures_of_several_sizes_come_one_by_one() -> None:
    """Where pictures do not fit into one array, each has its own."""
    found = pictures_of(SimpleNamespace(images=[PIL[0], PIL[1].resize((4, 4))]))
    assert [part.shape for part in found] == [(1, 6, 8, 3), (1, 4, 4, 3)]
    assert images_in([PIL[0], PIL[1].resize((4, 4))]) is None


class Modular:
    """Called as modular pipelines are, with a state and the names of what to return."""

    def __init__(self) -> None:
        self.components = {"unet": nn.Identity()}

    def __call__(self, state: Any = None, output: str | None = None, **kwargs: Any) -> Any:
        """Return one thing, or all."""
        values = {"images": PT, "latents": torch.zeros(1, 3, 8, 8), **kwargs}
        return SimpleNamespace(values=values) if output is None else values[output]


@pytest.mark.filterwarnings("ignore:nothing was recorded")
@pytest.mark.parametrize(("output", "found"), [("images", True), (None, True), ("latents", False)])
def test_a_modular_pipeline_has_its_pictures_and_arguments_recorded(
    tmp_path: Path, output: str | None, found: bool
) -> None:
    """What is asked for by `output` is recorded where it is pictures; its keyword arguments are the call's."""
    pipe = Modular()
    with Tracer(pipe, tmp_path / "run.zarr") as tracer:
        pipe(output=output, prompt="a green field")
    trace = tracer.trace
    assert trace.info.tap_failures == ()
    assert trace.info.call["prompt"] == "a green field"
    assert (trace.images is not None) == found
    if trace.images is not None:
        assert np.array_equal(trace.images, np.moveaxis(PT.numpy(), 1, -1))

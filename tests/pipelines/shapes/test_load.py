"""The embedded model as shipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline, StableDiffusionPipeline
from PIL import Image

from diffusion_xray.pipelines.shapes.judge import judge
from diffusion_xray.pipelines.shapes.load import WEIGHTS, load_pipeline
from diffusion_xray.pipelines.shapes.quality import generate
from diffusion_xray.pipelines.shapes.world import IMAGE_SIZE, Object, Scene, is_held_out, render


def one(words: str, placement: str, background: str) -> Scene:
    """A scene of one object, as far as its caption tells."""
    return Scene((thing(words),), placement, background)


def two(first: str, placement: str, second: str, background: str) -> Scene:
    """A scene of two objects, as far as its caption tells."""
    return Scene((thing(first), thing(second)), placement, background)


def thing(words: str) -> Object:
    """An object from its words; where it is does not matter."""
    *size, colour, shape = words.split()
    return Object(colour, shape, " ".join(size), 32, 32, 12)


HELD_OUT = (
    one("small yellow star", "", "black"),
    one("cyan square", "bottom", "black"),
    one("yellow ring", "left", "black"),
    one("small purple triangle", "top", "black"),
    one("blue circle", "left", "black"),
    one("purple square", "right", "white"),
    two("big cyan triangle", "right of", "small purple triangle", "black"),
    two("green square", "left of", "red circle", "white"),
    two("big yellow circle", "above", "big blue square", "gray"),
    two("big purple ring", "below", "small yellow star", "black"),
    two("purple triangle", "above", "big blue ring", "white"),
    two("small blue square", "right of", "small cyan ring", "black"),
)
"""Captions the shipped model gets right; the report next to the weights says how many of all it does."""


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    """The shipped model, loaded once."""
    return load_pipeline()


@pytest.fixture
def picture() -> Image.Image:
    """A true picture: a red circle at the left on white."""
    scene = Scene((Object("red", "circle", "", 18, 32, 10),), "left", "white")
    return Image.fromarray(render(scene)[0])


def test_it_is_a_stable_diffusion_pipeline(pipeline: StableDiffusionPipeline) -> None:
    """The model is a genuine pipeline in float32."""
    assert isinstance(pipeline, StableDiffusionPipeline)
    assert {str(part.dtype) for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder)} == {"torch.float32"}


def test_the_weights_are_small_and_safe() -> None:
    """The weights folder has at most 10 MB and no file that runs code when it is loaded."""
    files = [file for file in Path(WEIGHTS).rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 10_000_000
    assert any(file.suffix == ".safetensors" for file in files)
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".txt", ".md"}


def test_the_fixed_captions_are_held_out() -> None:
    """The captions that the next test draws were never trained on."""
    assert all(is_held_out(scene) for scene in HELD_OUT)


def test_held_out_captions_come_out_right(pipeline: StableDiffusionPipeline) -> None:
    """Captions that training never showed are drawn with the right background, colours, placement and shapes."""
    pictures = generate(pipeline, [scene.caption() for scene in HELD_OUT], steps=25)
    verdicts = {s.caption(): judge(drawn, s) for s, drawn in zip(HELD_OUT, pictures, strict=True)}
    assert {caption: verdict for caption, verdict in verdicts.items() if not verdict.everything} == {}


def test_a_seed_gives_one_picture(pipeline: StableDiffusionPipeline) -> None:
    """The same seed gives the same picture, another seed another one."""
    first, same, other = (generate(pipeline, ["a red circle on white"], steps=4, seed=seed) for seed in (1, 1, 2))
    assert (first == same).all()
    assert (first != other).any()


def test_image_to_image_runs(pipeline: StableDiffusionPipeline, picture: Image.Image) -> None:
    """An image-to-image pipeline of the same components gives a picture of the right size."""
    variant = StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
    variant.set_progress_bar_config(disable=True)
    drawn = variant(
        "a blue circle on white",
        image=picture,
        strength=0.6,
        num_inference_steps=10,
        generator=torch.Generator().manual_seed(0),
    ).images[0]
    assert drawn.size == (IMAGE_SIZE, IMAGE_SIZE)


def test_inpainting_keeps_what_is_not_masked(pipeline: StableDiffusionPipeline, picture: Image.Image) -> None:
    """An inpainting pipeline of the same components leaves the left half, outside the mask, nearly as it was."""
    mask = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    mask[:, IMAGE_SIZE // 2 :] = 255
    variant = StableDiffusionInpaintPipeline(**pipeline.components, requires_safety_checker=False)
    variant.set_progress_bar_config(disable=True)
    drawn = variant(
        "a red circle left of a blue square on white",
        image=picture,
        mask_image=Image.fromarray(mask),
        height=IMAGE_SIZE,
        width=IMAGE_SIZE,
        num_inference_steps=10,
        generator=torch.Generator().manual_seed(0),
    ).images[0]
    assert drawn.size == (IMAGE_SIZE, IMAGE_SIZE)
    kept = slice(0, IMAGE_SIZE // 2 - 4)  # the autoencoder mixes a few pixels across the mask's edge
    difference = np.abs(np.asarray(drawn, float)[:, kept] - np.asarray(picture, float)[:, kept])
    assert difference.mean() < 5


def test_it_is_found_by_a_short_name() -> None:
    """`diffusion_xray.pipelines` has it, without loading torch for what else is there."""
    from diffusion_xray import pipelines

    assert pipelines.load_pipeline is load_pipeline
    with pytest.raises(AttributeError, match="nothing_else"):
        _ = pipelines.nothing_else

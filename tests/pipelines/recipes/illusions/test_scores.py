"""Which prompt a picture shows, asked of the denoiser."""

import numpy as np
import torch

from diffusion_xray.pipelines.recipes.illusions.scores import prompt_errors
from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.pipelines.shapes.world import Object, Scene, render


def test_a_picture_is_told_by_its_caption() -> None:
    """Pictures that the world draws are denoised best under their own caption."""
    star, ring = Object("red", "star", "big", 32, 20, 13), Object("red", "ring", "big", 32, 20, 13)
    below = Object("red", "star", "big", 32, 46, 13)
    scenes = [Scene((star,), "top", "white"), Scene((ring,), "top", "white"), Scene((below,), "bottom", "white")]
    drawn = np.stack([render(scene)[0] for scene in scenes])
    pictures = torch.from_numpy(drawn).movedim(-1, 1) / 255
    captions = [scene.caption() for scene in scenes]
    noise = torch.Generator().manual_seed(0)
    errors = prompt_errors(load_pipeline(), pictures, captions, noise, timesteps=range(100, 1000, 200))
    assert errors.shape == (5, 3, 3)
    assert errors.mean(dim=0).argmin(dim=1).tolist() == [0, 1, 2]


def test_only_the_prompt_makes_the_difference() -> None:
    """The same prompt twice gives the same error: the noise is shared."""
    picture = torch.full((1, 3, 64, 64), 0.5)
    twice = ["a red star on gray"] * 2
    errors = prompt_errors(load_pipeline(), picture, twice, torch.Generator().manual_seed(0), timesteps=[500], draws=1)
    assert errors[0, 0, 0] == errors[0, 0, 1]

"""Inpainting by a mask."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from diffusion_xray.pipelines.recipes.images.inpaint import inpaint
from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.tracer import open_trace
from diffusion_xray.tracer.errors import RecipeError


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe, once for each prompt."""
    lab = Lab(tmp_path_factory.mktemp("inpaint"), quiet=True)
    inpaint(lab, steps=15, pictures=1)
    return lab


def test_the_known_part_is_the_noised_original_at_every_step(lab: Lab) -> None:
    """Where the picture is kept, the latents are those that the scheduler of diffusers makes of it; elsewhere not."""
    trace = open_trace(lab.traces[0])
    records = {
        name: torch.from_numpy(trace[f"records.{name}"]["output"].values) for name in ("original", "noise", "keep")
    }
    latents = torch.from_numpy(trace.steps["latents"].values)
    timesteps = torch.from_numpy(trace.timestep).long()
    scheduler = load_pipeline().scheduler
    keep = records["keep"].bool().expand_as(latents[0])
    for step, t in enumerate(timesteps):
        noised = scheduler.add_noise(records["original"].expand_as(latents[0]), records["noise"], t)
        torch.testing.assert_close(latents[step][keep], noised[keep], atol=1e-5, rtol=0)
    assert (latents[-1][~keep] - noised[~keep]).abs().max() > 0.5


def test_the_kept_part_is_the_original(lab: Lab) -> None:
    """It comes out about as well as the autoencoder alone has it, and far better than without putting it back."""
    alone = lab["kept part: PSNR of the autoencoder alone"]
    assert lab["kept part: PSNR of the results"] > alone - 4 > lab["kept part: PSNR without the mask"] + 10


def test_the_mask_is_filled_as_the_prompt_says(lab: Lab) -> None:
    """The judge finds the whole scene in nearly all of the pictures."""
    assert lab["right by the judge"] >= 75


def test_own_pictures(tmp_path: Path) -> None:
    """A picture, a mask and a prompt of one's own; what is lacking is said."""
    for name, colour in (("picture", (255, 255, 255)), ("mask", (0, 0, 0))):
        Image.new("RGB", (80, 60), colour).save(tmp_path / f"{name}.png")
    lab = Lab(tmp_path / "out", quiet=True)
    picture, mask = tmp_path / "picture.png", tmp_path / "mask.png"
    inpaint(lab, picture=picture, mask=mask, prompt=("a red circle on white",), steps=2, pictures=1)
    assert lab["kept part: PSNR of the results"] == pytest.approx(lab["kept part: PSNR of the autoencoder alone"])
    with pytest.raises(RecipeError, match="give --mask"):
        inpaint(lab, picture=picture, prompt=("a red circle on white",))
    with pytest.raises(RecipeError, match="give --prompt"):
        inpaint(lab, picture=picture, mask=mask)

"""Any text-to-image pipeline, as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.pipelines.recipes.sampling.text_to_image import text_to_image
from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.pipelines.shapes.world import COLOURS
from diffusion_xray.tracer import open_trace
from diffusion_xray.tracer.cli import main
from diffusion_xray.tracer.errors import RecipeError

from ....families import FAMILIES, PROMPT

pytestmark = pytest.mark.filterwarnings(  # NumPy's about `np.array(tensor)` in the schedulers of diffusers
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

STEPS = 8


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe, run with few steps."""
    lab = Lab(tmp_path_factory.mktemp("text_to_image"), quiet=True)
    text_to_image(lab, steps=STEPS)
    return lab


def test_the_picture_is_the_pipelines(lab: Lab) -> None:
    """It is the one that an untraced call draws."""
    prompt = "a red circle left of a blue square on white"
    told: dict[str, Any] = {"num_inference_steps": STEPS, "guidance_scale": 3.0}
    pipe = load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    plain = pipe(prompt, **told, generator=torch.Generator().manual_seed(0)).images
    images = open_trace(lab.traces[0]).images
    assert images is not None
    np.testing.assert_array_equal(images[0], np.asarray(plain[0]))


def test_words_are_where_their_objects_are(lab: Lab) -> None:
    """The map of a colour word is largest on pixels of that colour; half of x0's way is gone at half time."""
    trace = open_trace(lab.traces[0])
    assert trace.images is not None
    picture = trace.images[0].astype(float)
    for word in ("red", "blue"):
        found = trace.word_map(word).mean("step").values
        y, x = np.unravel_index(found.argmax(), found.shape)
        cell = picture.shape[0] // found.shape[0]
        patch = picture[y * cell : (y + 1) * cell, x * cell : (x + 1) * cell].reshape(-1, 3)
        distances = {name: np.abs(patch - colour).sum(axis=1).min() for name, colour in COLOURS.items()}
        assert min(distances, key=lambda name: distances[name]) == word
        assert 0 < lab[f"attention on {word!r}"] < 100
    assert lab["what is left of x0's way at half time"] < 50


def test_the_largest_activation_is_that_of_the_trace(lab: Lab) -> None:
    """No output of the loop is larger, and some module has it."""
    values = open_trace(lab.traces[0]).table("unet").column("abs_max")
    outputs = [row for row, site in enumerate(open_trace(lab.traces[0]).table("unet").sites) if site.port == "output"]
    assert lab["largest activation"] == np.nanmax(values[:, outputs])


def test_three_figures(lab: Lab) -> None:
    """x0 over the steps, words, and activations."""
    assert [shown.file.name for shown in lab.figures] == ["x0.png", "words.png", "largest.png"]


def test_a_word_that_is_not_in_the_prompt(tmp_path: Path) -> None:
    """It is named, with those that are."""
    with pytest.raises(RecipeError, match=r"no map of otter: no word 'otter' in the prompt; it has .*circle"):
        text_to_image(Lab(tmp_path, quiet=True), words=("otter",), steps=1)


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux", "pixart", "deepfloyd_if"])
def test_saved_families_run_by_folder(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a pipeline is made of, it loads from its folder and leaves its trace, its x0, and maps of its words."""
    FAMILIES[name]().pipeline.save_pretrained(tmp_path / name)
    capsys.readouterr()
    told = ["--prompt", PROMPT, "--steps", "2", "--size", "16", "--device", "cpu", "--json"]
    assert main(["run", "text-to-image", "--model", str(tmp_path / name), "--out", str(tmp_path), *told]) == 0
    outcome = json.loads(capsys.readouterr().out)
    figures = [Path(figure["file"]).name for figure in outcome["figures"]]
    assert figures == ["x0.png", "words.png", "largest.png"]
    trace = open_trace(outcome["traces"][0])
    assert trace.n_steps == 2 and "x0" in trace.steps
    assert trace.images is not None and trace.images.shape == (1, 16, 16, 3)
    assert {f"attention on {word!r}" for word in ("red", "circle", "blue")} <= set(outcome["findings"])
    assert outcome["findings"]["largest activation"] > 0


@pytest.mark.parametrize("name", ["sd_img2img", "cogvideox"])
def test_what_draws_no_picture_from_a_prompt_alone(name: str, tmp_path: Path) -> None:
    """A pipeline that wants a picture, or makes a video, is refused by its class."""
    pipeline = FAMILIES[name]().pipeline
    pipeline.save_pretrained(tmp_path / name)
    with pytest.raises(RecipeError, match=f"a {type(pipeline).__name__} makes no picture from a prompt alone"):
        text_to_image(Lab(tmp_path, model=str(tmp_path / name), device="cpu", quiet=True))


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_a_loop_written_out_runs_on_unets(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`ddim` draws with the UNets of Stable Diffusion and of SDXL as their pipelines do."""
    FAMILIES[name]().pipeline.save_pretrained(tmp_path / name)
    capsys.readouterr()
    told = ["--prompt", PROMPT, "--steps", "3", "--device", "cpu", "--json"]
    assert main(["run", "ddim", "--model", str(tmp_path / name), "--out", str(tmp_path), *told]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert open_trace(outcome["traces"][0]).n_steps == 3
    assert outcome["findings"]["largest difference to diffusers' latents"] < 1e-4


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_a_loop_written_out_refuses_transformers(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`ddim` says in one line what it needs instead of SD 3 and Flux, with exit code 2."""
    pipeline = FAMILIES[name]().pipeline
    pipeline.save_pretrained(tmp_path / name)
    capsys.readouterr()
    assert main(["run", "ddim", "--model", str(tmp_path / name), "--out", str(tmp_path), "--device", "cpu"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert type(pipeline).__name__ in line and "Stable Diffusion 1.x, 2.x and XL" in line

"""Both stages of DeepFloyd IF in one trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from torch.nn import functional

from diffusion_xray.pipelines.recipes.cascade.cascade import cascade
from diffusion_xray.pipelines.recipes.cascade.random_floyd import random_floyd
from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.tracer import Trace, open_trace
from diffusion_xray.tracer.cli import main
from diffusion_xray.tracer.errors import RecipeError

STEPS = 3


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe, run with few steps."""
    lab = Lab(tmp_path_factory.mktemp("cascade"), quiet=True)
    cascade(lab, steps=STEPS)
    return lab


@pytest.fixture(scope="module")
def trace(lab: Lab) -> Trace:
    """What it traced."""
    (path,) = lab.traces
    return open_trace(path)


def test_it_is_what_the_pipelines_of_diffusers_draw(lab: Lab, trace: Trace) -> None:
    """The traced run equals an untraced one through both pipelines to the bit."""
    assert lab["largest difference to diffusers' stage 1"] == 0
    assert lab["largest difference to diffusers' stage 2"] == 0
    first, second = random_floyd()
    random = torch.Generator().manual_seed(0)
    text, no_text = first.encode_prompt("a red circle on white")
    told = {"prompt_embeds": text, "negative_prompt_embeds": no_text, "num_inference_steps": STEPS}
    told |= {"guidance_scale": 4.0, "generator": random, "output_type": "pt"}
    large = second(**told, image=first(**told).images).images
    expected = (large / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(trace.images, expected)


def test_both_stages_lie_one_after_the_other(trace: Trace) -> None:
    """The trace has the steps of both in order, each with the UNet that was called in it, and no gaps."""
    assert trace.timestep.tolist() == [666, 333, 0] * 2
    assert (np.diff(trace.sigma.reshape(2, STEPS)) < 0).all()
    for component, called in (("unet_1", [1, 1, 1, 0, 0, 0]), ("unet_2", [0, 0, 0, 1, 1, 1])):
        assert np.isfinite(trace[f"{component}.conv_in"]["std"].values).tolist() == [bool(it) for it in called]
    assert trace["unet_1.mid_block"]["output"].sizes["step"] == 2 * STEPS
    assert trace.info.status == "complete" and not trace.info.gaps


def test_the_text_is_encoded_once(trace: Trace) -> None:
    """T5 ran for the prompt and for the empty one before the loop, and never again; both UNets attend to its words."""
    texts = [prompt.text for prompt in trace.prompts]
    assert texts == [("a red circle on white",), ("",)]
    assert all(not site.stepped for site in trace.modules["text_encoder"].sites)
    assert trace.prompts[0].tokens[0][:5] == ("▁a", "▁red", "▁circle", "▁on", "▁white")
    attending = [name for name, calls in trace.attention_modules.items() if calls[0].kind != "none"]
    assert {"unet_1", "unet_2"} <= {name.partition(".")[0] for name in attending}


def test_stage_2_is_told_the_picture_and_its_noise(lab: Lab, trace: Trace) -> None:
    """What it is given is stage 1's picture enlarged, with noise of the level asked for, at unit scale or less."""
    small = trace["records.stage_2.small_picture"]["output"].values[STEPS]
    noised = trace["records.stage_2.noised"]["output"].values[STEPS]
    assert small.shape == (1, 3, 16, 16) and noised.shape == (1, 3, 64, 64)
    share = float(DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod[250])
    assert lab["signal left in what stage 2 is given"] == pytest.approx(100 * share**0.5)
    enlarged = functional.interpolate(torch.from_numpy(small), (64, 64), mode="bilinear", align_corners=True).numpy()
    noise = (noised - share**0.5 * enlarged) / (1 - share) ** 0.5
    assert abs(noise.mean()) < 0.03 and noise.std() == pytest.approx(1, abs=0.03)
    levels = trace["unet_2.class_embedding"]["output"].values[STEPS:]
    assert (levels == levels[:1]).all()  # the level stays while the timestep moves
    assert lab["change of stage 2's prediction when told level 999"] > 1


def test_each_stage_has_its_pictures(trace: Trace) -> None:
    """x_t and x0 are there in the stage's own size, at its own steps; x_t ends as the picture expected last."""
    for stage, size, own in ((1, 16, slice(0, STEPS)), (2, 64, slice(STEPS, None))):
        x_t, x0 = (trace[f"records.stage_{stage}.{name}"]["output"].values for name in ("x_t", "x0"))
        assert x_t.shape == (2 * STEPS, 1, 3, size, size)
        assert np.isfinite(x_t[own]).all() and np.isfinite(x0[own]).all()
        assert np.isnan(np.delete(x_t, own, axis=0)).all()
    small = trace["records.stage_2.small_picture"]["output"].values[STEPS]
    np.testing.assert_allclose(trace["records.stage_1.x0"]["output"].values[STEPS - 1], small, atol=1e-6)


def test_three_figures(lab: Lab) -> None:
    """They are written, and the caption says that random weights draw no pictures."""
    assert [shown.file.name for shown in lab.figures] == ["stages.png", "noise_levels.png", "statistics.png"]
    assert all(shown.file.stat().st_size > 5000 for shown in lab.figures)
    assert "Random weights" in lab.figures[0].caption


def test_saved_stages_by_folder(tmp_path: Path, lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """Both stages load from folders, the second without a text encoder, and draw the same picture."""
    first, second = random_floyd()
    first.save_pretrained(tmp_path / "first")
    second.save_pretrained(tmp_path / "second")
    command = ["run", "cascade", "--out", str(tmp_path), "--json", "--device", "cpu", "--steps", str(STEPS)]
    assert main([*command, "--model", str(tmp_path / "first"), "--stage2", str(tmp_path / "second")]) == 0
    assert "Random" not in capsys.readouterr().out
    drawn, expected = open_trace(tmp_path / "cascade" / "trace.zarr").images, open_trace(lab.traces[0]).images
    assert drawn is not None and expected is not None
    np.testing.assert_array_equal(drawn, expected)


def test_one_stage_is_no_cascade(tmp_path: Path) -> None:
    """Where one stage only is named, the error says both."""
    with pytest.raises(RecipeError, match="needs both: --model DeepFloyd/IF-I"):
        cascade(Lab(tmp_path, model="DeepFloyd/IF-I-XL-v1.0", quiet=True))
    with pytest.raises(RecipeError, match="needs both"):
        cascade(Lab(tmp_path, quiet=True), stage2="DeepFloyd/IF-II-L-v1.0")


def test_a_noise_level_that_there_is_not(tmp_path: Path) -> None:
    """It is refused before anything runs."""
    with pytest.raises(RecipeError, match="--noise-level 1000: stage 2 knows levels from 0 to 999"):
        cascade(Lab(tmp_path, quiet=True), noise_level=1000)
    assert not list(tmp_path.iterdir())


def test_stages_in_the_wrong_order(tmp_path: Path) -> None:
    """A second stage as the first is refused by what it takes."""
    first, second = random_floyd()
    first.save_pretrained(tmp_path / "first")
    second.save_pretrained(tmp_path / "second")
    with pytest.raises(
        RecipeError, match=r"--model .*second.* is a IFSuperResolutionPipeline, which is not this stage"
    ):
        cascade(Lab(tmp_path, model=str(tmp_path / "second"), device="cpu", quiet=True), stage2=str(tmp_path / "first"))

"""Stable Diffusion from scratch, beside that of diffusers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel

from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.pipelines.recipes.scratch.from_scratch import from_scratch
from diffusion_xray.pipelines.scratch.sampler import Settings, txt2img
from diffusion_xray.pipelines.scratch.weights import load, module_map
from diffusion_xray.pipelines.shapes.load import WEIGHTS, load_pipeline
from diffusion_xray.tracer import Tracer, open_trace
from diffusion_xray.tracer.cli import main
from diffusion_xray.tracer.errors import RecipeError

PROMPT = "a red circle left of a blue square on white"
MISTAKE = "unet.up.0.residuals.1.conv_in"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe, run with few steps."""
    lab = Lab(tmp_path_factory.mktemp("scratch"), quiet=True)
    from_scratch(lab, steps=3, mistake=MISTAKE)
    return lab


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace of diffusers with every tensor, and beside it the map of names."""
    path = tmp_path_factory.mktemp("original") / "diffusers.zarr"
    pipe = load_pipeline()
    with Tracer(pipe, path, capture="all"):
        pipe(PROMPT, num_inference_steps=1, guidance_scale=3.0, generator=torch.Generator().manual_seed(0))
    names = module_map(load(WEIGHTS, None).networks)
    (path.parent / "names.json").write_text(json.dumps(names))
    return path


def diff(capsys: pytest.CaptureFixture[str], a: Path, b: Path, names: Path) -> tuple[int, Any]:
    """What `dxray diff --json` says, and its exit code."""
    code = main(["diff", str(a), str(b), "--map", str(names), "--tolerance", "1e-4", "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_the_pictures_are_those_of_diffusers(lab: Lab) -> None:
    """Text to image, image to image and inpainting draw the same picture as diffusers."""
    for name in ("txt2img", "img2img", "inpaint"):
        assert lab[f"largest difference of the pictures, {name}"] < 1e-5
    assert lab["weights copied"] == sum(
        weight.numel()
        for part in ("text_encoder", "unet", "vae")
        for weight in getattr(load_pipeline(), part).parameters()
    )


def test_the_trace_has_the_three_loops(lab: Lab) -> None:
    """All steps of the three ways are in the trace, those of image to image from its strength on."""
    trace = open_trace(lab.traces[0])
    assert trace.timestep.tolist() == [999, 666, 332, 666, 332, 999, 666, 332]
    assert {"latents", "x0", "preview"} <= set(trace.steps)
    assert trace.info.guidance == {"unet": {"batch": ["unconditional", "conditional"], "evidence": "embeddings"}}


def test_no_layer_diverges(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """`dxray diff` finds no divergence in any of the layers that the map of names pairs, which are all of ours."""
    code, found = diff(capsys, lab.traces[0], lab.traces[1], lab.folder / "names.json")
    assert code == 0 == lab["tensors that diverge"]
    assert lab["largest distance of a tensor"] < 1e-5
    assert not found["diverges"] and found["first"] is None and found["layers"] == []
    assert found["compared"]["tensors"] == lab["tensors compared"] > 500
    assert found["compared"]["from_tensor"] > 90 and found["compared"]["from_nothing"] == 0
    assert found["only_a"] == []
    assert found["steps"]["pairs"] == [[step, step] for step in range(8)]
    assert found["differs"]["layers"]["a"] != found["differs"]["layers"]["b"]


def test_the_mistake_is_found(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """With one weight wrong the first layer that diverges is the one with that weight, at the first step."""
    code, found = diff(capsys, lab.traces[2], lab.traces[1], lab.folder / "names.json")
    assert code == 1
    assert (found["first"]["site"], found["first"]["step_a"]) == (f"{MISTAKE}:output", 0)
    assert len(found["layers"]) == lab["tensors that diverge, one weight wrong"]


@pytest.mark.parametrize(
    "module",
    [
        "text_encoder.blocks.1.feed_in",
        "unet.down.1.attentions.0.transformer.self_attention.query",
        "vae.decoder.blocks.1.grow",
    ],
)
def test_any_wrong_number_is_found(
    original: Path, tmp_path: Path, module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A single number that is wrong, of all the weights, is traced to its layer, before, in and after the loop."""
    model = load(WEIGHTS, load_pipeline().tokenizer)
    part, _, path = module.partition(".")
    weight = model.networks[part].get_parameter(f"{path}.weight")
    with torch.no_grad():
        weight[(0,) * weight.dim()] += 0.05
    with Tracer(model.parts, tmp_path / "port.zarr", capture="all") as tracer:
        txt2img(model, PROMPT, torch.Generator().manual_seed(0), Settings(1, 3.0), tracer)
    code, found = diff(capsys, tmp_path / "port.zarr", original, original.parent / "names.json")
    assert code == 1
    assert found["first"]["site"] == f"{module}:output"
    assert found["first"]["evidence"] == "tensor"


def test_the_figures(lab: Lab) -> None:
    """Two figures with captions: the pictures, and where the mistake is."""
    assert [shown.file.name for shown in lab.figures] == ["pictures.png", "divergence.png"]
    assert "equal to the bit" in lab.figures[0].caption or "differ by" in lab.figures[0].caption


def test_a_folder_of_stable_diffusion_1(tmp_path: Path) -> None:
    """A saved pipeline with the blocks, the noise schedule and the scheduler of Stable Diffusion 1 is drawn alike."""
    torch.manual_seed(0)
    known = load_pipeline()
    small = {"layers_per_block": 2, "norm_num_groups": 4}
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16, 16, 24), attention_head_dim=2, cross_attention_dim=64, sample_size=8, **small
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        **small,
    )
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, skip_prk_steps=True
    )
    parts = {**known.components, "unet": unet.eval(), "vae": vae.eval(), "scheduler": scheduler}
    StableDiffusionPipeline(**parts, requires_safety_checker=False).save_pretrained(tmp_path / "model")
    lab = Lab(tmp_path / "run", model=str(tmp_path / "model"), device="cpu", quiet=True)
    from_scratch(lab, steps=2)
    assert lab["tensors that diverge"] == 0 < lab["tensors that diverge, one weight wrong"]
    assert lab["largest distance of a tensor"] < 1e-5
    assert max(lab[f"largest difference of the pictures, {name}"] for name in ("txt2img", "img2img", "inpaint")) < 1e-5
    assert open_trace(lab.traces[0]).timestep.tolist() == [501, 1, 1, 501, 1]


def test_an_unknown_module_is_refused(tmp_path: Path) -> None:
    """A mistake in a module that is not there is refused before anything is drawn."""
    with pytest.raises(RecipeError, match=r"unet\.up\.9"):
        from_scratch(Lab(tmp_path, quiet=True), mistake="unet.up.9")
    assert not list(tmp_path.iterdir())

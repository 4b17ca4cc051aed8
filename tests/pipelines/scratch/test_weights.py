"""The key map: every weight of diffusers has one place here, for the embedded model and for Stable Diffusion 1.5."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from diffusion_xray.pipelines.scratch.configs import make_schedule, make_text_encoder, make_unet, make_vae
from diffusion_xray.pipelines.scratch.weights import copy_weights, key_map, load, module_map
from diffusion_xray.pipelines.shapes.load import WEIGHTS
from diffusion_xray.tracer.errors import RecipeError

SD15: dict[str, dict[str, Any]] = {  # as published, without what has no influence on the weights
    "text_encoder": {
        "hidden_act": "quick_gelu",
        "hidden_size": 768,
        "intermediate_size": 3072,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 77,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "vocab_size": 49408,
    },
    "unet": {
        "act_fn": "silu",
        "attention_head_dim": 8,
        "block_out_channels": [320, 640, 1280, 1280],
        "center_input_sample": False,
        "cross_attention_dim": 768,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": 2,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-05,
        "norm_num_groups": 32,
        "out_channels": 4,
        "sample_size": 64,
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    },
    "vae": {
        "act_fn": "silu",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 2,
        "out_channels": 3,
        "sample_size": 512,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    },
    "scheduler": {
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": False,
        "num_train_timesteps": 1000,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
    },
}
MAKE = {"text_encoder": make_text_encoder, "unet": make_unet, "vae": make_vae}


def theirs(name: str) -> nn.Module:
    """A component of Stable Diffusion 1.5 as diffusers and transformers build it, without memory."""
    config = SD15[name]
    with torch.device("meta"):
        if name == "text_encoder":
            built: nn.Module = CLIPTextModel(CLIPTextConfig(**config))
        else:
            built = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[name](**config)
    return built


def ours(name: str) -> nn.Module:
    """The same component, ours."""
    with torch.device("meta"):
        return MAKE[name](SD15[name])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the embedded model, to be damaged."""
    return Path(shutil.copytree(WEIGHTS, tmp_path / "model"))


@pytest.mark.parametrize(("name", "millions"), [("text_encoder", 123), ("unet", 860), ("vae", 84)])
def test_stable_diffusion_1_5(name: str, millions: int) -> None:
    """Every weight of Stable Diffusion 1.5 has one place here, of its shape, and there is no other."""
    own, there = ours(name), theirs(name)
    shapes = {key: tensor.shape for key, tensor in own.state_dict().items()}
    keys = key_map(own, name)
    assert len(set(keys.values())) == len(keys)
    assert {keys[key]: shape for key, shape in shapes.items()} == {
        key: tensor.shape for key, tensor in there.state_dict().items()
    }
    assert round(sum(shape.numel() for shape in shapes.values()) / 1e6) == millions


@pytest.mark.parametrize("name", list(MAKE))
def test_the_defaults_are_stable_diffusion_1(name: str) -> None:
    """A network made without arguments has the sizes of Stable Diffusion 1."""
    configured = ours(name)
    with torch.device("meta"):
        plain = type(configured)()
    assert {k: v.shape for k, v in plain.state_dict().items()} == {
        k: v.shape for k, v in configured.state_dict().items()
    }


@pytest.mark.parametrize("name", list(MAKE))
def test_modules_have_their_counterparts(name: str) -> None:
    """Every module that the map names is a module there."""
    there = {f"{name}.{path}" for path, _ in theirs(name).named_modules()}
    assert set(module_map({name: ours(name)}).values()) <= there


def test_names_of_older_versions() -> None:
    """Weights are found under the names that the published files of Stable Diffusion 1 still have."""
    own = load(WEIGHTS, None)
    for name, network in own.networks.items():
        file = "model" if name == "text_encoder" else "diffusion_pytorch_model"
        now = {key: tensor.float() for key, tensor in load_file(WEIGHTS / name / f"{file}.safetensors").items()}
        if name == "text_encoder":
            old = {f"text_model.{key}": tensor for key, tensor in now.items()}
            old["text_model.embeddings.position_ids"] = torch.arange(20)[None]
        elif name == "vae":
            renamed = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
            old = dict(now)
            for new, before in renamed.items():
                old = {key.replace(new, before): tensor for key, tensor in old.items()}
            assert sum("query" in key for key in old) == 4
        else:
            old = now
        expected = {key: tensor.clone() for key, tensor in network.state_dict().items()}
        for weight in network.parameters():
            weight.zero_()
        copy_weights(network, name, old)
        assert all(torch.equal(tensor, expected[key]) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("conv_in.bias"), "unet: the weight 'conv_in.bias' is missing"),
        (lambda w: w.update({"conv_extra.bias": torch.zeros(1)}), "unet: the weight 'conv_extra.bias' is left over"),
        (lambda w: w.update({"conv_in.bias": torch.zeros(3)}), r"'conv_in.bias' has shape \(3,\), not \(48,\)"),
    ],
)
def test_weights_that_do_not_fit(folder: Path, change: Any, message: str) -> None:
    """A weight that is missing, left over or of another shape is named."""
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file)
    with pytest.raises(RecipeError, match=message):
        load(folder, None)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("unet", "use_linear_projection", True),
        ("unet", "addition_embed_type", "text_time"),
        ("unet", "up_block_types", ["UpBlock2D", "UpBlock2D"]),
        ("unet", "attention_head_dim", [5, 10]),
        ("unet", "in_channels", 9),
        ("text_encoder", "hidden_act", "gelu"),
        ("vae", "use_quant_conv", False),
        ("scheduler", "beta_schedule", "squaredcos_cap_v2"),
        ("scheduler", "prediction_type", "flow"),
        ("scheduler", "timestep_spacing", "linspace"),
        ("scheduler", "beta_start", None),
    ],
)
def test_other_architectures(folder: Path, name: str, key: str, value: object) -> None:
    """What these networks are not written for is refused by name and value."""
    file = folder / name / ("scheduler_config.json" if name == "scheduler" else "config.json")
    config = json.loads(file.read_text())
    config[key] = value
    if value is None:
        del config[key]
    file.write_text(json.dumps(config))
    with pytest.raises(RecipeError, match=key if key in ("in_channels", "beta_start") else name):
        load(folder, None)


def test_no_pipeline(tmp_path: Path, folder: Path) -> None:
    """A folder without a pipeline, or with weights that are no safetensors, is refused in one line."""
    with pytest.raises(RecipeError, match="no pipeline saved by diffusers"):
        load(tmp_path / "nothing", None)
    (folder / "vae" / "diffusion_pytorch_model.safetensors").rename(folder / "vae" / "diffusion_pytorch_model.bin")
    with pytest.raises(RecipeError, match="read from safetensors only"):
        load(folder, None)


def test_the_schedule_of_stable_diffusion_1_5() -> None:
    """The schedule ends at the noise level that is published, and visits the published timesteps."""
    schedule = make_schedule(SD15["scheduler"])
    assert schedule.alpha_bars[-1].item() == pytest.approx(0.0047, abs=1e-4)
    assert schedule.timesteps(50)[[0, 1, -1]].tolist() == [981, 961, 1]
    assert schedule.last_alpha_bar == schedule.alpha_bars[0]

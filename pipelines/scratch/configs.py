"""Make networks of the sizes that a configuration of diffusers names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch

from diffusion_xray.tracer.errors import RecipeError

from .clip import TextEncoder
from .schedule import Schedule
from .unet import UNet
from .vae import VAE

__all__ = ["Config", "make_schedule", "make_text_encoder", "make_unet", "make_vae"]

Config = Mapping[str, Any]

_EXPECTED: Final[Mapping[str, Config]] = {
    "text_encoder": {"hidden_act": "quick_gelu"},
    "vae": {"act_fn": "silu", "mid_block_add_attention": True, "use_quant_conv": True, "use_post_quant_conv": True},
    "unet": {
        "act_fn": "silu",
        "addition_embed_type": None,
        "class_embed_type": None,
        "dual_cross_attention": False,
        "encoder_hid_dim": None,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "only_cross_attention": False,
        "resnet_time_scale_shift": "default",
        "time_embedding_type": "positional",
        "transformer_layers_per_block": 1,
        "use_linear_projection": False,
    },
    "scheduler": {"thresholding": False, "trained_betas": None, "rescale_betas_zero_snr": False},
}
"""What these networks are written for; what a configuration leaves out is so."""


def make_text_encoder(config: Config) -> TextEncoder:
    """A text encoder of the sizes in a configuration of `CLIPTextModel`, with random weights."""
    _check("text_encoder", config)
    return TextEncoder(
        vocabulary=config["vocab_size"],
        length=config["max_position_embeddings"],
        width=config["hidden_size"],
        blocks=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        feed_width=config["intermediate_size"],
    )


def make_unet(config: Config) -> UNet:
    """A UNet of the sizes in a configuration of `UNet2DConditionModel`, with random weights."""
    _check("unet", config)
    heads = config.get("num_attention_heads") or config["attention_head_dim"]  # diffusers' name for it
    mirrored = [kind.replace("Down", "Up") for kind in reversed(config["down_block_types"])]
    known = {"DownBlock2D", "CrossAttnDownBlock2D"}.issuperset(config["down_block_types"])
    if not known or mirrored != list(config["up_block_types"]) or not isinstance(heads, int):
        raise _other("unet", "blocks", f"{config['down_block_types']}, {config['up_block_types']}, {heads} heads")
    if config["in_channels"] != config["out_channels"]:
        raise _other("unet", "in_channels", config["in_channels"])
    return UNet(
        channels=config["in_channels"],
        widths=config["block_out_channels"],
        attends=[kind == "CrossAttnDownBlock2D" for kind in config["down_block_types"]],
        layers=config["layers_per_block"],
        heads=heads,
        text_width=config["cross_attention_dim"],
        groups=config.get("norm_num_groups", 32),
    )


def make_vae(config: Config) -> VAE:
    """An autoencoder of the sizes in a configuration of `AutoencoderKL`, with random weights."""
    _check("vae", config)
    return VAE(
        widths=config["block_out_channels"],
        layers=config["layers_per_block"],
        channels=config["latent_channels"],
        groups=config.get("norm_num_groups", 32),
        scale=config.get("scaling_factor", 0.18215),
    )


def make_schedule(config: Config) -> Schedule:
    """The schedule of a scheduler's configuration, whichever of diffusers it is."""
    _check("scheduler", config)
    start, end, count = config["beta_start"], config["beta_end"], config.get("num_train_timesteps", 1000)
    kind, spacing = config.get("beta_schedule", "linear"), config.get("timestep_spacing", "leading")
    predicts = config.get("prediction_type", "epsilon")
    if kind == "linear":
        betas = torch.linspace(start, end, count)
    elif kind == "scaled_linear":
        betas = torch.linspace(start**0.5, end**0.5, count) ** 2
    else:
        raise _other("scheduler", "beta_schedule", kind)
    if predicts not in ("epsilon", "v_prediction"):
        raise _other("scheduler", "prediction_type", predicts)
    if spacing not in ("leading", "trailing"):
        raise _other("scheduler", "timestep_spacing", spacing)
    alpha_bars = torch.cumprod(1 - betas, dim=0)
    last = torch.tensor(1.0) if config.get("set_alpha_to_one", True) else alpha_bars[0]
    return Schedule(alpha_bars, last, predicts, spacing, config.get("steps_offset", 0))


def _check(name: str, config: Config) -> None:
    for key, expected in _EXPECTED[name].items():
        if config.get(key, expected) != expected:
            raise _other(name, key, config[key])


def _other(name: str, key: str, value: object) -> RecipeError:
    return RecipeError(f"{name}: {key} {value!r} is another architecture; give a folder of Stable Diffusion 1.x")

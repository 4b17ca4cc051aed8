"""Load what diffusers has saved, by a map of how things are called there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from diffusion_xray.tracer.errors import RecipeError

from . import unet, vae
from .blocks import Attention, ResidualBlock
from .clip import TextBlock, TextEncoder
from .configs import Config, make_schedule, make_text_encoder, make_unet, make_vae
from .sampler import StableDiffusion
from .unet import UNet
from .vae import VAE

__all__ = ["copy_weights", "key_map", "load", "module_map"]

_RESIDUAL: Final = {
    "norm_in": "norm1",
    "conv_in": "conv1",
    "time": "time_emb_proj",
    "norm_out": "norm2",
    "conv_out": "conv2",
    "skip": "conv_shortcut",
}
_ATTENTION: Final = {"query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0"}
_MIDDLE: Final = {"before": "resnets.0", "attention": "attentions.0", "after": "resnets.1"}
_CODER: Final = {
    "first": "conv_in",
    "blocks": "down_blocks",
    "middle": "mid_block",
    "norm": "conv_norm_out",
    "last": "conv_out",
}
_NAMES: Final[Mapping[str, Mapping[type[nn.Module], Mapping[str, str]]]] = {
    "text_encoder": {
        TextEncoder: {
            "token": "embeddings.token_embedding",
            "position": "embeddings.position_embedding",
            "blocks": "encoder.layers",
            "norm": "final_layer_norm",
        },
        TextBlock: {
            "norm_attention": "layer_norm1",
            "attention": "self_attn",
            "norm_feed": "layer_norm2",
            "feed_in": "mlp.fc1",
            "feed_out": "mlp.fc2",
        },
        Attention: {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"},
    },
    "vae": {
        VAE: {"to_moments": "quant_conv", "from_latents": "post_quant_conv"},
        vae.Encoder: _CODER,
        vae.Decoder: _CODER | {"blocks": "up_blocks"},
        vae.EncoderBlock: {"residuals": "resnets", "shrink": "downsamplers.0.conv"},
        vae.DecoderBlock: {"residuals": "resnets", "grow": "upsamplers.0.conv"},
        vae.MiddleBlock: _MIDDLE,
        vae.ImageAttention: _ATTENTION | {"norm": "group_norm"},
        ResidualBlock: _RESIDUAL,
    },
    "unet": {
        UNet: {
            "time": "time_embedding",
            "first": "conv_in",
            "down": "down_blocks",
            "middle": "mid_block",
            "up": "up_blocks",
            "norm": "conv_norm_out",
            "last": "conv_out",
        },
        unet.TimeEmbedding: {"into": "linear_1", "out": "linear_2"},
        unet.DownBlock: {"residuals": "resnets", "shrink": "downsamplers.0.conv"},
        unet.MiddleBlock: _MIDDLE,
        unet.UpBlock: {"residuals": "resnets", "grow": "upsamplers.0.conv"},
        unet.PictureBlock: {"into": "proj_in", "transformer": "transformer_blocks.0", "out": "proj_out"},
        unet.TransformerBlock: {
            "norm_self": "norm1",
            "self_attention": "attn1",
            "norm_text": "norm2",
            "text_attention": "attn2",
            "norm_feed": "norm3",
            "feed_in": "ff.net.0.proj",
            "feed_out": "ff.net.2",
        },
        Attention: _ATTENTION,
        ResidualBlock: _RESIDUAL,
    },
}
"""What the children of each class are called in diffusers and transformers."""

_OLDER: Final = {
    "text_encoder": {"text_model.": ""},
    "vae": {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."},
    "unet": {},
}
"""Names in files of older versions."""
_NO_WEIGHTS: Final = {"embeddings.position_ids"}
"""What older versions saved beside weights."""


def load(
    folder: str | Path, tokenizer: Any, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> StableDiffusion:
    """Load a pipeline that diffusers has saved, Stable Diffusion 1 or of its architecture in other sizes.

    Args:
        folder: With the folders unet, vae, text_encoder and scheduler, weights as safetensors.
        tokenizer: Of transformers, from the same folder.
        device: Where it runs.
        dtype: Precision of the weights in memory; CPUs need float32.

    Raises:
        RecipeError: A file is missing, the architecture is another one, or a weight has no place or is not there.
    """
    configs = {name: _config(Path(folder), name) for name in ("text_encoder", "unet", "vae", "scheduler")}
    try:
        model = StableDiffusion(
            tokenizer,
            make_text_encoder(configs["text_encoder"]),
            make_unet(configs["unet"]),
            make_vae(configs["vae"]),
            make_schedule(configs["scheduler"]),
            configs["unet"]["sample_size"],
        )
    except KeyError as error:
        raise RecipeError(f"{folder}: a configuration has no {error}; give a folder of Stable Diffusion 1.x") from error
    for name, network in model.networks.items():
        copy_weights(network, name, load_file(_weights(Path(folder) / name)))
        network.to(device, dtype).eval().requires_grad_(False)
    return model


def copy_weights(network: nn.Module, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Give a network the weights of one of diffusers or transformers.

    Args:
        network: One of ours.
        name: "text_encoder", "unet" or "vae".
        tensors: By their name there.

    Raises:
        RecipeError: A weight is missing, is left over, or has another shape.
    """
    given: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        today = key
        for old, new in _OLDER[name].items():
            today = today.replace(old, new)
        if today in given:
            raise RecipeError(f"{name}: {today!r} is there twice, the second time as {key!r}")
        if today not in _NO_WEIGHTS:
            given[today] = tensor
    keys = key_map(network, name)
    missing, left = sorted(set(keys.values()) - set(given)), sorted(set(given) - set(keys.values()))
    for problem, found in (("missing", missing), ("left over", left)):
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            raise RecipeError(f"{name}: the weight {found[0]!r}{more} is {problem}; this is another architecture")
    own = network.state_dict()
    for ours, theirs in keys.items():
        if own[ours].shape != given[theirs].shape:
            shapes = f"{tuple(given[theirs].shape)}, not {tuple(own[ours].shape)}"
            raise RecipeError(f"{name}: the weight {theirs!r} has shape {shapes}; its configuration says otherwise")
    network.load_state_dict({ours: given[theirs] for ours, theirs in keys.items()})


def key_map(network: nn.Module, name: str) -> dict[str, str]:
    """What every weight of a network is called in diffusers or transformers, by its name here."""
    return {
        f"{ours}.{leaf}": f"{theirs}.{leaf}"
        for ours, theirs, module in _walk(network, _NAMES[name])
        for leaf, _ in module.named_parameters(recurse=False)
    }


def module_map(networks: Mapping[str, nn.Module]) -> dict[str, str]:
    """What modules are called in a trace of the pipeline of diffusers, by their name in one of these networks.

    This is what ``dxray diff --map`` reads and `pair_sites` takes.

    Args:
        networks: By the name of the component: "text_encoder", "unet", "vae".
    """
    return {
        f"{name}.{ours}": f"{name}.{theirs}"
        for name, network in networks.items()
        for ours, theirs, module in _walk(network, _NAMES[name])
        if ours and not isinstance(module, nn.ModuleList)
    }


def _walk(
    module: nn.Module, names: Mapping[type[nn.Module], Mapping[str, str]], ours: str = "", theirs: str = ""
) -> Iterator[tuple[str, str, nn.Module]]:
    """Every module with its path here and there."""
    yield ours, theirs, module
    renamed = names.get(type(module), {})
    for name, child in module.named_children():
        there = renamed.get(name, name)
        yield from _walk(child, names, f"{ours}.{name}".lstrip("."), f"{theirs}.{there}".lstrip("."))


def _config(folder: Path, name: str) -> Config:
    path = folder / name / ("scheduler_config.json" if name == "scheduler" else "config.json")
    try:
        config: Config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{folder} is no pipeline saved by diffusers: {path} cannot be read: {error}") from error
    return config


def _weights(folder: Path) -> Path:
    found = [
        folder / f"{stem}{variant}.safetensors"
        for variant in ("", ".fp16")
        for stem in ("diffusion_pytorch_model", "model")
    ]
    for path in found:
        if path.is_file():
            return path
    raise RecipeError(f"{folder} has no {found[0].name} nor {found[1].name}: weights are read from safetensors only")

"""What the families are built of."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from ..families import FAMILIES, PROMPT
from ..families import _clip_config as clip_config
from ..families import _clip_tokenizer as clip_tokenizer
from ..families import _sd_parts as sd_parts
from ..families import _t5_config as t5_config
from ..families import _t5_tokenizer as t5_tokenizer
from ..families import _unet as unet
from ..families import _vae as vae
from .family import NEGATIVE, Sight

__all__ = [
    "SIZE",
    "TOKENS",
    "WIDTH",
    "another",
    "clip_config",
    "clip_tokenizer",
    "image_call",
    "image_encoder",
    "image_processor",
    "mask",
    "parts_of",
    "picture",
    "sd_parts",
    "sdxl_parts",
    "t5_config",
    "t5_tokenizer",
    "unet",
    "unet_sight",
    "vae",
]

SIZE = 16
"""Height and width of pictures."""
WIDTH = 32
"""Of text encoders and denoisers."""
TOKENS = 12
"""Length of padded prompts."""


def image_call(steps: int = 2, **further: Any) -> dict[str, Any]:
    """The arguments that most pipelines share."""
    size = {"height": SIZE, "width": SIZE}
    call = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "num_inference_steps": steps, "output_type": "np"}
    return {name: value for name, value in (call | size | further).items() if value is not None}


def picture(size: int = SIZE, seed: int = 1) -> Image.Image:
    """Random pixels, always the same."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def mask(size: int = SIZE) -> Image.Image:
    """The left half."""
    pixels = np.zeros((size, size), np.uint8)
    pixels[:, : size // 2] = 255
    return Image.fromarray(pixels)


def image_encoder(**options: Any) -> CLIPVisionModelWithProjection:
    """A CLIP encoder of pictures."""
    defaults = {"hidden_size": WIDTH, "projection_dim": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4}
    size = {"image_size": SIZE, "patch_size": 8, "intermediate_size": WIDTH}
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**defaults | size | options)).eval()


def image_processor() -> CLIPImageProcessor:
    """To the size of `image_encoder`."""
    return CLIPImageProcessor(crop_size=SIZE, size=SIZE)


def unet_sight(grid: int = SIZE // 4, **options: Any) -> Sight:
    """The cross-attention in the middle of a UNet."""
    return Sight("unet.mid_block.attentions.0.transformer_blocks.0.attn2", (grid, grid), **options)


def sdxl_parts() -> dict[str, Any]:
    """The components of Stable Diffusion XL except its scheduler."""
    parts = FAMILIES["sdxl"]().pipeline.components
    return {
        name: part for name, part in parts.items() if name not in ("scheduler", "image_encoder", "feature_extractor")
    }


def parts_of(family: str) -> dict[str, Any]:
    """The components of a pipeline of `tests.families`, where they are not None."""
    return {name: part for name, part in FAMILIES[family]().pipeline.components.items() if part is not None}


def another(model: Any, **options: Any) -> Any:
    """A model of the same class with some other options."""
    config = {name: value for name, value in model.config.items() if not name.startswith("_")}
    return type(model)(**config | options)

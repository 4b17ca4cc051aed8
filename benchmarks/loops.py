"""The denoising loops that the benchmarks run: UNets of diffusers with random weights, small and at full size."""

# ruff: noqa: INP001 (beside the scripts that import it, no package)
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

__all__ = ["Loop", "sd15_loop", "sdxl_loop", "small_loop"]

GUIDANCE_SCALE = 5.0

_SMALL = {
    "sample_size": 16,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (48, 96),
    "layers_per_block": 1,
    "attention_head_dim": 4,  # diffusers' name for the number of heads
    "cross_attention_dim": 64,
    "norm_num_groups": 8,
}
_SDXL = {
    "sample_size": 128,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_SD15 = {"sample_size": 64, "cross_attention_dim": 768}
"""The rest is what `UNet2DConditionModel` is without arguments."""

_REDUCED = {
    "sample_size": 16,
    "block_out_channels": (32, 32, 64, 64),
    "layers_per_block": 1,
    "attention_head_dim": 4,
    "cross_attention_dim": 64,
    "norm_num_groups": 8,
}
_SDXL_REDUCED = {
    "sample_size": 16,
    "block_out_channels": (32, 64, 64),
    "layers_per_block": 1,
    "transformer_layers_per_block": (1, 1, 2),
    "attention_head_dim": (2, 4, 4),
    "cross_attention_dim": 64,
    "norm_num_groups": 8,
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 6 * 32 + 64,
}


@dataclass(frozen=True, slots=True)
class Loop:
    """A UNet, what goes into it, and a hand-written loop of so many steps over it."""

    unet: UNet2DConditionModel
    latents: Tensor
    """Shape (1, 4, height, width)."""
    inputs: dict[str, Any]
    """Further keyword arguments of the UNet, for a batch of two."""
    steps: int

    @torch.no_grad()
    def run(
        self, denoise: Callable[..., Any] | None = None, on_step: Callable[[int, Tensor], object] = lambda *_: None
    ) -> Tensor:
        """Denoise with classifier-free guidance in one batch of two.

        Args:
            denoise: Called in place of the UNet, with the same arguments.
            on_step: Called with the index and the timestep before each step.

        Returns:
            The last latents, shape (1, 4, height, width).
        """
        denoise = denoise or self.unet
        latents = self.latents
        for step, timestep in enumerate(torch.linspace(999, 0, self.steps, device=latents.device)):
            on_step(step, timestep)
            noise = denoise(torch.cat([latents, latents]), timestep, **self.inputs, return_dict=False)[0]
            unconditional, conditional = noise.chunk(2)
            latents = latents - (unconditional + GUIDANCE_SCALE * (conditional - unconditional)) / self.steps
        return latents


def small_loop(steps: int, *, dtype: torch.dtype = torch.float32) -> Loop:
    """A UNet shaped like that of the embedded model: 2.2 M parameters, latents of 16x16, about 190 modules."""
    return _loop(_SMALL, steps, tokens=16, dtype=dtype)


def sd15_loop(steps: int, *, reduced: bool = False) -> Loop:
    """The UNet of Stable Diffusion 1.5: 860 M parameters, latents of 64x64; or that structure, narrow."""
    return _loop(_SD15 | (_REDUCED if reduced else {}), steps, tokens=77)


def sdxl_loop(steps: int, *, dtype: torch.dtype, device: str, reduced: bool = False) -> Loop:
    """The UNet of SDXL: 2.6 G parameters, latents of 128x128; or that structure, narrow."""
    config = _SDXL | (_SDXL_REDUCED if reduced else {})
    loop = _loop(config, steps, tokens=77, dtype=dtype, device=device)
    pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
    size = 8.0 * config["sample_size"]
    loop.inputs["added_cond_kwargs"] = {
        "text_embeds": torch.randn(2, pooled).to(device, dtype),
        "time_ids": torch.tensor([[size, size, 0, 0, size, size]] * 2, dtype=dtype, device=device),
    }
    return loop


def _loop(
    config: dict[str, Any], steps: int, *, tokens: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> Loop:
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # the weights are drawn where and as they are used: no copy in float32 beside them
    try:
        with torch.device(device):
            unet = UNet2DConditionModel(**config).eval()
    finally:
        torch.set_default_dtype(before)
    size = config["sample_size"]
    latents = torch.randn(1, 4, size, size, generator=torch.Generator().manual_seed(1))
    text = torch.randn(2, tokens, config["cross_attention_dim"], generator=torch.Generator().manual_seed(2))
    return Loop(unet, latents.to(device, dtype), {"encoder_hidden_states": text.to(device, dtype)}, steps)

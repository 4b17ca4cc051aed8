"""Modular pipelines of diffusers: blocks, a state that holds everything, guiders that call the denoiser in turns."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from diffusers import (
    ClassifierFreeGuidance,
    EulerDiscreteScheduler,
    LayerSkipConfig,
    PerturbedAttentionGuidance,
    StableDiffusionXLAutoBlocks,
    StableDiffusionXLModularPipeline,
)

from .family import Foreign, foreign
from .parts import image_call, sdxl_parts, unet_sight


def _sdxl(guider: Any) -> Foreign:
    pipeline = StableDiffusionXLAutoBlocks().init_pipeline()
    pipeline.update_components(**sdxl_parts(), scheduler=EulerDiscreteScheduler(steps_offset=1), guider=guider)
    return Foreign(pipeline, image_call(2, output="images"), result="", sight=unet_sight())


@foreign(StableDiffusionXLModularPipeline)
def modular_sdxl() -> Foreign:
    """Two calls a step, the conditional one first, which only the guider knows."""
    return _sdxl(ClassifierFreeGuidance(guidance_scale=5.0))


@foreign(StableDiffusionXLModularPipeline, "_perturbed")
def modular_sdxl_perturbed() -> Foreign:
    """Three calls a step."""
    guider = PerturbedAttentionGuidance(
        perturbed_guidance_config=LayerSkipConfig(
            indices=[0],
            fqn="mid_block.attentions.0.transformer_blocks",
            skip_attention=False,
            skip_attention_scores=True,
            skip_ff=False,
        ),
        perturbed_guidance_start=0.0,
        perturbed_guidance_stop=1.0,
    )
    return _sdxl(guider)

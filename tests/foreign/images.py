"""Pipelines of Stable Diffusion and its kin: a UNet on the latents of pictures, and text."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    PNDMScheduler,
    SemanticStableDiffusionPipeline,
    StableDiffusionAdapterPipeline,
    StableDiffusionControlNetInpaintPipeline,
    StableDiffusionImageVariationPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionLatentUpscalePipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionPanoramaPipeline,
    StableDiffusionPipeline,
    StableDiffusionUpscalePipeline,
    StableDiffusionXLInpaintPipeline,
    T2IAdapter,
)

from ..families import PROMPT
from .family import NEGATIVE, Foreign, foreign
from .parts import (
    WIDTH,
    image_call,
    image_encoder,
    image_processor,
    mask,
    picture,
    sd_parts,
    sdxl_parts,
    unet,
    unet_sight,
)


def _ddim() -> DDIMScheduler:
    return DDIMScheduler(clip_sample=False, steps_offset=1)


@foreign(StableDiffusionInpaintPipeline)
def inpaint() -> Foreign:
    """Nine channels: latents, a mask and what is around it, given at every step; PNDM, whose second step is doubled."""
    parts = sd_parts() | {"unet": unet(in_channels=9)}
    pipeline = StableDiffusionInpaintPipeline(**parts, scheduler=PNDMScheduler(skip_prk_steps=True, steps_offset=1))
    call = image_call(3, image=picture(), mask_image=mask(), strength=1.0)
    return Foreign(pipeline, call, sight=unet_sight())


@foreign(StableDiffusionInstructPix2PixPipeline)
def instruct_pix2pix() -> Foreign:
    """Three parts: text and picture, the picture alone, neither."""
    parts = sd_parts() | {"unet": unet(in_channels=8)}
    pipeline = StableDiffusionInstructPix2PixPipeline(**parts, scheduler=EulerAncestralDiscreteScheduler())
    call = image_call(2, image=picture(), height=None, width=None)
    return Foreign(pipeline, call, sight=unet_sight(), provable=False)


@foreign(StableDiffusionUpscalePipeline)
def upscale() -> Foreign:
    """A second scheduler, which adds noise and never steps; classes of noise levels."""
    network = unet(in_channels=7, num_class_embeds=1000, class_embed_type=None)
    pipeline = StableDiffusionUpscalePipeline(
        **{k: v for k, v in sd_parts().items() if k not in ("requires_safety_checker", "unet")},
        unet=network,
        low_res_scheduler=DDPMScheduler(),
        scheduler=DDIMScheduler(prediction_type="v_prediction", clip_sample=False),
        max_noise_level=350,
    )
    call = image_call(2, image=picture(8), height=None, width=None)
    return Foreign(pipeline, call, sight=unet_sight())


@foreign(StableDiffusionLatentUpscalePipeline)
def latent_upscale() -> Foreign:
    """Latents scaled by the pipeline itself, timesteps that are logarithms of sigma, a scheduler of Euler."""
    network = unet(in_channels=8, out_channels=5, time_cond_proj_dim=128 + WIDTH)
    parts = {k: v for k, v in sd_parts().items() if k in ("vae", "text_encoder", "tokenizer")}
    pipeline = StableDiffusionLatentUpscalePipeline(**parts, unet=network, scheduler=EulerDiscreteScheduler())
    call = image_call(2, image=picture(), height=None, width=None)
    return Foreign(pipeline, call, sight=unet_sight(8))


@foreign(StableDiffusionImageVariationPipeline)
def image_variation() -> Foreign:
    """No text: the embedding of a picture in its place, zeros for the unconditional half."""
    pipeline = StableDiffusionImageVariationPipeline(
        vae=sd_parts()["vae"],
        image_encoder=image_encoder(),
        unet=unet(),
        scheduler=_ddim(),
        safety_checker=None,
        feature_extractor=image_processor(),
        requires_safety_checker=False,
    )
    call = image_call(2, image=picture(), prompt=None, negative_prompt=None)
    return Foreign(pipeline, call, condition={"image": picture(seed=2)})


@foreign(LatentConsistencyModelPipeline)
def latent_consistency() -> Foreign:
    """Guidance as an embedding, thus one part; LCM, which says its own x0."""
    parts = sd_parts() | {"unet": unet(time_cond_proj_dim=WIDTH)}
    pipeline = LatentConsistencyModelPipeline(**parts, scheduler=LCMScheduler(original_inference_steps=10))
    return Foreign(pipeline, image_call(2, negative_prompt=None), sight=unet_sight())


@foreign(SemanticStableDiffusionPipeline)
def semantic() -> Foreign:
    """A third part: the prompt of an edit beside prompt and negative prompt."""
    pipeline = SemanticStableDiffusionPipeline(**sd_parts(), scheduler=_ddim())
    edit = {"editing_prompt": ["a blue circle"], "edit_warmup_steps": 0, "edit_guidance_scale": 5.0}
    texts = (NEGATIVE, PROMPT, "a blue circle")
    return Foreign(pipeline, image_call(2, **edit), sight=unet_sight(), texts=texts, provable=False)


@foreign(StableDiffusionPAGPipeline)
def perturbed_attention() -> Foreign:
    """A third part whose self-attention is the identity."""
    pipeline = StableDiffusionPAGPipeline(**sd_parts(), scheduler=_ddim(), pag_applied_layers="mid")
    return Foreign(pipeline, image_call(2, pag_scale=3.0), sight=unet_sight(), provable=False)


@foreign(StableDiffusionAdapterPipeline)
def adapter() -> Foreign:
    """T2I-Adapter: features of a sketch, made once before the loop, are added within."""
    sketch = T2IAdapter(in_channels=3, channels=[16, WIDTH], num_res_blocks=1, downscale_factor=2)
    network = unet(
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D")
    )
    pipeline = StableDiffusionAdapterPipeline(
        **sd_parts() | {"unet": network}, adapter=sketch, scheduler=DPMSolverMultistepScheduler(use_karras_sigmas=True)
    )
    return Foreign(pipeline, image_call(3, image=picture()), sight=unet_sight())


@foreign(StableDiffusionControlNetInpaintPipeline)
def controlnet_inpaint() -> Foreign:
    """Four channels: outside of the mask the latents are put back after each step; two denoisers."""
    parts = sd_parts()
    controlnet = ControlNetModel.from_unet(parts["unet"], conditioning_embedding_out_channels=(8, 16))
    pipeline = StableDiffusionControlNetInpaintPipeline(**parts, controlnet=controlnet, scheduler=_ddim())
    for parameter in controlnet.controlnet_down_blocks.parameters():  # zeros at first, which nothing would pass
        torch.nn.init.normal_(parameter, std=0.1)
    call = image_call(2, image=picture(), mask_image=mask(), control_image=picture(seed=2), strength=1.0)
    return Foreign(pipeline, call, ("controlnet", "unet"), sight=unet_sight())


@foreign(StableDiffusionPanoramaPipeline)
def panorama() -> Foreign:
    """Several windows of one wide picture, each with a call and a step of its own."""
    pipeline = StableDiffusionPanoramaPipeline(**sd_parts(), scheduler=_ddim())
    return Foreign(pipeline, image_call(2, width=160, height=128), sight=unet_sight(32))


@foreign(StableDiffusionPipeline, "_with_ip_adapter")
def ip_adapter() -> Foreign:
    """Decoupled attention to an embedding of a picture, by processors that are modules of their own."""
    parts = sd_parts()
    pipeline = StableDiffusionPipeline(**parts, scheduler=_ddim(), image_encoder=image_encoder())
    pipeline.register_modules(feature_extractor=image_processor())
    _add_ip_adapter(parts["unet"])
    return Foreign(pipeline, image_call(2, ip_adapter_image=picture()), sight=unet_sight())


def _add_ip_adapter(network: Any) -> None:
    """What `load_ip_adapter` does with random weights."""
    projection = {"proj.weight": torch.randn(4 * WIDTH, WIDTH), "proj.bias": torch.zeros(4 * WIDTH)}
    norm = {"norm.weight": torch.ones(WIDTH), "norm.bias": torch.zeros(WIDTH)}
    attention = {}
    for at, module in enumerate(m for name, m in network.named_modules() if name.endswith("attn2")):
        for kind in ("k", "v"):
            attention[f"{2 * at + 1}.to_{kind}_ip.weight"] = torch.randn(module.inner_dim, WIDTH) / 6
    network._load_ip_adapter_weights([{"image_proj": projection | norm, "ip_adapter": attention}])


@foreign(StableDiffusionXLInpaintPipeline)
def sdxl_inpaint() -> Foreign:
    """Part of the schedule only, two text encoders, latents blended with the picture's after each step."""
    pipeline = StableDiffusionXLInpaintPipeline(**sdxl_parts(), scheduler=EulerDiscreteScheduler(steps_offset=1))
    call = image_call(4, image=picture(), mask_image=mask(), strength=0.5)
    return Foreign(pipeline, call, sight=unet_sight())

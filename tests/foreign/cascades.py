"""Pipelines of several loops: a prior that makes what a decoder is conditioned on."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DDPMWuerstchenScheduler,
    KandinskyV22CombinedPipeline,
    KandinskyV22Pipeline,
    PriorTransformer,
    StableCascadeCombinedPipeline,
    StableCascadeUNet,
    UnCLIPPipeline,
    UnCLIPScheduler,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from diffusers.pipelines.deprecated.unclip import UnCLIPTextProjModel
from diffusers.pipelines.deprecated.wuerstchen import PaellaVQModel
from transformers import CLIPTextModelWithProjection

from ..families import PROMPT
from .family import Foreign, foreign
from .parts import SIZE, TOKENS, WIDTH, clip_config, clip_tokenizer, image_call, image_encoder, image_processor


def _decoder() -> dict[str, Any]:
    """Kandinsky's, conditioned on the embedding of a picture."""
    return {
        "unet": UNet2DConditionModel(
            sample_size=SIZE // 2,
            in_channels=4,
            out_channels=8,
            addition_embed_type="image",
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            block_out_channels=(16, WIDTH),
            layers_per_block=1,
            encoder_hid_dim=WIDTH,
            encoder_hid_dim_type="image_proj",
            cross_attention_dim=WIDTH,
            attention_head_dim=4,
            norm_num_groups=8,
            resnet_time_scale_shift="scale_shift",
        ),
        "scheduler": DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        "movq": VQModel(
            block_out_channels=(32, 64),  # norms of 32 groups are its own choice
            down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
            up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
            latent_channels=4,
            norm_type="spatial",
            num_vq_embeddings=12,
            vq_embed_dim=4,
        ),
    }


@foreign(KandinskyV22Pipeline)
def kandinsky_decoder() -> Foreign:
    """No text at all: embeddings of pictures, the negative one first in the batch."""
    embeds = torch.randn(3, 1, WIDTH)
    call = image_call(2, prompt=None, negative_prompt=None, image_embeds=embeds[0], negative_image_embeds=embeds[1])
    return Foreign(KandinskyV22Pipeline(**_decoder()), call, condition={"image_embeds": embeds[2]})


@foreign(KandinskyV22CombinedPipeline)
def kandinsky() -> Foreign:
    """A prior over vectors, in whose conditional half the negative prompt is too, and a decoder over latents."""
    tokenizer = clip_tokenizer()
    pipeline = KandinskyV22CombinedPipeline(
        **_decoder(),
        prior_prior=PriorTransformer(
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=1,
            embedding_dim=WIDTH,
            num_embeddings=TOKENS,
        ),
        prior_image_encoder=image_encoder(),
        prior_text_encoder=CLIPTextModelWithProjection(clip_config(tokenizer)),
        prior_tokenizer=tokenizer,
        prior_scheduler=UnCLIPScheduler(variance_type="fixed_small_log", prediction_type="sample", clip_sample=True),
        prior_image_processor=image_processor(),
    )
    call = image_call(2, prior_num_inference_steps=3)
    return Foreign(pipeline, call, ("prior_prior", "unet"), provable=False)


@foreign(StableCascadeCombinedPipeline)
def stable_cascade() -> Foreign:
    """A prior and a decoder over latents of different sizes, time as a ratio."""
    tokenizer = clip_tokenizer()
    text_encoder = CLIPTextModelWithProjection(clip_config(tokenizer)).eval()
    shape: dict[str, Any] = {
        "block_out_channels": (8, 16),
        "down_num_layers_per_block": (1, 1),
        "up_num_layers_per_block": (1, 1),
        "down_blocks_repeat_mappers": (1, 1),
        "up_blocks_repeat_mappers": (1, 1),
        "num_attention_heads": (0, 2),
        "dropout": (0.0, 0.0),
        "block_types_per_layer": (
            ("SDCascadeResBlock", "SDCascadeTimestepBlock"),
            ("SDCascadeResBlock", "SDCascadeTimestepBlock", "SDCascadeAttnBlock"),
        ),
        "conditioning_dim": 16,
        "clip_text_pooled_in_channels": WIDTH,
    }
    prior = StableCascadeUNet(
        in_channels=16,
        out_channels=16,
        switch_level=(False,),
        clip_text_in_channels=WIDTH,
        clip_image_in_channels=WIDTH,
        **shape,
    )
    decoder = StableCascadeUNet(in_channels=4, out_channels=4, patch_size=2, effnet_in_channels=16, **shape)
    pipeline = StableCascadeCombinedPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        decoder=decoder,
        scheduler=DDPMWuerstchenScheduler(),
        vqgan=PaellaVQModel(
            levels=1, bottleneck_blocks=1, embed_dim=8, latent_channels=4, num_vq_embeddings=32, up_down_scale_factor=2
        ),
        prior_prior=prior,
        prior_text_encoder=text_encoder,
        prior_tokenizer=tokenizer,
        prior_scheduler=DDPMWuerstchenScheduler(),
        prior_feature_extractor=None,
        prior_image_encoder=None,
    )
    call = image_call(2, prior_num_inference_steps=2, height=128, width=128, decoder_guidance_scale=2.0)
    return Foreign(pipeline, call, ("prior_prior", "decoder"))


@foreign(UnCLIPPipeline)
def unclip() -> Foreign:
    """Three loops over three sizes with four denoisers and no autoencoder; the last step has a network of its own."""
    tokenizer = clip_tokenizer()
    width = 4 * WIDTH
    blocks: dict[str, Any] = {"layers_per_block": 1, "block_out_channels": (WIDTH, 2 * WIDTH)}
    ends = {"down_block_types": ("ResnetDownsampleBlock2D",) * 2, "up_block_types": ("ResnetUpsampleBlock2D",) * 2}
    first, last = (UNet2DModel(sample_size=32, in_channels=6, out_channels=3, **blocks, **ends) for _ in range(2))
    pipeline = UnCLIPPipeline(
        prior=PriorTransformer(
            num_attention_heads=2, attention_head_dim=8, num_layers=1, embedding_dim=WIDTH, num_embeddings=TOKENS
        ),
        decoder=UNet2DConditionModel(
            sample_size=SIZE,
            in_channels=3,
            out_channels=6,
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            cross_attention_dim=WIDTH,
            attention_head_dim=4,
            resnet_time_scale_shift="scale_shift",
            class_embed_type="identity",
            **blocks,
        ),
        text_encoder=CLIPTextModelWithProjection(clip_config(tokenizer)),
        tokenizer=tokenizer,
        text_proj=UnCLIPTextProjModel(clip_embeddings_dim=WIDTH, time_embed_dim=width, cross_attention_dim=WIDTH),
        super_res_first=first,
        super_res_last=last,
        prior_scheduler=UnCLIPScheduler(variance_type="fixed_small_log", prediction_type="sample"),
        decoder_scheduler=UnCLIPScheduler(variance_type="learned_range"),
        super_res_scheduler=UnCLIPScheduler(variance_type="fixed_small_log"),
    )
    call: dict[str, Any] = {"prompt": PROMPT, "output_type": "np"}
    call |= {f"{name}_num_inference_steps": 2 for name in ("prior", "decoder", "super_res")}
    return Foreign(pipeline, call, ("prior", "decoder", "super_res_first", "super_res_last"))

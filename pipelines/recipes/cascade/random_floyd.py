"""DeepFloyd IF in small: genuine pipelines of both stages, with random weights and nothing to download."""

from __future__ import annotations

import string
from typing import Any

import torch
from diffusers import DDPMScheduler, IFPipeline, IFSuperResolutionPipeline, UNet2DConditionModel
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from diffusion_xray.pipelines.shapes.world import BACKGROUNDS, COLOURS, SHAPES

__all__ = ["random_floyd"]

_WIDTH = 32
"""Of the text embeddings and of the UNets' inner blocks."""


def random_floyd() -> tuple[IFPipeline, IFSuperResolutionPipeline]:
    """Stage 1 of 16×16 pixels and stage 2 of 64×64, four times as large as with the real ones; always the same weights.

    The second has no text encoder of its own: it is given the embeddings that the first one made.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = _tokenizer()
        unchecked: dict[str, Any] = {
            "safety_checker": None,
            "feature_extractor": None,
            "watermarker": None,
            "requires_safety_checker": False,
        }
        first = IFPipeline(
            tokenizer=tokenizer,
            text_encoder=_text_encoder(tokenizer).eval(),
            unet=_unet(16, channels=3).eval(),
            scheduler=_scheduler(),
            **unchecked,
        )
        second = IFSuperResolutionPipeline(
            tokenizer=None,
            text_encoder=None,
            unet=_unet(64, channels=6, class_embed_type="timestep").eval(),
            scheduler=_scheduler(),
            image_noising_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
            **unchecked,
        )
    for pipeline in (first, second):
        pipeline.set_progress_bar_config(disable=True)
    return first, second


def _tokenizer() -> T5Tokenizer:
    """A tokenizer that knows the letters and, more probable, the words of coloured shapes."""
    letters = string.ascii_lowercase
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words = dict.fromkeys([*COLOURS, *SHAPES, *BACKGROUNDS, "a", "on", "small", "big", "left", "right", "of"])
    pieces = [("▁", -5.0), *((letter, -5.0) for letter in letters)]
    return T5Tokenizer(vocab=[*special, *((f"▁{word}", -1.0) for word in words), *pieces], extra_ids=0)


def _text_encoder(tokenizer: T5Tokenizer) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=_WIDTH,
            d_kv=8,
            d_ff=_WIDTH,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def _unet(size: int, *, channels: int, **options: Any) -> UNet2DConditionModel:
    """The architecture of both stages: pixels in, noise and variance out, text in attention and in the embedding."""
    return UNet2DConditionModel(
        sample_size=size,
        in_channels=channels,
        out_channels=6,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        block_out_channels=(16, _WIDTH),
        layers_per_block=1,
        attention_head_dim=8,
        cross_attention_dim=_WIDTH,
        cross_attention_norm="group_norm",
        encoder_hid_dim=_WIDTH,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        norm_num_groups=8,
        resnet_time_scale_shift="scale_shift",
        act_fn="gelu",
        **options,
    )


def _scheduler() -> DDPMScheduler:
    return DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        variance_type="learned_range",
        thresholding=True,
        dynamic_thresholding_ratio=0.95,
    )
